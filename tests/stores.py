"""Small Submodels made of a name and a seed, without JAX."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hra import submodels
from hra.config import AdapterConfig
from hra.errors import InputError
from hra.submodels import Store, Submodel

HEAD = AdapterConfig(width=8)
WIDE = AdapterConfig(family="residual", width=4)


def row(seed: int, *, adapter: AdapterConfig = HEAD) -> dict:
  rng = np.random.default_rng(seed)
  return {
    "head": {
      "kernel": rng.standard_normal((adapter.width, 3)).astype(np.float32),
      "bias": rng.standard_normal(3).astype(np.float16),
    }
  }


def made(
  task: str,
  seed: int = 0,
  *,
  adapter: AdapterConfig = HEAD,
  shared_seed: int | None = 0,
  **changes,
) -> Submodel:
  shared = {} if shared_seed is None else {"controller": row(shared_seed)}
  told = {
    "task": task,
    "adapter": adapter,
    "row": row(seed, adapter=adapter),
    "shared": shared,
    "backbone_fingerprint": "f" * 32,
    "shared_fingerprint": submodels.shared_fingerprint(shared),
    "summary": {"verdict": "better", "dev": {"wer": 0.25, "seed": seed}},
    "tokenizer": "t" * 32,
  }
  return Submodel(**{**told, **changes})


def assert_is(found: Submodel, expected: Submodel) -> None:
  """The same, but for the number and fingerprint that a store gave it."""
  for trees in ((found.row, expected.row), (found.shared, expected.shared)):
    ours, theirs = map(submodels.file.flat, trees)
    assert ours.keys() == theirs.keys()
    for path, leaf in theirs.items():
      assert ours[path].dtype == leaf.dtype
      np.testing.assert_array_equal(ours[path], leaf)
  for name in ("task", "adapter", "summary", "tokenizer"):
    assert getattr(found, name) == getattr(expected, name)
  assert found.backbone_fingerprint == expected.backbone_fingerprint
  assert found.shared_fingerprint == expected.shared_fingerprint


def assert_whole(folder: os.PathLike) -> None:
  """Every file of a store is one that loads, and nothing is half written."""
  folder = Path(folder)
  store = Store(folder)
  entries, refused = store.listing()
  assert not refused
  for entry in entries:
    found = store[entry.task]
    assert (found.version, found.fingerprint) == entry[1:3]
    assert store.find(entry.task) == entry
    kept = [each.version for each in store.versions(entry.task)]
    assert store.get_version(entry.task, kept[0]).version == kept[0]
  for path in folder.glob("versions/*/*"):
    assert submodels.load(path).version == int(path.stem)


def tried(read: Callable[[], Any], path: Path) -> Any:
  """What is read; None where it is refused in one line that names the file."""
  try:
    return read()
  except InputError as error:
    refused = str(error)
  assert str(path) in refused
  assert "\n" not in refused
  return None
