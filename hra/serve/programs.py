"""Compiled programs: one for each length and each size of a batch, made ahead of time.

In: a backbone and the kinds of Submodels that slots hold. Out: what is heard in
batches, each recording by the row of its slot or by none. A compiled program takes
one shape and can't be compiled again.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hra.adapters.interface import Adapter, Tree
from hra.backbone.store import StoredBackbone
from hra.evaluate.search import Search
from hra.evaluate.transcribe import emitted, heard
from hra.model import Model
from hra.serve.kinds import Kind, joined, rows_of, shared_of


class Sizes(NamedTuple):
  """Of batches and tables."""

  buckets: tuple[int, ...]
  """Samples that recordings are padded to, ascending."""
  batches: tuple[int, ...]
  """Recordings, ascending."""
  slots: int
  """Rows of one kind, without that of nobody."""


@dataclasses.dataclass(frozen=True)
class Spoken:
  """How recordings are heard."""

  stored: StoredBackbone
  search: Search | None
  """None is greedy."""
  emits: bool
  """Whether frames are asked of a greedy search."""


class Programs:
  """For one choice of kinds."""

  def __init__(
    self,
    spoken: Spoken,
    kinds: Sequence[Kind],
    sizes: Sizes,
    *,
    tick: Callable[[], None],
  ):
    """Compiles all of them.

    Args:
      tick: called after each.
    """
    self.kinds = tuple(sorted(kinds, key=lambda kind: kind.name))
    self.sizes = sizes
    self._spoken = spoken
    shared = tuple(kind.shared for kind in self.kinds)
    leaves, tree = jax.tree.flatten(spoken.stored.module)
    searched = None if spoken.search is None else spoken.search[1:]
    # On the device once, not with each batch.
    self._fixed = jax.device_put((leaves, searched, shared))
    self._tables = {kind: _table(kind, sizes.slots) for kind in self.kinds}
    self._run = {}
    program = jax.jit(self._program(joined(self.kinds), tree))
    for samples, places in itertools.product(sizes.buckets, sizes.batches):
      given = self._shapes(samples, places)
      self._run[samples, places] = program.lower(*self._fixed, *given).compile()
      tick()
    self._write = {}
    for kind, table in self._tables.items():
      write = jax.jit(_written, donate_argnums=0)
      lowered = write.lower(table, kind.outline, np.int32(0))
      self._write[kind] = lowered.compile()
      tick()

  @staticmethod
  def count(kinds: int, sizes: Sizes) -> int:
    """How many are compiled."""
    return len(sizes.buckets) * len(sizes.batches) + kinds

  def empty(self, kind: Kind) -> Tree:
    """A table of zeros on the device."""
    zeros = jax.tree.map(
      lambda leaf: np.zeros(leaf.shape, leaf.dtype), self._tables[kind]
    )
    return jax.block_until_ready(jax.device_put(zeros))

  def run(
    self,
    tables: Sequence[Tree],
    slot_GB: np.ndarray,
    wave_BS: np.ndarray,
    lengths_B: np.ndarray,
  ) -> Any:
    """What is heard, on its way: `Emissions` or `Labels`, [B, ...].

    Args:
      tables: of each kind, in their order.
      slot_GB: of each kind, which row is each recording's; 0 is nobody's.
    """
    places, samples = wave_BS.shape
    program = self._run[samples, places]
    return program(*self._fixed, tuple(tables), slot_GB, wave_BS, lengths_B)

  def write(self, kind: Kind, table: Tree, row: Tree, slot: int) -> Tree:
    """The table with a row in its place; it is gone, its memory is the new one's."""
    return self._write[kind](table, row, np.int32(slot))

  def _program(self, adapter: Adapter, tree: Any) -> Callable[..., Any]:
    spoken = self._spoken
    model = Model(adapter=adapter, frontend=spoken.stored.frontend)

    def hear(
      leaves: Any,
      searched: Any,
      shared: tuple[Tree, ...],
      tables: tuple[Tree, ...],
      slot_GB: jax.Array,
      wave_BS: jax.Array,
      lengths_B: jax.Array,
    ) -> Any:
      active_GB = slot_GB > 0
      given = (
        jax.tree.unflatten(tree, leaves),
        shared_of(adapter, shared, tables),
        rows_of(adapter, list(slot_GB), list(active_GB)),
        active_GB.any(axis=0),
        wave_BS,
        lengths_B,
      )
      if spoken.search is not None:
        search = Search(spoken.search.beam, *searched)
        return heard(model, *given, search=search)
      if spoken.emits:
        return emitted(model, *given)
      return heard(model, *given, search=None)

    return hear

  def _shapes(self, samples: int, places: int) -> tuple[Any, ...]:
    return (
      tuple(self._tables[kind] for kind in self.kinds),
      jax.ShapeDtypeStruct((len(self.kinds), places), jnp.int32),
      jax.ShapeDtypeStruct((places, samples), jnp.float32),
      jax.ShapeDtypeStruct((places,), jnp.int32),
    )


def _table(kind: Kind, slots: int) -> Tree:
  """The shapes of a row of nobody, and of those in slots."""
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct((slots + 1, *leaf.shape), leaf.dtype),
    kind.outline,
  )


def _written(table: Tree, row: Tree, slot: jax.Array) -> Tree:
  return jax.tree.map(
    lambda leaf, own: jax.lax.dynamic_update_index_in_dim(leaf, own, slot, 0),
    table,
    row,
  )
