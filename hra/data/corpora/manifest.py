"""JSON-lines manifests (NeMo's form) -> records.

Enters: a file with one JSON object a line,

    {"audio_filepath": "a/1.wav", "duration": 3.2, "text": "...", "speaker": "a"}

`task` names the task; `speaker` serves where `task` is absent. Paths are
relative to the manifest. `id` defaults to the path. With `offset`, the
utterance is `duration` seconds of the file from there on, and `id` defaults to
PATH@OFFSET; if that is taken, to PATH@OFFSET+DURATION, or that and /TASK.
`session` and `split` are taken where they stand. Leaves: a list of `Record`, in
the manifest's order.
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from hra.data.corpora import fields as values
from hra.data.corpora import lines, segments
from hra.data.corpora.fields import Fields
from hra.data.records import Problems, Record, repeated
from hra.errors import InputError
from hra.files import is_remote

_LINE = 'one JSON object a line, as {"audio_filepath": ..., "text": ...}'
_SOUNDS = "a folder or a manifest of recordings"


def read(
  path: str | os.PathLike[str],
  *,
  problems: Problems,
  fields: Fields = values.DEFAULT,
  split: str | None = None,
) -> list[Record]:
  """The records of a manifest; lines that can't be used become problems.

  Args:
    path: the manifest.
    problems: where they are listed.
    fields: what its fields are called.
    split: the split of all of the file; lines that say another are problems.

  Raises:
    InputError: the file has no line, is in UTF-16, or is JSON of another kind.
    StorageError: it can't be read.
  """
  file = epath.Path(path)
  folder = os.fspath(file.parent)
  before = len(problems)
  records: list[Record] = []
  ids: dict[str, str] = {}
  recordings: dict[segments.Key, str] = {}
  found = lines.read(file, expected="a manifest", problems=problems)
  if found:
    _refuse_document(found[0])
  for where, line in found:
    try:
      entry = _object(line, where=where)
      record = _record(entry, where=where, folder=folder, fields=fields)
      record = _of_split(record, split, field=fields.split)
      _refuse_known(segments.key(record), recordings, record, what="recording")
      if entry.get("id") is None:
        record = _with_new_id(record, ids)
      _refuse_known(record.id, ids, record, what="id")
    except InputError as error:
      problems.add(error)
    else:
      records.append(record)
  if not records and len(problems) == before:
    raise InputError(file, expected="JSON lines", got="an empty file")
  return records


def read_sounds(
  path: str | os.PathLike[str], *, problems: Problems
) -> list[Record]:
  """The recordings of a manifest, whatever else it says of them: nobody speaks.

  Raises:
    InputError: as `read`.
  """
  file = epath.Path(path)
  records = []
  found = lines.read(file, expected=_SOUNDS, problems=problems)
  if found:
    _refuse_document(found[0])
  for where, line in found:
    try:
      entry = _object(line, where=where)
      records.append(
        _sound(
          entry,
          where=where,
          folder=os.fspath(file.parent),
          fields=values.DEFAULT,
        )
      )
    except InputError as error:
      problems.add(error)
  return records


def _refuse_document(first: lines.Line) -> None:
  """Raises, where a file is one JSON value on many lines."""
  if first.text.startswith("[") or first.text == "{":
    is_array = first.text[0] == "["
    raise InputError(
      first.where,
      expected=_LINE,
      got="a JSON array" if is_array else "an object on several lines",
      fix=f"write one object a line, as `jq -c {'.[]' if is_array else '.'}` does",
    )


def _of_split(record: Record, split: str | None, *, field: str) -> Record:
  if split is None:
    return record
  if record.split not in (None, split):
    raise InputError(
      record.where,
      expected=f"{field!r} as the file is named ({values.shown(split)}), or none",
      got=values.shown(record.split),
    )
  return dataclasses.replace(record, split=split)


def _with_new_id(record: Record, ids: Mapping[str, str]) -> Record:
  """Tells segments apart that start at the same time: by length, or by task."""
  if record.offset is None or record.id not in ids:
    return record
  longer = f"{record.id}+{record.duration:.12g}"
  if longer in ids:
    longer = f"{longer}/{record.task}"
  return dataclasses.replace(record, id=longer)


def _record(
  entry: Mapping[str, Any], *, where: str, folder: str, fields: Fields
) -> Record:
  record = _sound(entry, where=where, folder=folder, fields=fields)
  text = entry.get(fields.text)
  session, split = entry.get(fields.session), entry.get(fields.split)
  return dataclasses.replace(
    record,
    text=values.transcript(text, field=fields.text, where=where),
    task=_task(entry, fields, where=where),
    session=None
    if session is None
    else values.name(session, field=fields.session, where=where),
    split=None
    if split is None
    else values.split_name(split, field=fields.split, where=where),
  )


def _sound(
  entry: Mapping[str, Any], *, where: str, folder: str, fields: Fields
) -> Record:
  """What is heard, without what is said and by whom."""
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
  return Record(
    id=values.name(identity, field="id", where=where),
    path=audio if is_remote(audio) else os.path.join(folder, audio),
    text="",
    task="",
    duration=duration,
    offset=offset,
    where=where,
  )


def _object(line: str, *, where: str) -> Mapping[str, Any]:
  try:
    entry = json.loads(line)
  except json.JSONDecodeError as error:
    raise InputError(
      where,
      expected=_LINE,
      got=f"no JSON ({error.msg} at column {error.colno})",
    ) from None
  except RecursionError:
    raise InputError(
      where, expected=_LINE, got="lists or objects nested too deeply"
    ) from None
  except ValueError:
    raise InputError(
      where, expected=_LINE, got="a number of thousands of digits"
    ) from None
  if not isinstance(entry, dict):
    raise InputError(
      where, expected="a JSON object", got=f"a {type(entry).__name__}"
    )
  return entry


def _task(entry: Mapping[str, Any], fields: Fields, *, where: str) -> str:
  if fields.single_task is not None:
    return values.name(fields.single_task, field="task", where=where)
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
  key: Any, known: dict[Any, str], record: Record, *, what: str
) -> None:
  first = known.setdefault(key, record.where)
  if first != record.where:
    again = values.shown(key) if what == "id" else segments.shown(record)
    raise repeated(record.where, what=what, shown=again, first=first)
