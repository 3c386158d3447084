"""Files of named tensors: read whole, written whole or part by part, and hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

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


class TensorHash:
  """A 128-bit hash of names, types, shapes and bytes, in the order of names."""

  def __init__(self, text: str = ""):
    self._digest = hashlib.blake2b(text.encode(), digest_size=16)

  def begin(self, path: str, like: jax.ShapeDtypeStruct | np.ndarray) -> None:
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
