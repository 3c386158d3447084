"""Task spaces: from what a task owns to its row (arXiv 2203.12559, section 3).

A space is orthogonal to the adapter family. What a task owns is a tree of arrays,
stacked over tasks in a table; `row` makes of it the row that the adapter knows. A
row that was made is a row like any other: what is exported doesn't know the
space that it came from.
"""

import dataclasses
import math
from typing import Protocol

import jax
import jax.numpy as jnp

from hra.adapters.interface import Adapter, Tree, layer_slices
from hra.adapters.stacks import Stacks
from hra.config import AdapterConfig, SpaceConfig
from hra.errors import InputError
from hra.keys import fold_name


class TaskSpace(Protocol):
  """From tasks to rows of `adapter`.

  Before anything is trained, a fresh task's row is a fresh row of the adapter;
  then it is what the space has learned to start from.
  """

  @property
  def adapter(self) -> Adapter: ...

  def __hash__(self) -> int:
    """By value, as what compiled functions are static in."""
    ...

  def init_shared(self, key: jax.Array) -> Tree:
    """What all tasks share of the space; `{}` where nothing is."""
    ...

  def init_task(self, key: jax.Array) -> Tree:
    """What one fresh task owns."""
    ...

  def row(self, shared: Tree, owned: Tree) -> Tree:
    """The row of a task that owns `owned`."""
    ...


@dataclasses.dataclass(frozen=True)
class TaskTable:
  """Each task owns its row: the paper's one-hot lookup, as a gather."""

  adapter: Adapter

  def init_shared(self, key: jax.Array) -> Tree:
    del key
    return {}

  def init_task(self, key: jax.Array) -> Tree:
    return self.adapter.init_task(key)

  def row(self, shared: Tree, owned: Tree) -> Tree:
    del shared
    return owned

  def owned(self, shared: Tree, row: Tree) -> Tree:
    """What a task owns whose row this is."""
    del shared
    return row


@dataclasses.dataclass(frozen=True)
class OffsetSpace:
  """Each task owns the difference of its row from one that all share.

  Weight decay on what tasks own draws their rows toward what they have in common
  and not toward the backbone (Evgeniou and Pontil 2004, section 2: w_t = w_0 + v_t).
  At the start the base is a fresh row and the differences are zero.
  """

  adapter: Adapter

  def init_shared(self, key: jax.Array) -> Tree:
    return {"base": self.adapter.init_task(key)}

  def init_task(self, key: jax.Array) -> Tree:
    row = jax.eval_shape(self.adapter.init_task, key)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), row)

  def row(self, shared: Tree, owned: Tree) -> Tree:
    return jax.tree.map(jnp.add, shared["base"], owned)

  def owned(self, shared: Tree, row: Tree) -> Tree:
    """What a task owns whose row this is."""
    return jax.tree.map(jnp.subtract, row, shared["base"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingSpace:
  """Each task owns an embedding e of E numbers; a shared generator makes its row.

  With R the rank, layer l of each leaf of a row is

      row_l = base_l + sum_r c_lr basis_r,    c = C e / sqrt(R)    [L, R]

  where C is [L, R, E] and each leaf has a basis of R slices; leaves that every
  layer receives whole have one C of their own, [R, E]. So over layers and leaves
  the generated part has rank R at most, and the generator costs
  E R (L + 1) + R P numbers for rows of P in a layer.

  At the start the bases are zero, so that every row is the base, a fresh row and
  thereby the identity, while e and C are random: were all three zero, their
  gradients would be zero for good. The base is trained as well: it is what the
  tasks have in common, and a task of embedding zero has it. Where an adapter acts
  on two stacks of layers, each has a generator of its own.
  """

  adapter: Adapter
  size: int
  rank: int

  def init_shared(self, key: jax.Array) -> Tree:
    """e and C e are of unit variance: e ~ N(0, 1), C ~ N(0, 1/E)."""
    if isinstance(self.adapter, Stacks):
      return self.adapter.each(
        lambda stack, part: self._of(part).init_shared(fold_name(key, stack))
      )
    key_base, key_whole, key_layers = jax.random.split(key, 3)
    base = self.adapter.init_task(key_base)
    whole, layers = layer_slices(base)
    projections: dict[str, jax.Array] = {}
    if jax.tree.leaves(whole):
      projections["whole"] = self._projection(key_whole, whole, ())
    if jax.tree.leaves(layers):
      count = len(jax.tree.leaves(layers)[0])
      projections["layers"] = self._projection(key_layers, layers, (count,))
    basis = jax.tree.map(self._zeros, whole)
    if jax.tree.leaves(layers):
      slices = jax.tree.map(lambda leaf: leaf[0], layers)
      basis["layers"] = jax.tree.map(self._zeros, slices)
    return {"base": base, "projection": projections, "basis": basis}

  def init_task(self, key: jax.Array) -> Tree:
    base = jax.eval_shape(self.adapter.init_task, key)
    leaves = jax.tree.leaves(base)
    dtype = leaves[0].dtype if leaves else jnp.float32
    return {"embedding": jax.random.normal(key, (self.size,), dtype)}

  def row(self, shared: Tree, owned: Tree) -> Tree:
    if isinstance(self.adapter, Stacks):
      return self.adapter.each(
        lambda stack, part: self._of(part).row(shared[stack], owned)
      )
    base, layers = layer_slices(shared["base"])
    basis, layers_basis = layer_slices(shared["basis"])
    weights = {
      name: projection @ owned["embedding"] / math.sqrt(self.rank)
      for name, projection in shared["projection"].items()
    }
    row = jax.tree.map(
      lambda leaf, slices: leaf + jnp.tensordot(weights["whole"], slices, 1),
      base,
      basis,
    )
    if layers:
      row["layers"] = jax.tree.map(
        lambda leaf, slices: leaf + jnp.tensordot(weights["layers"], slices, 1),
        layers,
        layers_basis,
      )
    return row

  def _of(self, part: Adapter) -> "EmbeddingSpace":
    """The generator of one stack's rows, from the same embeddings."""
    return dataclasses.replace(self, adapter=part)

  def _projection(
    self, key: jax.Array, part: Tree, layers: tuple[int, ...]
  ) -> jax.Array:
    shape = (*layers, self.rank, self.size)
    dtype = jax.tree.leaves(part)[0].dtype
    return jax.random.normal(key, shape, dtype) / math.sqrt(self.size)

  def _zeros(self, leaf: jax.Array) -> jax.Array:
    return jnp.zeros((self.rank, *leaf.shape), leaf.dtype)


def build(
  config: SpaceConfig, *, adapter: Adapter, family: AdapterConfig
) -> TaskSpace:
  """The space that `config` describes, of rows of `adapter`.

  Args:
    family: what `adapter` was built from.

  Raises:
    InputError: a space of rows that no tasks can have in common.
  """
  if config.kind == "table":
    return TaskTable(adapter)
  row = jax.eval_shape(adapter.init_task, jax.random.key(0))
  if family.family == "full" or not jax.tree.leaves(row):
    raise InputError(
      "config.space.kind",
      expected="'table' for an adapter whose tasks own "
      + ("a whole backbone" if family.family == "full" else "nothing"),
      got=repr(config.kind),
    )
  if config.kind == "offset":
    return OffsetSpace(adapter)
  return EmbeddingSpace(adapter=adapter, size=config.size, rank=config.rank)


def freeze(space: TaskSpace, shared: Tree, owned: Tree) -> Tree:
  """Rows [N, ...] of a table [N, ...] of what tasks own."""
  if not jax.tree.leaves(owned):
    return owned  # of no leaf N can be read
  return jax.vmap(space.row, in_axes=(None, 0))(shared, owned)
