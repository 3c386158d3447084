"""JSON-lines manifests (NeMo's form) -> records.

Enters: a file with one JSON object a line,

    {"audio_filepath": "a/1.wav", "duration": 3.2, "text": "...", "speaker": "a"}

`task` names the task; `speaker` serves where `task` is absent. Paths are
relative to the manifest. `id` defaults to the path. With `offset`, the
utterance is `duration` seconds of the file from there on. Leaves: a list of
`Record`, in the manifest's order.
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from hra.errors import InputError

_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Record:
  """One utterance before it is decoded."""

  id: str
  path: str
  """Of the audio file; absolute, or relative to the working folder."""
  text: str
  """The transcript as the user wrote it."""
  task: str
  duration: float | None = None
  """Seconds, as the manifest says."""
  offset: float | None = None
  """Seconds into the file where the utterance starts; None: all of the file."""
  where: str = ""
  """`manifest:line`, for messages."""


class Problems:
  """Collects what is wrong, so that a user can correct it all at once."""

  def __init__(self, where: object, *, expected: str):
    self._where = where
    self._expected = expected
    self._errors: list[InputError] = []

  def __len__(self) -> int:
    return len(self._errors)

  def add(self, error: InputError) -> None:
    self._errors.append(error)

  def raise_any(self) -> None:
    """Raises the only problem as it is, or several as one list.

    Raises:
      InputError: the first problems, one a line, and how many there are.
    """
    if not self._errors:
      return
    if len(self._errors) == 1:
      raise self._errors[0]
    count = len(self._errors)
    first = f"the first {_SHOWN}" if count > _SHOWN else "correct these"
    lines = "".join(f"\n  {error}" for error in self._errors[:_SHOWN])
    raise InputError(
      self._where,
      expected=self._expected,
      got=f"{count} problems",
      fix=f"{first}:{lines}",
    )


def read(path: str | os.PathLike[str]) -> list[Record]:
  """The records of a manifest.

  Raises:
    InputError: the file is missing or empty, or lines of it can't be used: all
      such lines together (the first 20 and their count), each with its number.
  """
  file = epath.Path(path)
  problems = Problems(file, expected="a manifest without faults")
  records: list[Record] = []
  ids: dict[str, str] = {}
  segments: dict[tuple[str, float | None], str] = {}
  for number, line in enumerate(_text(file).split("\n"), start=1):
    if not line.strip():
      continue
    where = f"{file}:{number}"
    try:
      record = _record(line, where=where, folder=file.parent)
      _refuse_known(record.id, ids, where=where, what="id")
      _refuse_known(
        (record.path, record.offset), segments, where=where, what="recording"
      )
    except InputError as error:
      problems.add(error)
    else:
      records.append(record)
  problems.raise_any()
  if not records:
    raise InputError(file, expected="JSON lines", got="an empty file")
  return records


def _text(path: epath.Path) -> str:
  try:
    # Some editors start a file with a byte order mark.
    return path.read_bytes().decode("utf-8-sig")
  except FileNotFoundError:
    raise InputError(path, expected="a manifest", got="no such file") from None
  except OSError as error:
    raise InputError(
      path, expected="a manifest", got=error.strerror or str(error)
    ) from error
  except UnicodeDecodeError as error:
    raise InputError(
      path, expected="UTF-8 text", got=f"other bytes at {error.start}"
    ) from error


def _record(line: str, *, where: str, folder: epath.Path) -> Record:
  try:
    values = json.loads(line)
  except json.JSONDecodeError as error:
    raise InputError(
      where,
      expected='one JSON object a line, as {"audio_filepath": ..., "text": ...}',
      got=f"no JSON ({error.msg} at column {error.colno})",
    ) from None
  if not isinstance(values, dict):
    raise InputError(
      where, expected="a JSON object", got=f"a {type(values).__name__}"
    )
  name = _string(values, "audio_filepath", where=where)
  # `/` keeps what is absolute already, URLs included.
  audio = epath.Path(_normal(name))
  task_key = "task" if values.get("task") is not None else "speaker"
  duration = _seconds(values, "duration", where=where)
  offset = _seconds(values, "offset", where=where)
  if duration is not None and duration == 0:
    raise InputError(where, expected="duration above 0", got="0")
  if offset is not None and duration is None:
    raise InputError(where, expected="a duration beside the offset", got="none")
  default_id = _relative(audio, folder)
  if offset is not None:
    default_id = f"{default_id}@{offset:g}"
  has_id = values.get("id") is not None
  return Record(
    id=_string(values, "id", where=where) if has_id else default_id,
    path=os.fspath(folder / audio),
    text=_string(values, "text", where=where),
    task=_string(values, task_key, where=where),
    duration=duration,
    offset=offset,
    where=where,
  )


def _string(values: Mapping[str, Any], name: str, *, where: str) -> str:
  value = values.get(name)
  if name in ("task", "speaker", "id") and type(value) is int:
    return str(value)
  if value is None:
    got, fix = "nothing", ""
    if name == "speaker":
      fix = "say which task each recording belongs to, by `task` or `speaker`"
    raise InputError(where, expected=f"{name!r}", got=got, fix=fix)
  if not isinstance(value, str):
    raise InputError(
      where,
      expected=f"{name!r} as a string",
      got=f"{value!r} ({type(value).__name__})",
    )
  if not value.strip() or (name != "text" and not value.isprintable()):
    raise InputError(
      where, expected=f"{name!r} with printable text", got=repr(value)
    )
  return value


def _seconds(
  values: Mapping[str, Any], name: str, *, where: str
) -> float | None:
  value = values.get(name)
  if value is None:
    return None
  number = isinstance(value, int | float) and not isinstance(value, bool)
  if not number or not math.isfinite(value) or value < 0:
    raise InputError(where, expected=f"{name!r} in seconds", got=f"{value!r}")
  return float(value)


def _normal(name: str) -> str:
  return name if "://" in name else os.path.normpath(name)


def _relative(audio: epath.Path, folder: epath.Path) -> str:
  """The path as seen from the manifest: the same wherever both are moved."""
  if audio.is_absolute() and audio.is_relative_to(folder.absolute()):
    return audio.relative_to(folder.absolute()).as_posix()
  return audio.as_posix()


def _refuse_known(
  key: Any, known: dict[Any, str], *, where: str, what: str
) -> None:
  first = known.setdefault(key, where)
  if first != where:
    shown = key if isinstance(key, str) else key[0]
    raise InputError(
      where,
      expected=f"a new {what}",
      got=f"{shown!r} again",
      fix=f"see {first}",
    )
