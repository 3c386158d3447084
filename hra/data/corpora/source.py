"""A corpus in any form -> records.

Enters: what a user calls the corpus: a manifest, a folder, an archive,
`tfds:NAME`, or one of those for each split. Leaves: a list of `Record`, and a list
of all that is wrong with it. Local or on a bucket alike.
"""

import dataclasses
import os
import pathlib
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from hra.data import splits
from hra.data.corpora import (
  archives,
  kaldi,
  librispeech,
  manifest,
  tfds_source,
)
from hra.data.corpora import fields as values
from hra.data.corpora.fields import Fields
from hra.data.records import Problems, Record
from hra.errors import InputError
from hra.files import is_remote, storage

Path = str | os.PathLike[str]
Source = Path | Mapping[str, Path]

_FORMS = (
  "a manifest (NAME.jsonl), a folder with train.jsonl, a Kaldi data folder "
  "(wav.scp, text, utt2spk) or one of such folders, LibriSpeech's layout or its "
  "archives (.tar, .tar.gz, .tgz), or tfds:NAME"
)
_PACKED = (".zip", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_TABLES = (".csv", ".tsv", ".xlsx")
_SOUND = (
  *values.AUDIO,
  ".aac",
  ".aif",
  ".aiff",
  ".m4a",
  ".mp4",
  ".sph",
  ".wma",
)
_SHOWN = 8


def read(
  source: Source,
  *,
  problems: Problems,
  fields: Fields = values.DEFAULT,
  scratch: Callable[[], pathlib.Path],
) -> list[Record]:
  """The records of a corpus; what can't be used of it becomes problems.

  Args:
    source: one corpus, or one for each split:

      - `tfds:NAME[/CONFIG][:VERSION][@HERTZ]`: `hra.data.corpora.tfds_source`
      - a file: a manifest, or an archive of LibriSpeech
      - a folder with `train.jsonl`: each NAME.jsonl is the split NAME, as
        `hra.data.splits.known_as` has it
      - a folder with `wav.scp`, or with folders that have one, each a split
      - a folder in LibriSpeech's layout, or with archives of it; one whose
        subset (by its name) is unpacked beside it isn't read again

    problems: where lines, transcripts and the like that can't be used are listed.
    fields: names of a manifest's fields and of TFDS features.
    scratch: makes, and remembers, a local folder for what archives and TFDS hold;
      it lasts from one attempt to the next.

  Raises:
    InputError: the corpus as a whole can't be used, or isn't one.
    StorageError: something is missing or can't be read.
  """
  if isinstance(source, Mapping):
    return [
      dataclasses.replace(record, split=splits.known_as(split))
      for split, part in source.items()
      for record in read(
        part, problems=problems, fields=fields, scratch=scratch
      )
    ]
  name = os.fspath(source)
  if name.startswith(tfds_source.PREFIX):
    return tfds_source.read(
      name, problems=problems, fields=fields, scratch=scratch
    )
  path = _path(name)
  if not _is_folder(path):
    if archives.is_archive(path):
      _refuse_fields(fields, path, got="an archive of LibriSpeech")
      return _unpacked([path], problems=problems, scratch=scratch)
    _refuse_others(path)
    return manifest.read(path, problems=problems, fields=fields)
  return _folder(path, problems=problems, fields=fields, scratch=scratch)


def identity(source: Source) -> list[Any] | None:
  """What tells a corpus from another before it is unpacked; JSON.

  Returns:
    Names and sizes of archives, or the full name of a TFDS dataset; None where
    reading the records costs little.

  Raises:
    InputError: there is no such corpus.
    StorageError: it can't be read.
  """
  if isinstance(source, Mapping):
    parts = {split: identity(part) for split, part in source.items()}
    known = all(part is not None for part in parts.values())
    return sorted(parts.items()) if known else None
  name = os.fspath(source)
  if name.startswith(tfds_source.PREFIX):
    return [tfds_source.full_name(name)]
  path = _path(name)
  if not _is_folder(path):
    return _sizes([path]) if archives.is_archive(path) else None
  entries = _entries(path)
  packed = [entry for entry in entries if archives.is_archive(entry)]
  if not packed or _manifests(entries) or _data_folders(path, entries):
    return None
  return None if librispeech.depth(path) else _sizes(packed)


def _folder(
  path: epath.Path,
  *,
  problems: Problems,
  fields: Fields,
  scratch: Callable[[], pathlib.Path],
) -> list[Record]:
  entries = _entries(path)
  if manifests := _manifests(entries):
    return [
      record
      for split, file in manifests.items()
      for record in manifest.read(
        _regular(file),
        problems=problems,
        fields=fields,
        split=splits.checked(split, where=os.fspath(file)),
      )
    ]
  if folders := _data_folders(path, entries):
    _refuse_fields(fields, path, got="a Kaldi data folder")
    return [
      record
      for split, folder in folders.items()
      for record in kaldi.read(
        folder, problems=problems, split=split and splits.known_as(split)
      )
    ]
  _refuse_fields(fields, path, got="a folder without manifests")
  found = librispeech.subset_names(path)
  records = librispeech.read(path, problems=problems) if found else []
  packed = [
    entry
    for entry in entries
    if archives.is_archive(entry) and archives.stem(entry) not in found
  ]
  if not found and not packed:
    raise InputError(path, expected=_FORMS, got=_contents(entries))
  return records + _unpacked(packed, problems=problems, scratch=scratch)


def _manifests(entries: Sequence[epath.Path]) -> dict[str, epath.Path]:
  """The manifests by split as they are named, if there is one of train; it is
  first, so that what stands in two is reported for the other one."""
  found = [entry for entry in entries if entry.suffix == ".jsonl"]
  found.sort(key=lambda entry: not _trains(entry))
  return {e.stem: e for e in found} if found and _trains(found[0]) else {}


def _trains(entry: epath.Path) -> bool:
  return splits.known_as(entry.stem) == splits.TRAIN


def _data_folders(
  path: epath.Path, entries: Sequence[epath.Path]
) -> dict[str | None, epath.Path]:
  """Kaldi data folders by split; `path` itself is of none."""
  if any(entry.name == kaldi.MARK for entry in entries):
    return {None: path}
  with storage(path, expected=_FORMS):
    marks = sorted(path.glob(f"*/{kaldi.MARK}"))
  return {mark.parent.name: mark.parent for mark in marks}


def _unpacked(
  packed: Sequence[epath.Path],
  *,
  problems: Problems,
  scratch: Callable[[], pathlib.Path],
) -> list[Record]:
  records = []
  for archive in packed:
    folder = archives.unpack(archive, into=scratch(), problems=problems)
    records += librispeech.read(
      epath.Path(folder),
      problems=problems,
      origin=archive,
      subset=archives.stem(archive),
    )
  return records


def _path(name: str) -> epath.Path:
  if not name or ("://" in name and not name.startswith(values.SCHEMES)):
    raise InputError(
      name or "the corpus", expected=_FORMS, got=name or "nothing"
    )
  return epath.Path(name).expanduser()


def _is_folder(path: epath.Path) -> bool:
  with storage(path, expected=_FORMS):
    if path.is_dir():
      return True
    path.stat()  # There is such a file, or this says so.
  _regular(path)
  return False


def _regular(path: epath.Path) -> epath.Path:
  """Refuses what would be waited for without an end, as a FIFO."""
  if not is_remote(path):
    with storage(path, expected=_FORMS):
      mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
      raise InputError(
        path, expected="an ordinary file", got="a pipe, a device or a folder"
      )
  return path


def _refuse_others(path: epath.Path) -> None:
  """Refuses files that are no manifests by their names.

  Raises:
    InputError: sound, a table, or an archive that can't be unpacked here.
  """
  name = path.name.lower()
  if name.endswith(_PACKED):
    raise InputError(
      path, expected=_FORMS, got="another archive", fix="unpack it"
    )
  if name.endswith(_SOUND):
    raise InputError(
      path,
      expected=_FORMS,
      got="a recording",
      fix="write a manifest that names it and says what is spoken",
    )
  if name.endswith(_TABLES):
    raise InputError(
      path,
      expected=_FORMS,
      got="a table",
      fix="convert it to JSON lines, one object a row",
    )


def _refuse_fields(fields: Fields, path: epath.Path, *, got: str) -> None:
  """Refuses names of fields for a corpus that has none."""
  if fields != values.DEFAULT:
    named = ", ".join(
      f"{field.name}={values.shown(getattr(fields, field.name))}"
      for field in dataclasses.fields(fields)
      if getattr(fields, field.name) != field.default
    )
    raise InputError(
      path,
      expected=f"a manifest or tfds:NAME, as its fields were named ({named})",
      got=got,
      fix="leave --task_field and --text_field out",
    )


def _entries(path: epath.Path) -> list[epath.Path]:
  with storage(path, expected=_FORMS):
    return sorted(e for e in path.iterdir() if not e.name.startswith("."))


def _sizes(paths: Sequence[epath.Path]) -> list[Any]:
  with storage(paths[0], expected="archives"):
    return [[path.name, path.stat().length] for path in paths]


def _contents(entries: Sequence[epath.Path]) -> str:
  if not entries:
    return "an empty folder"
  names = ", ".join(entry.name for entry in entries[:_SHOWN])
  more = len(entries) - _SHOWN
  return f"a folder with {names}" + (f" and {more} more" if more > 0 else "")
