"""Kaldi data folders -> records.

Enters: a folder with

    wav.scp     RECORDING PATH, or a pipe that only unpacks one file
    text        UTTERANCE what was said
    utt2spk     UTTERANCE SPEAKER
    segments    UTTERANCE RECORDING START END; optional, in seconds; an END of -1
                is the end of the recording

in any order. Without `segments` an utterance is a recording. Paths are relative
to the folder where a file stands there, and else to the working folder, as Kaldi
has it; in a folder on a bucket, to that folder. Pipes are never run: `flac -c -d
FILE |` and `cat FILE |` are read as FILE. Leaves: a list of `Record` by id; the
task is the speaker, the session the recording that was cut.

The format: https://kaldi-asr.org/doc/data_prep.html
"""

import functools
import math
import os
import re
import shlex
from collections.abc import Mapping, Set
from typing import NamedTuple

from etils import epath

from hra.data.corpora import fields, lines
from hra.data.records import Problems, Record, repeated
from hra.errors import InputError
from hra.files import is_remote, storage

MARK = "wav.scp"
"""The file that makes a folder a Kaldi data folder."""

_ENTRY = re.compile(r"([^ \t]+)[ \t]+(.+)", re.DOTALL)
_BLANKS = re.compile(r"[ \t]+")
_IN_ARCHIVE = re.compile(r":\d+(\[[^]]*\])?$")
_SHELL = re.compile(r"[|&;<>()$`*?{}~\n\\]")
_UNPACKERS = {"flac": ("cd", "cds"), "cat": ("", "")}
"""Programs that only unpack a file: the options that they need, and may have."""
_FLAC = {"--decode": "d", "--stdout": "c", "--silent": "s"}
_TO_FILES = "run the commands into files first and give their paths"


class _Entry(NamedTuple):
  where: str
  value: str


class _Utterance(NamedTuple):
  where: str
  recording: str
  offset: float | None
  duration: float | None


_Table = Mapping[str, _Entry]


def read(
  folder: epath.Path, *, problems: Problems, split: str | None = None
) -> list[Record]:
  """The records of one data folder; what can't be used becomes problems.

  A record stands where it is cut, or else where its transcript is.

  Raises:
    InputError: the folder has no recordings at all.
    StorageError: a file is missing or can't be read.
  """
  before = len(problems)
  bad: set[str] = set()
  table = functools.partial(_table, bad=bad, problems=problems)
  recordings = table(folder / MARK, form="RECORDING PATH")
  texts = table(folder / "text", form="UTTERANCE WORDS")
  speakers = table(folder / "utt2spk", form="UTTERANCE SPEAKER")
  tables = {"text": texts, "utt2spk": speakers}
  segments = folder / "segments"
  with storage(segments, expected="segments, or none"):
    is_cut = segments.exists()
  if is_cut:
    form = "UTTERANCE RECORDING START END"
    cuts = table(segments, form=form)
    tables = {"segments": cuts, **tables}
    utterances = _cut(cuts, recordings, bad=bad, problems=problems)
  else:
    tables = {MARK: recordings, **tables}
    utterances = {
      name: _Utterance(texts[name].where, name, None, None)
      for name in recordings.keys() & texts.keys()
    }
  _list_missing(tables, bad=bad, problems=problems)
  if not any(tables.values()) and len(problems) == before:
    raise InputError(folder, expected="recordings", got="empty files")
  paths = _paths(recordings, folder=folder, problems=problems)
  records = []
  for name in sorted(utterances.keys() & texts.keys() & speakers.keys()):
    where, recording, offset, duration = utterances[name]
    if recording not in paths:
      continue
    said, text = texts[name]
    try:
      record = Record(
        id=name,
        path=paths[recording],
        text=fields.transcript(text, field="text", where=said),
        task=_speaker(speakers[name]),
        duration=duration,
        offset=offset,
        session=recording if is_cut else None,
        split=split,
        where=where,
      )
    except InputError as error:
      problems.add(error)
    else:
      records.append(record)
  return records


def _table(
  path: epath.Path, *, form: str, bad: set[str], problems: Problems
) -> _Table:
  """A file's lines by their first column; adds those of bad lines to `bad`."""
  table: dict[str, _Entry] = {}
  for where, line in lines.read(
    path, expected=f"a file of Kaldi ({form} a line)", problems=problems
  ):
    try:
      match = _ENTRY.fullmatch(line)
      if match is None:
        bad.add(line)
        raise InputError(where, expected=form, got=fields.shown(line))
      name = fields.name(match[1], field="id", where=where)
      first = table.setdefault(name, _Entry(where, match[2]))
      if first.where != where:
        raise repeated(
          where, what="id", shown=fields.shown(name), first=first.where
        )
    except InputError as error:
      problems.add(error)
  return table


def _list_missing(
  tables: Mapping[str, _Table], *, bad: Set[str], problems: Problems
) -> None:
  """Adds ids that don't stand in all of the files, each once."""
  for name in sorted(set().union(*tables.values()) - bad):
    missing = [file for file, table in tables.items() if name not in table]
    if missing:
      where = next(t[name].where for t in tables.values() if name in t)
      problems.add(
        InputError(
          where,
          expected=f"{fields.shown(name)} in {' and '.join(missing)} too",
          got="no line",
        )
      )


def _cut(
  cuts: _Table, recordings: _Table, *, bad: Set[str], problems: Problems
) -> dict[str, _Utterance]:
  """The utterances by id; `bad` names have a problem already."""
  utterances: dict[str, _Utterance] = {}
  used = set()
  for name, (where, value) in cuts.items():
    used.add(_BLANKS.split(value)[0])
    try:
      utterance = _segment(value, where=where)
      if utterance.recording in bad - recordings.keys():
        continue
      if utterance.recording not in recordings:
        raise InputError(
          where,
          expected=f"a recording of {MARK}",
          got=fields.shown(utterance.recording),
        )
    except InputError as error:
      problems.add(error)
    else:
      utterances[name] = utterance
  for name, (where, _) in recordings.items():
    if name not in used | bad:
      problems.add(
        InputError(
          where,
          expected=f"segments of {fields.shown(name)}",
          got="no line",
          fix="add them, or leave the recording out",
        )
      )
  return utterances


def _segment(value: str, *, where: str) -> _Utterance:
  columns = _BLANKS.split(value)
  if len(columns) != 3:
    fix = "write each channel into a file of its own"
    raise InputError(
      where,
      expected="4 columns (UTTERANCE RECORDING START END)",
      got=str(len(columns) + 1),
      fix=fix if len(columns) == 4 else "",
    )
  start, end = (_seconds(column, where=where) for column in columns[1:])
  if start < 0 or (end != -1 and end <= start):
    raise InputError(
      where,
      expected="0 <= START < END in seconds, or an END of -1",
      got=f"{columns[1]} {columns[2]}",
    )
  length = None if end == -1 else end - start
  return _Utterance(where, columns[0], start, length)


def _seconds(column: str, *, where: str) -> float:
  try:
    seconds = float(column)
  except ValueError:
    seconds = math.nan
  if not math.isfinite(seconds):
    raise InputError(where, expected="seconds", got=fields.shown(column))
  return seconds


def _speaker(entry: _Entry) -> str:
  where, value = entry
  if _BLANKS.search(value):
    raise InputError(where, expected="one speaker", got=fields.shown(value))
  return fields.name(value, field="speaker", where=where)


def _paths(
  recordings: _Table, *, folder: epath.Path, problems: Problems
) -> dict[str, str]:
  paths = {}
  for name, (where, value) in recordings.items():
    try:
      path = fields.audio_path(
        _file(value, where=where), field="path", where=where
      )
    except InputError as error:
      problems.add(error)
    else:
      paths[name] = _resolved(path, folder)
  return paths


def _file(value: str, *, where: str) -> str:
  """The file that a value of wav.scp is, or unpacks."""
  if value.endswith("|"):
    return _piped(value.removesuffix("|"), where=where)
  if value == "-" or value.startswith("|") or _IN_ARCHIVE.search(value):
    raise InputError(
      where,
      expected="the path of an audio file",
      got=f"{fields.shown(value)}, a pipe or a part of an archive",
      fix=_TO_FILES,
    )
  return value


def _piped(command: str, *, where: str) -> str:
  try:
    words = [] if _SHELL.search(command) else shlex.split(command)
  except ValueError:  # a quotation mark that isn't closed
    words = []
  if len(words) > 1:
    program, *options, file = words
    letters = set("".join(_FLAC.get(o, o).removeprefix("-") for o in options))
    least, most = _UNPACKERS.get(os.path.basename(program), ("none", ""))
    if set(least) <= letters <= set(most) and not file.startswith("-"):
      return file
  raise InputError(
    where,
    expected="a path, `flac -c -d FILE |` or `cat FILE |`",
    got=fields.shown(f"{command}|"),
    fix=_TO_FILES,
  )


def _resolved(path: str, folder: epath.Path) -> str:
  beside = os.fspath(folder / epath.Path(path))
  if is_remote(beside) or os.path.exists(beside):
    return beside
  return path
