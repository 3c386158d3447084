"""Stable identities: names -> 64-bit hashes -> random keys and orders.

Whatever is random for a task is keyed by the task's *name* and the task's *own*
step, never by its place in a batch or table, so that a task behaves the same
in every job. Python's `hash` is salted per process; BLAKE2b is not.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
  import jax


def stable_hash(name: str) -> int:
  """The 64-bit hash of a name: the same in every process and version."""
  digest = hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest()
  return int.from_bytes(digest, "little")


def hash_words(name: str) -> np.ndarray:
  """`stable_hash` as two uint32s, the width that `jax.random.fold_in` takes."""
  value = stable_hash(name)
  return np.array([value & 0xFFFFFFFF, value >> 32], dtype=np.uint32)


def fold_words(key: jax.Array, words: jax.Array | np.ndarray) -> jax.Array:
  """Folds the two uint32s of `hash_words` into a key."""
  import jax  # here, so that processes that only hash start without JAX

  return jax.random.fold_in(jax.random.fold_in(key, words[0]), words[1])


def fold_name(key: jax.Array, name: str) -> jax.Array:
  """Folds a name into a key."""
  return fold_words(key, hash_words(name))


def host_rng(seed: int, *parts: str | int) -> np.random.Generator:
  """A NumPy generator that is a pure function of the seed and the parts."""
  words = [
    part if isinstance(part, int) else stable_hash(part) for part in parts
  ]
  return np.random.default_rng([seed, *words])
