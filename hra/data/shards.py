"""Records -> array_record files, by processes that may be killed at any time.

Enters: the records of each split. Leaves: a folder that lasts from one attempt to
the next, with two files for each run of records (a chunk):

    KEY.array_record   its recordings, but those that can't be used
    KEY.json           their places, lengths and rates, and what is wrong

KEY is a hash of all that decides them. A chunk that has its JSON is not made
again, unless a recording that was bad has become good. Chunks end where a hash of an utterance's id says so: a record that is added
or taken away makes its own chunk anew and moves no other's bounds. (A split that
grows past a power of two is cut anew, so that its files don't grow too many.)
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tqdm

from hra import dims, keys
from hra.data import shard_pool
from hra.data.audio import Limits
from hra.data.records import Record
from hra.data.shard_pool import Chunk, Facts
from hra.errors import InputError
from hra.files import is_remote, storage, write_aside

WORKER = (sys.executable, "-m", "hra.data.shard_worker")
"""The command of a process that decodes."""

_FORMAT = 1
"""Rises when the same record would give other bytes."""
_CHUNK = 256
"""Utterances in a chunk, more or less, unless a split would take many files."""
_FILES = 128
"""Files of a split, more or less: a reader holds each of them open."""
_INERT = ("where", "session", "split")
"""Fields of a record that change nothing in its chunk."""
_OURS = re.compile(r"(?P<aside>\.)?(?P<key>[0-9a-f]{32})\.[a-z_]+(\.\d+)?")
"""Files of chunks, whole or begun."""


class Shard(NamedTuple):
  """A chunk of a split, decoded."""

  file: pathlib.Path | None
  """None: no recording can be used."""
  places: list[int]
  """Of the recordings in the file, in order, among the records of the split."""
  samples: list[int]
  """Of each of them, at `dims.SAMPLE_RATE`."""
  rates: list[int]
  """Samples per second that each had."""
  problems: list[InputError]
  """Of the recordings that were left out."""


def decode(
  folder: str | os.PathLike[str],
  splits: Mapping[str, Sequence[Record]],
  *,
  limits: Limits,
  jobs: int = 0,
  worker: Sequence[str] = WORKER,
) -> dict[str, list[Shard]]:
  """Decodes every recording that an earlier call on the folder has not.

  Which bytes come out depends on the records and limits alone; on `jobs`, and on
  how often it was interrupted, nothing does.

  Args:
    folder: an existing local folder, for this purpose alone (`hra.files.locked`). What an
      earlier call left there and this one doesn't need is deleted.
    splits: records with distinct ids, in the order of the result.
    limits: of a usable recording.
    jobs: processes that decode; 0 is one for each processor.
    worker: the command of such a process.

  Returns:
    The shards of each split, in order.

  Raises:
    StorageError: the disk refuses; what is finished stays.
    InputError: the system kills process after process.
    RuntimeError: a process fails as none should.
  """
  folder = pathlib.Path(folder)
  chunks = {
    split: [
      _recalled(_file(folder, records[start:end], limits), records[start:end])
      for start, end in _bounds(records)
    ]
    for split, records in splits.items()
  }
  every = [chunk for of_split in chunks.values() for chunk in of_split]
  facts = {chunk.file: chunk.known for chunk in every}
  names = {file.stem for file in facts}
  _sweep(folder, names)
  with tqdm.tqdm(
    total=sum(len(chunk.records) for chunk in every),
    initial=sum(len(chunk.records) for chunk in every if chunk.known),
    desc="decoding",
    unit="rec",
    disable=None,
  ) as bar:
    made = shard_pool.make(
      [chunk for chunk in every if not chunk.known or chunk.known["problems"]],
      limits=limits,
      jobs=jobs or _processors(),
      command=worker,
      progress=bar.update,
    )
    try:
      with contextlib.closing(made):
        for chunk, of_chunk in made:
          facts[chunk.file] = of_chunk
          if of_chunk != chunk.known:
            text = json.dumps(of_chunk)
            write_aside(chunk.file.with_suffix(".json"), text.encode())
    finally:
      _sweep(folder, names)
  return {
    split: list(_shards(of_split, facts)) for split, of_split in chunks.items()
  }


def file_stamp(path: str) -> tuple[int, int] | None:
  """Bytes and time of change of a local file; None where there is none, and of
  URLs."""
  status = _status(path)
  return None if status is None else (status.st_size, status.st_mtime_ns)


def _bounds(records: Sequence[Record]) -> Iterator[tuple[int, int]]:
  """Chunks of a quarter of the typical length to four times as much."""
  typical = _CHUNK
  while typical * _FILES < len(records):
    typical *= 2
  start = 0
  for end, record in enumerate(records, start=1):
    length = end - start
    if length < typical // 4:
      continue
    if length == 4 * typical or keys.stable_hash(record.id) % typical == 0:
      yield start, end
      start = end
  if start < len(records):
    yield start, len(records)


def _file(
  folder: pathlib.Path, records: Iterable[Record], limits: Limits
) -> pathlib.Path:
  digest = hashlib.blake2b(digest_size=16)

  def add(value: Any) -> None:
    digest.update(json.dumps(value, sort_keys=True).encode() + b"\n")

  add([_FORMAT, dims.SAMPLE_RATE, limits])
  for record in records:
    fields = vars(record)
    told = {name: fields[name] for name in fields.keys() - _INERT}
    add(told | {"": file_stamp(record.path)})
  return folder / f"{digest.hexdigest()}.array_record"


def _status(path: str) -> os.stat_result | None:
  if is_remote(path):
    return None
  try:
    return os.stat(path)
  except OSError:  # The decoder will say what it is.
    return None


def _sweep(folder: pathlib.Path, names: set[str]) -> None:
  """Deletes what was begun and not finished, and chunks of other records."""
  with storage(folder, expected="a folder that can be written to"):
    for path in folder.iterdir():
      name = _OURS.fullmatch(path.name)
      if name and (name["aside"] or name["key"] not in names):
        path.unlink()


def _recalled(file: pathlib.Path, records: Sequence[Record]) -> Chunk:
  """A chunk, with what is known about it if it is finished and whole."""
  try:
    facts = json.loads(file.with_suffix(".json").read_text())
  except (FileNotFoundError, json.JSONDecodeError):
    return Chunk(file, records)
  stamp = file_stamp(os.fspath(file))
  whole = (None if stamp is None else stamp[0]) == facts["size"]
  return Chunk(file, records, facts if whole else None)


def _shards(
  chunks: Iterable[Chunk], facts: Mapping[pathlib.Path, Facts | None]
) -> Iterator[Shard]:
  start = 0
  for chunk in chunks:
    known = facts[chunk.file]
    assert known is not None
    yield Shard(
      file=chunk.file if known["places"] else None,
      places=[start + place for place in known["places"]],
      samples=known["samples"],
      rates=known["rates"],
      problems=[
        # The line of today: lines above may have been removed since.
        InputError(
          chunk.records[place].where or chunk.records[place].id,
          expected=expected,
          got=got,
          fix=fix,
        )
        for place, expected, got, fix in known["problems"]
      ],
    )
    start += len(chunk.records)


def _processors() -> int:
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
