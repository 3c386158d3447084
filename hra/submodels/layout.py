"""How a safetensors file is laid out: 8 bytes of length, a JSON header, tensors.

Enters: a header's bytes, or names, types and shapes. Leaves: where each tensor's
bytes stand in the file. Nothing is believed that the file's own size contradicts.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from hra.backbone.tensors import DTYPES
from hra.errors import InputError

_TYPES = {**DTYPES, "U64": np.dtype(np.uint64), "U8": np.dtype(np.uint8)}
_CODES = {dtype: code for code, dtype in _TYPES.items()}
_ALIGNMENT = 8
_FIRST = 1 << 14
"""Bytes that are read at first; a Submodel's header is mostly shorter."""
_LONGEST = 100_000_000
"""Bytes of a header, by safetensors' own rule."""

Read = Callable[[int, int], bytes]
"""(start, stop) -> those bytes of a file, fewer where it ends before."""


class Span(NamedTuple):
  """A tensor, and where in the file its bytes are."""

  dtype: np.dtype
  shape: tuple[int, ...]
  start: int
  stop: int

  def of(self, data: bytes, *, at: int = 0) -> np.ndarray:
    """The tensor in a file's bytes, of which those before `at` are missing."""
    count = math.prod(self.shape)
    flat = np.frombuffer(data, self.dtype, count, offset=self.start - at)
    return flat.reshape(self.shape)


class Layout(NamedTuple):
  """What a header says."""

  metadata: Mapping[str, str]
  spans: Mapping[str, Span]


def read(read_part: Read, size: int, *, where: object, what: str) -> Layout:
  """Reads the header of a file of `size` bytes.

  Args:
    where, what: its name and what it should be, for the message.

  Raises:
    InputError: it is none, or was cut off, or has bytes too many.
  """
  try:
    header, begin = _header(read_part, size)
    metadata = _metadata(header)
    spans, stop = _spans(header, begin)
  except (ValueError, LookupError, TypeError, AttributeError) as error:
    raise InputError(where, expected=what, got=_said(error)) from error
  except RecursionError as error:
    raise InputError(where, expected=what, got="nested JSON") from error
  if size != stop:
    raise InputError(
      where,
      expected=f"{what} of {stop:,} bytes",
      got=f"{size:,}",
      fix="bring a whole copy back",
    )
  return Layout(metadata, spans)


def build(
  tensors: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
  metadata: Mapping[str, str],
) -> tuple[bytes, Layout]:
  """A header and what it says; wide types come first, so that all are aligned."""
  ordered = sorted(tensors, key=lambda name: (-tensors[name][0].itemsize, name))
  entries: dict[str, Any] = {"__metadata__": dict(metadata)}
  bounds, end = {}, 0
  for name in ordered:
    dtype, shape = tensors[name]
    bounds[name] = (end, end + math.prod(shape) * dtype.itemsize)
    end = bounds[name][1]
    entries[name] = {
      "dtype": _CODES[dtype],
      "shape": list(shape),
      "data_offsets": list(bounds[name]),
    }
  head = json.dumps(entries, separators=(",", ":")).encode()
  head += b" " * (-len(head) % _ALIGNMENT)
  begin = 8 + len(head)
  spans = {
    name: Span(*tensors[name], begin + start, begin + stop)
    for name, (start, stop) in bounds.items()
  }
  return len(head).to_bytes(8, "little") + head, Layout(metadata, spans)


def _header(read_part: Read, size: int) -> tuple[dict[str, Any], int]:
  """The header's JSON, and where the tensors begin."""
  head = read_part(0, min(size, _FIRST))
  begin = 8 + int.from_bytes(head[:8], "little")
  if len(head) < 8 or begin > size or begin > _LONGEST:
    raise ValueError(f"{size:,} bytes that are no header, or a part of one")
  if begin > len(head):
    head += read_part(len(head), begin)
  return json.loads(head[8:begin]), begin


def _metadata(header: dict[str, Any]) -> Mapping[str, str]:
  told = header.pop("__metadata__", {})
  if not all(isinstance(value, str) for value in told.values()):
    raise TypeError("metadata that are no text")
  return told


def _spans(
  header: Mapping[str, Any], begin: int
) -> tuple[dict[str, Span], int]:
  """Tensors one behind the other without gaps, and where the last one ends."""
  spans, end = {}, 0
  for name in sorted(header, key=lambda name: header[name]["data_offsets"]):
    entry = header[name]
    start, stop = entry["data_offsets"]
    dtype = _TYPES.get(entry["dtype"])
    shape = tuple(entry["shape"])
    if dtype is None:
      raise ValueError(f"{name} of type {entry['dtype']}")
    if not all(type(size) is int and size >= 0 for size in (*shape, stop)):
      raise ValueError(f"{name} of shape {list(shape)}")
    if start != end or stop - start != math.prod(shape) * dtype.itemsize:
      raise ValueError(f"{name} at bytes {start} to {stop}")
    end = stop
    spans[name] = Span(dtype, shape, begin + start, begin + stop)
  return spans, begin + end


def _said(error: Exception) -> str:
  return " ".join(str(error).split()) or type(error).__name__
