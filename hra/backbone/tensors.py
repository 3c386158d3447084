"""Files of named tensors: read whole or in parts, written so, and hashed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors
from etils import epath

from hra.errors import InputError
from hra.files import aside

if (
  TYPE_CHECKING
):  # slow to import, and not needed where Submodels are moved about
  import jax

DTYPES = {
  "F64": np.dtype(np.float64),
  "F32": np.dtype(np.float32),
  "F16": np.dtype(np.float16),
  "BF16": np.dtype(ml_dtypes.bfloat16),
}
"""The types of safetensors that parameters may have."""

_CODES = {dtype: code for code, dtype in DTYPES.items()}
_ALIGNMENT = 8
_PART = 2**23
"""Bytes that are read at a time, or a row's of the last axis: 8 MiB."""

_Bounds = tuple[tuple[int, int], ...]
"""Where a part begins and ends along each axis."""


def read_tensors(path: epath.Path) -> dict[str, np.ndarray]:
  """The tensors of a safetensors file, local or not.

  Unlike `safetensors.numpy.load`, it reads the bfloat16 that
  `safetensors.numpy.save` writes.

  Raises:
    InputError: when the file is missing, cut short or of another format.
  """
  if not path.is_file():
    raise InputError(path, expected="a safetensors file", got="no such file")
  try:
    views = safetensors.deserialize(path.read_bytes())
  except safetensors.SafetensorError as error:
    raise InputError(
      path, expected="a safetensors file", got=str(error)
    ) from error
  tensors = {}
  for name, view in views:
    if view["dtype"] not in DTYPES:
      raise InputError(
        f"{path}: {name}",
        expected=f"one of {', '.join(DTYPES)}",
        got=view["dtype"],
      )
    flat = np.frombuffer(view["data"], DTYPES[view["dtype"]])
    tensors[name] = flat.reshape(view["shape"])
  return tensors


class Entry(NamedTuple):
  """A tensor of a file."""

  dtype: np.dtype
  shape: tuple[int, ...]
  start: int
  """Of its bytes in the file."""

  @property
  def size(self) -> int:
    """In bytes."""
    return math.prod(self.shape) * self.dtype.itemsize


class TensorFile:
  """A safetensors file, local or in a bucket, of which parts are read.

  Raises:
    InputError: when the file is missing, cut short or of another format.
  """

  def __init__(self, path: epath.Path):
    if not path.is_file():
      raise InputError(path, expected="a safetensors file", got="no such file")
    self.path = path
    self._end = path.stat().length
    try:
      self.entries = self._header()
    except (KeyError, TypeError, ValueError) as error:
      raise self._refused("a header that can't be read") from error
    ends = sorted((each.start, each.size) for each in self.entries.values())
    for (start, size), (after, _) in zip(
      ends, [*ends[1:], (self._end, 0)], strict=True
    ):
      if start + size != after:
        raise self._refused(f"{self._end:,} bytes that aren't its tensors'")

  def _header(self) -> dict[str, Entry]:
    with self.path.open("rb") as file:
      length = int.from_bytes(file.read(8), "little")
      if not 0 < length <= self._end - 8:
        raise ValueError(f"a header of {length} bytes")
      header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {
      name: Entry(
        DTYPES[told["dtype"]],
        tuple(map(int, told["shape"])),
        8 + length + int(told["data_offsets"][0]),
      )
      for name, told in header.items()
    }

  def _refused(self, got: str) -> InputError:
    return InputError(self.path, expected="a whole safetensors file", got=got)

  def hash(self, text: str = "") -> str:
    """`hash_tensors` of all that stands in it; a few MiB are held at a time."""
    digest = TensorHash(text)
    with self.path.open("rb") as file:
      for name in sorted(self.entries):
        entry = self.entries[name]
        # As `hash_tensors` has it, which knows no scalars.
        digest.begin(name, entry._replace(shape=entry.shape or (1,)))
        file.seek(entry.start)
        for done in range(0, entry.size, _PART):
          size = min(_PART, entry.size - done)
          digest.update(self._bytes(file, size))
    return digest.hexdigest()

  def parts(
    self, name: str, indices: Sequence[tuple[slice, ...]]
  ) -> list[np.ndarray]:
    """Parts of a tensor, each as slices index it.

    Bytes that several parts need are read once, with the rest of their last axis.
    """
    entry = self.entries[name]
    shape = (*(1,) * (2 - len(entry.shape)), *entry.shape)
    bounds = [_bounds(index, shape) for index in indices]
    parts = [
      np.empty([stop - start for start, stop in bound], entry.dtype)
      for bound in bounds
    ]
    of_rows: dict[_Bounds, list[int]] = {}
    for place, bound in enumerate(bounds):
      of_rows.setdefault(bound[:-1], []).append(place)
    with self.path.open("rb") as file:
      for rows, places in of_rows.items():
        for at, read in self._rows(file, entry, shape, rows):
          for place in places:
            parts[place][at] = read[:, slice(*bounds[place][-1])]
    rank = len(entry.shape)
    return [part.reshape(part.shape[max(2 - rank, 0) :]) for part in parts]

  def _rows(
    self,
    file: IO[bytes],
    entry: Entry,
    shape: tuple[int, ...],
    bounds: _Bounds,
  ) -> Iterator[tuple[tuple[Any, ...], np.ndarray]]:
    """Rows [R, last axis] within bounds of all other axes, and where they belong."""
    *outer, (first, stop) = bounds
    width = shape[-1] * entry.dtype.itemsize
    height = max(1, _PART // max(width, 1))
    for index in np.ndindex(*[end - start for start, end in outer]):
      before = 0
      for size, (start, _), place in zip(shape, outer, index, strict=False):
        before = before * size + start + place
      for row in range(first, stop, height):
        count = min(height, stop - row)
        file.seek(entry.start + (before * shape[-2] + row) * width)
        flat = self._bytes(file, count * width).view(entry.dtype)
        at = (*index, slice(row - first, row - first + count))
        yield at, flat.reshape(count, shape[-1])

  def _bytes(self, file: IO[bytes], size: int) -> np.ndarray:
    data = file.read(size)
    if len(data) != size:
      raise self._refused("one that ends early")
    return np.frombuffer(data, np.uint8)


def _bounds(index: tuple[slice, ...], shape: tuple[int, ...]) -> _Bounds:
  """(start, stop) along each axis; axes that the index lacks are first, of size 1."""
  whole = (*(slice(None),) * (len(shape) - len(index)), *index)
  return tuple(
    each.indices(size)[:2] for each, size in zip(whole, shape, strict=True)
  )


class TensorHash:
  """A 128-bit hash of names, types, shapes and bytes, in the order of names."""

  def __init__(self, text: str = ""):
    self._digest = hashlib.blake2b(text.encode(), digest_size=16)

  def begin(
    self, path: str, like: jax.ShapeDtypeStruct | np.ndarray | Entry
  ) -> None:
    """A tensor, whose bytes follow."""
    shape = tuple(like.shape)
    self._digest.update(f"{path} {np.dtype(like.dtype)} {shape}".encode())

  def update(self, part: np.ndarray) -> None:
    """The next of its bytes."""
    self._digest.update(part.tobytes())

  def hexdigest(self) -> str:
    return self._digest.hexdigest()


def hash_tensors(tensors: Mapping[str, np.ndarray], *, text: str = "") -> str:
  """A 128-bit hash of names, types, shapes and bytes, and of `text`."""
  digest = TensorHash(text)
  for path in sorted(tensors):
    tensor = np.ascontiguousarray(tensors[path])
    digest.begin(path, tensor)
    digest.update(tensor)
  return digest.hexdigest()


def write_tensors(
  path: epath.PathLike,
  shapes: Mapping[str, jax.ShapeDtypeStruct],
  *,
  parts: Callable[[str], Iterable[np.ndarray]],
  digest: TensorHash,
) -> None:
  """Writes a safetensors file of which no more than a part is held in memory.

  Args:
    parts: a tensor's name -> its parts along the first axis, in order.
    digest: takes in what is written.

  Raises:
    StorageError: the file can't be written; nothing is left behind.
  """
  entries, end = {}, 0
  for name in sorted(shapes):
    like = shapes[name]
    size = int(np.prod(like.shape)) * like.dtype.itemsize
    entries[name] = {
      "dtype": _CODES[np.dtype(like.dtype)],
      "shape": list(like.shape),
      "data_offsets": [end, end + size],
    }
    end += size
  header = json.dumps(entries, separators=(",", ":")).encode()
  header += b" " * (-len(header) % _ALIGNMENT)
  with aside(path) as beside, beside.open("wb") as file:
    file.write(len(header).to_bytes(8, "little"))
    file.write(header)
    for name in sorted(shapes):
      digest.begin(name, shapes[name])
      for part in parts(name):
        part = np.ascontiguousarray(part, shapes[name].dtype)
        digest.update(part)
        file.write(part.tobytes())
