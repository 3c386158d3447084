"""Tens of thousands of rows in one file that is mapped into memory.

A safetensors file of one kind of Submodels (adapter, backbone, shared parameters),
sorted by `hra.keys.stable_hash` of their tasks:

    hash           uint64 [N]       which a task is looked up by
    metadata_ends  uint64 [N]       where in `metadata` a row's ends
    metadata       uint8            JSON: task, version, summary, fingerprint
    rows/PATH      [N, ...]         a tensor of the row

Opening it reads the header; a look-up where rows are, once, and then no more than
their own parts. A row's fingerprint is that of its file, so that both are the same Submodel.
What is read of the map is copied, and the file's size asked for before: who cuts it
short in place costs one request and not the process.
"""

import functools
import hashlib
import json
import mmap
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hra.errors import InputError
from hra.files import storage
from hra.keys import stable_hash
from hra.submodels import layout
from hra.submodels.file import Content, Entry, Told, check_fields
from hra.submodels.place import LocalPlace, Place

_WHAT = "a pack of Submodels"
_FORMAT = 1
_COMMON = ("adapter", "backbone", "shared", "tokenizer")
"""Fields of metadata that are the header's."""
_ROWS = "rows/"
_SPOILT = "it was changed or cut off: bring a copy back"

Shapes = Mapping[str, tuple[np.dtype, tuple[int, ...]]]
"""Of the tensors of one row."""


class Row(NamedTuple):
  """A row to be packed."""

  fields: Mapping[str, Any]
  """All of its metadata."""
  tensors: Callable[[], Mapping[str, np.ndarray]]

  @property
  def task(self) -> str:
    return self.fields["task"]


class Found(NamedTuple):
  """A row of a pack."""

  place: int
  told: Told
  size: int
  """In bytes, with its metadata."""


class Pack:
  """An open pack; safe to use from several threads."""

  def __init__(self, place: Place, name: str):
    """Reads the header.

    Raises:
      InputError: it is none, or damaged.
      FileNotFoundError, StorageError: it isn't there, or can't be reached.
    """
    self.name = name
    self.where = f"{place.path}/{name}"
    self._part, size = _reader(place, name, self.where)
    laid = layout.read(self._part, size, where=self.where, what=_WHAT)
    self._spans = laid.spans
    try:
      told = json.loads(laid.metadata["hra_pack"])
      self._format, self._hashed = told["format"], told["hashed"]
      self.common = {name: told[name] for name in _COMMON}
      self._count = laid.spans["hash"].shape[0]
      self._check_spans()
    except (ValueError, LookupError, TypeError, RecursionError) as error:
      raise self._spoilt("a header that isn't ours") from error
    if self._format != _FORMAT:
      raise InputError(
        self.where, expected=f"format {_FORMAT}", got=str(self._format)
      )

  def __len__(self) -> int:
    return self._count

  @property
  def shapes(self) -> Shapes:
    return {
      name.removeprefix(_ROWS): (span.dtype, span.shape[1:])
      for name, span in self._spans.items()
      if name.startswith(_ROWS)
    }

  @property
  def key(self) -> str:
    return key_of(self.common, self.shapes)

  def find(self, task: str) -> Iterator[Found]:
    """Rows of a task, with their metadata, checked."""
    hashed = np.uint64(stable_hash(task))
    first = np.searchsorted(self._hashes, hashed, side="left")
    last = np.searchsorted(self._hashes, hashed, side="right")
    for number in range(int(first), int(last)):
      fields = self.fields(number)
      found = fields.get("task")
      if not isinstance(found, str) or stable_hash(found) != hashed:
        raise self._spoilt(f"the row of {found!r} where {task!r} may be")
      if found == task:
        told = check_fields(fields, where=self.where)
        yield Found(number, told, self._size(number))

  def fields(self, place: int) -> dict[str, Any]:
    """A row's metadata, as they stand there."""
    start, stop = self._bounds(place)
    return self._joined(self._read("metadata", start, stop).tobytes())

  def tensors(self, place: int) -> dict[str, np.ndarray]:
    """A row's tensors, unchecked."""
    return {
      name: self._read(f"{_ROWS}{name}", place, place + 1)[0]
      for name in self.shapes
    }

  def content(self, found: Found) -> Content:
    """All of a row that was found, checked."""
    where = f"{self.where}: {found.told.task}"
    return Content(found.told, self.tensors(found.place)).check(where=where)

  @functools.cached_property
  def entries(self) -> list[Entry]:
    """What is known of each row."""
    data = self._read("metadata", 0, self._spans["metadata"].shape[0]).tobytes()
    found = []
    for place in range(self._count):
      start, stop = self._bounds(place)
      told = check_fields(self._joined(data[start:stop]), where=self.where)
      found.append(told.entry(self._size(place)))
    if [stable_hash(each.task) for each in found] != self._hashes.tolist():
      raise self._spoilt("hashes of other tasks")
    return found

  @functools.cached_property
  def _hashes(self) -> np.ndarray:
    hashes = self._read("hash", 0, self._count)
    if _digest(hashes) != self._hashed:
      raise self._spoilt("other hashes")
    return hashes

  @functools.cached_property
  def _ends(self) -> list[int]:
    ends = self._read("metadata_ends", 0, self._count)
    return [0, *ends.astype(int).tolist()]

  @functools.cached_property
  def _row_bytes(self) -> int:
    return sum(
      int(np.prod(shape)) * dtype.itemsize
      for dtype, shape in self.shapes.values()
    )

  def _bounds(self, place: int) -> tuple[int, int]:
    """Where a row's metadata are."""
    return self._ends[place], self._ends[place + 1]

  def _size(self, place: int) -> int:
    start, stop = self._bounds(place)
    return stop - start + self._row_bytes

  def _joined(self, data: bytes) -> dict[str, Any]:
    try:
      return {**json.loads(data), **self.common}
    except (ValueError, TypeError, RecursionError) as error:
      raise self._spoilt("metadata that are no JSON") from error

  def _read(self, name: str, first: int, last: int) -> np.ndarray:
    """A tensor's elements along its first axis."""
    span = self._spans[name]
    if not 0 <= first <= last <= span.shape[0]:
      raise self._spoilt(f"{name} {first} to {last}")
    each = int(np.prod(span.shape[1:])) * span.dtype.itemsize
    start, stop = span.start + first * each, span.start + last * each
    data = self._part(start, stop)
    if len(data) != stop - start:
      raise self._spoilt("a part of it")
    part = span._replace(
      shape=(last - first, *span.shape[1:]), start=start, stop=stop
    )
    return part.of(data, at=start)

  def _check_spans(self) -> None:
    lengths = {
      span.shape[0] for name, span in self._spans.items() if name != "metadata"
    }
    index = {name: self._spans[name].dtype for name in _INDEX}
    if lengths != {self._count} or index != _INDEX:
      raise ValueError(self.where)

  def _spoilt(self, got: str) -> InputError:
    return InputError(self.where, expected=_WHAT, got=got, fix=_SPOILT)


_INDEX = {
  "hash": np.dtype(np.uint64),
  "metadata_ends": np.dtype(np.uint64),
  "metadata": np.dtype(np.uint8),
}


def key_of(common: Mapping[str, Any], shapes: Shapes) -> str:
  """What Submodels have in common that may be in one pack: its file's name."""
  told = [
    {name: common[name] for name in _COMMON},
    sorted([name, str(d), *shape] for name, (d, shape) in shapes.items()),
  ]
  text = json.dumps(told, sort_keys=True).encode()
  return hashlib.blake2b(text, digest_size=8).hexdigest()


def write(path: pathlib.Path, rows: Sequence[Row], shapes: Shapes) -> None:
  """Writes a new file of rows of one kind; one row at a time is in memory.

  Raises:
    StorageError: it can't be written.
    InputError: a row can't be read.
  """
  rows = sorted(rows, key=lambda row: (stable_hash(row.task), row.task))
  told = [_own(row.fields) for row in rows]
  index: dict[str, np.ndarray] = {
    "hash": np.array([stable_hash(row.task) for row in rows], np.uint64),
    "metadata_ends": np.cumsum([len(each) for each in told], dtype=np.uint64),
    "metadata": np.frombuffer(b"".join(told), np.uint8),
  }
  common = {name: rows[0].fields[name] for name in _COMMON}
  about = {"format": _FORMAT, "hashed": _digest(index["hash"]), **common}
  head, laid = layout.build(
    {
      **{name: (array.dtype, array.shape) for name, array in index.items()},
      **{
        f"{_ROWS}{name}": (dtype, (len(rows), *shape))
        for name, (dtype, shape) in shapes.items()
      },
    },
    {"hra_pack": json.dumps(about, sort_keys=True)},
  )
  with (
    storage(path, expected="a file that can be written"),
    path.open("wb") as file,
  ):
    file.write(head)
    for name, array in index.items():
      file.seek(laid.spans[name].start)
      file.write(array.tobytes())
    file.truncate(max(span.stop for span in laid.spans.values()))
    file.flush()
    for place, row in enumerate(rows):
      for name, tensor in row.tensors().items():
        span = laid.spans[f"{_ROWS}{name}"]
        each = (span.stop - span.start) // len(rows)
        start = span.start + place * each
        _write_all(file.fileno(), tensor.tobytes(), start)


def _write_all(file: int, data: bytes, start: int) -> None:
  while data:
    done = os.pwrite(file, data, start)
    data, start = data[done:], start + done


def _own(fields: Mapping[str, Any]) -> bytes:
  """The metadata that a row doesn't have in common with others."""
  told = {name: value for name, value in fields.items() if name not in _COMMON}
  return json.dumps(told, sort_keys=True).encode()


def _digest(hashes: np.ndarray) -> str:
  return hashlib.blake2b(hashes.tobytes(), digest_size=16).hexdigest()


def _reader(place: Place, name: str, where: str) -> tuple[layout.Read, int]:
  """How parts of a file are read, and how long it is."""
  if not isinstance(place, LocalPlace):
    return functools.partial(place.part, name), place.look(name).size
  file = place.open(name)
  size = os.fstat(file.fileno()).st_size
  if not size:
    raise InputError(where, expected=_WHAT, got="an empty file", fix=_SPOILT)
  mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)

  def part(start: int, stop: int) -> bytes:
    if os.fstat(file.fileno()).st_size < size:
      raise InputError(where, expected=_WHAT, got="a part of it", fix=_SPOILT)
    return mapped[start:stop]

  return part, size
