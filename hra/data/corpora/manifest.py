"""JSON-lines manifests (NeMo's form) -> records.

Enters: a file with one JSON object a line,

    {"audio_filepath": "a/1.wav", "duration": 3.2, "text": "...", "speaker": "a"}

`task` names the task; `speaker` serves where `task` is absent. Paths are
relative to the manifest. `id` defaults to the path. With `offset`, the
utterance is `duration` seconds of the file from there on. `session` and `split`
are taken where they stand. Leaves: a list of `Record`, in the manifest's order.
"""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from hra.data.corpora import fields as values
from hra.data.corpora import lines
from hra.data.corpora.fields import Fields
from hra.data.records import Problems, Record
from hra.errors import InputError
from hra.files import is_remote


def read(
  path: str | os.PathLike[str],
  *,
  problems: Problems,
  fields: Fields = values.DEFAULT,
) -> list[Record]:
  """The records of a manifest; lines that can't be used become problems.

  Raises:
    InputError: the file has no line, or is in UTF-16.
    StorageError: it can't be read.
  """
  file = epath.Path(path)
  folder = os.fspath(file.parent)
  before = len(problems)
  records: list[Record] = []
  ids: dict[str, str] = {}
  segments: dict[tuple[str, float | None], str] = {}
  for where, line in lines.read(file, expected="a manifest", problems=problems):
    try:
      record = _record(line, where=where, folder=folder, fields=fields)
      _refuse_known(record.id, ids, where=where, what="id")
      _refuse_known(
        (record.path, record.offset), segments, where=where, what="recording"
      )
    except InputError as error:
      problems.add(error)
    else:
      records.append(record)
  if not records and len(problems) == before:
    raise InputError(file, expected="JSON lines", got="an empty file")
  return records


def _record(line: str, *, where: str, folder: str, fields: Fields) -> Record:
  entry = _object(line, where=where)
  audio = _normal(
    values.audio_path(entry.get(fields.audio), field=fields.audio, where=where)
  )
  duration = _seconds(entry, "duration", where=where)
  offset = _seconds(entry, "offset", where=where)
  if duration is not None and duration == 0:
    raise InputError(where, expected="duration above 0", got="0")
  if offset is not None and duration is None:
    raise InputError(where, expected="a duration beside the offset", got="none")
  identity: Any = entry.get("id")
  if identity is None:
    identity = _relative(audio, folder)
    if offset is not None:
      identity = f"{identity}@{offset:.12g}"
  session, split = entry.get(fields.session), entry.get(fields.split)
  return Record(
    id=values.name(identity, field="id", where=where),
    path=audio if is_remote(audio) else os.path.join(folder, audio),
    text=values.transcript(
      entry.get(fields.text), field=fields.text, where=where
    ),
    task=_task(entry, fields, where=where),
    duration=duration,
    offset=offset,
    session=None
    if session is None
    else values.name(session, field=fields.session, where=where),
    split=None
    if split is None
    else values.split_name(split, field=fields.split, where=where),
    where=where,
  )


def _object(line: str, *, where: str) -> Mapping[str, Any]:
  expected = 'one JSON object a line, as {"audio_filepath": ..., "text": ...}'
  try:
    entry = json.loads(line)
  except json.JSONDecodeError as error:
    raise InputError(
      where,
      expected=expected,
      got=f"no JSON ({error.msg} at column {error.colno})",
    ) from None
  except RecursionError:
    raise InputError(
      where, expected=expected, got="lists or objects nested too deeply"
    ) from None
  except ValueError:
    raise InputError(
      where, expected=expected, got="a number of thousands of digits"
    ) from None
  if not isinstance(entry, dict):
    raise InputError(
      where, expected="a JSON object", got=f"a {type(entry).__name__}"
    )
  return entry


def _task(entry: Mapping[str, Any], fields: Fields, *, where: str) -> str:
  field = fields.task
  if field is None:
    field = "task" if entry.get("task") is not None else "speaker"
    if entry.get(field) is None:
      raise InputError(
        where,
        expected=f"{field!r}",
        got="nothing",
        fix="say which task each recording belongs to, by `task` or `speaker`",
      )
  return values.name(entry.get(field), field=field, where=where)


def _seconds(
  entry: Mapping[str, Any], name: str, *, where: str
) -> float | None:
  value = entry.get(name)
  if value is None:
    return None
  try:
    seconds = float(value) if type(value) in (int, float) else math.nan
  except OverflowError:  # an integer above 1.8e308
    seconds = math.inf
  if not math.isfinite(seconds) or seconds < 0:
    raise InputError(
      where, expected=f"{name!r} in seconds", got=values.shown(value)
    )
  return seconds


def _normal(name: str) -> str:
  return name if is_remote(name) else os.path.normpath(name)


def _relative(audio: str, folder: str) -> str:
  """The path as seen from the manifest: the same wherever both are moved."""
  if not os.path.isabs(audio) or is_remote(folder):
    return audio
  above = os.path.join(os.path.abspath(folder), "")
  return audio.removeprefix(above)


def _refuse_known(
  key: Any, known: dict[Any, str], *, where: str, what: str
) -> None:
  first = known.setdefault(key, where)
  if first != where:
    again = key if isinstance(key, str) else key[0]
    raise InputError(
      where,
      expected=f"a new {what}",
      got=f"{values.shown(again)} again",
      fix=f"see {first}",
    )
