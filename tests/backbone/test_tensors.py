"""Tensors that are read in parts: no more than is asked for, none of it twice."""

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from etils import epath

from hra.backbone import tensors
from hra.backbone.tensors import TensorFile, hash_tensors
from hra.errors import InputError

ALL = slice(None)


@pytest.fixture(scope="module")
def held():
  rng = np.random.default_rng(0)
  return {
    "stacked": rng.standard_normal((3, 8, 6)).astype(np.float32),
    "matrix": rng.standard_normal((8, 6)).astype(ml_dtypes.bfloat16),
    "taps": rng.standard_normal((2, 3, 4, 6)).astype(np.float16),
    "bias": rng.standard_normal(6),
    "scalar": np.array(3, np.float32),
    "empty": np.zeros((0, 6), np.float32),
  }


@pytest.fixture
def file(tmp_path, held, monkeypatch):
  """Of which 64 bytes are read at a time; notes how many."""
  path = epath.Path(tmp_path / "some.safetensors")
  path.write_bytes(safetensors.numpy.save(held))
  monkeypatch.setattr(tensors, "_PART", 64)
  opened, plain = TensorFile(path), TensorFile._bytes
  opened.read = []

  def counted(self, file, size):
    self.read.append(size)
    return plain(self, file, size)

  monkeypatch.setattr(TensorFile, "_bytes", counted)
  return opened


@pytest.mark.parametrize(
  ("name", "indices", "read"),
  [
    ("stacked", [(ALL, ALL, ALL)], 576),
    ("stacked", [(ALL, slice(2, 4), ALL), (ALL, slice(6, 8), ALL)], 288),
    # Columns that several devices hold: their rows are read once.
    (
      "stacked",
      [(slice(1, 3), ALL, slice(0, 3)), (slice(1, 3), ALL, slice(3, 6))],
      384,
    ),
    ("matrix", [(slice(0, 4), slice(2, 4))], 48),
    ("taps", [(slice(1, 2), slice(0, 2), slice(1, 3), ALL)], 48),
    ("bias", [(slice(2, 4),), (slice(4, 6),)], 48),
    ("scalar", [()], 4),
    ("empty", [(ALL, slice(0, 3))], 0),
  ],
)
def test_parts_are_what_indexing_gives(file, held, name, indices, read):
  parts = file.parts(name, indices)
  for part, index in zip(parts, indices, strict=True):
    expected = np.asarray(held[name])[index]
    assert (part.dtype, part.shape) == (expected.dtype, expected.shape)
    assert part.tobytes() == expected.tobytes()
  assert sum(file.read) == read
  assert max(file.read, default=0) <= 64


def test_the_hash_is_that_of_the_whole(file, held):
  arrays = {name: np.asarray(value) for name, value in held.items()}
  assert file.hash("said") == hash_tensors(arrays, text="said")
  assert max(file.read) <= 64


@pytest.mark.parametrize(
  "spoil",
  [
    lambda data: data[:-1],
    lambda data: data + b"0",
    lambda data: data[:4],
    lambda data: (2**40).to_bytes(8, "little") + data[8:],
    lambda data: data.replace(b"F64", b"U64"),
    lambda data: data.replace(b"[6]", b"[7]"),
    lambda data: data.replace(b'"shape"', b'"sharp"'),
    lambda data: (2).to_bytes(8, "little") + b"[]" + data,
  ],
)
def test_what_is_not_whole_is_refused(tmp_path, held, spoil):
  path = epath.Path(tmp_path / "some.safetensors")
  path.write_bytes(spoil(safetensors.numpy.save(held)))
  with pytest.raises(InputError, match="safetensors file"):
    TensorFile(path)
