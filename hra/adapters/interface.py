"""The adapter contract: written for ONE task and ONE utterance.

`vmap` makes it many. A *row* is what one task owns, *shared* is what all tasks
own together; both are trees of arrays (dicts). Leaves under the key "layers", in
either, carry a leading axis L, and `after_layer` and `tap` receive that layer's
slice of them; all other leaves reach every layer whole.
"""

import dataclasses
import functools
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from hra.backbone.network import Backbone
from hra.errors import InputError
from hra.sharding import named_leaves

Tree = Any
"""A pytree of arrays."""

Stack = Literal["encoder", "decoder"]
"""Layers one after the other, of which a backbone may have two."""


class Adapter(Protocol):
  """One family of Submodels.

  With a fresh row, adapted equals backbone, unless what all tasks share acts by
  itself: see `init_task`.
  """

  def __hash__(self) -> int:
    """Adapters are static arguments of compiled functions."""
    ...

  def init_shared(self, key: jax.Array) -> Tree:
    """What all tasks share, trained together; `{}` where nothing is."""
    ...

  def init_task(self, key: jax.Array) -> Tree:
    """A fresh row, which adds nothing of its own to the backbone.

    So adapted equals backbone whatever the shared parameters are, with one
    exception: the head that all tasks of an hra share (`heads` "shared" or
    "both") acts on every task, also on one whose row is fresh; before it is
    trained it is the identity as well. A task that is fresh in an embedding
    space has not this row, but the space's base, which training moves.
    """
    ...

  def at(
    self, stack: Stack, shared: Tree, row: Tree
  ) -> tuple["Adapter", Tree, Tree]:
    """The adapter of one stack's layers, with what is shared and the row of it.

    A family that leaves the stack alone returns `Frozen()` and nothing.
    """
    ...

  def merge(self, row: Tree, backbone: Backbone) -> Backbone:
    """The backbone that an utterance runs on; called once, before its layers.

    A family that leaves the weights alone returns `backbone` itself.
    """
    ...

  def init_carry(self, hidden_TD: jax.Array) -> Tree:
    """The recurrent state over depth before the first layer."""
    ...

  def look_up(self, shared: Tree, row: Tree, layer: jax.Array) -> Tree:
    """A layer's row, as `tap` and `after_layer` are to see it; called once there.

    A family whose rows are at hand returns `row` itself.
    """
    ...

  def after_layer(
    self,
    shared: Tree,
    row: Tree,
    layer: jax.Array,
    carry: Tree,
    hidden_TD: jax.Array,
  ) -> tuple[Tree, jax.Array]:
    """(carry, hidden_TD) after a layer -> the same for the next."""
    ...

  def tap(
    self,
    shared: Tree,
    row: Tree,
    layer: jax.Array,
    site: str,
    inputs: jax.Array,
    outputs: jax.Array,
  ) -> jax.Array:
    """The output of `site` inside a layer -> the output to go on with.

    A family that leaves a site alone returns `outputs` itself.
    """
    ...


def layer_slices(tree: Tree) -> tuple[Tree, Tree]:
  """A row or shared tree -> (its leaves for every layer, its "layers" part)."""
  whole = {name: leaf for name, leaf in tree.items() if name != "layers"}
  return whole, tree.get("layers", {})


def with_layer(whole: Tree, layer_part: Tree) -> Tree:
  """Puts one layer's slice back beside the leaves for every layer."""
  return {**whole, "layers": layer_part} if layer_part else whole


def wide(row: Tree) -> Tree:
  """A row on the host in types that stack: some hold 16 bits, of either kind."""

  def widened(leaf: np.ndarray) -> np.ndarray:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
      return leaf
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32), copy=False)

  return jax.tree.map(widened, row)


def switch(
  active: jax.Array | None, adapted: jax.Array, plain: jax.Array
) -> jax.Array:
  """`adapted` where active (None: always), else `plain`, whatever the other is."""
  if active is None or adapted is plain:
    return adapted
  return jnp.where(active, adapted, plain)


def check_trees(
  adapter: Adapter, row: Tree, shared: Tree, *, where: str
) -> None:
  """Whether a row and shared parameters are those of an adapter.

  Args:
    where: whose they are, for the message.

  Raises:
    InputError: a leaf that is missing, superfluous, of another shape, or no
      number of the right kind.
  """
  shapes = _shapes(adapter)
  for name, ours, theirs in zip(
    ("row", "shared"), shapes, (row, shared), strict=True
  ):
    expected = {path: _described(leaf) for path, leaf in named_leaves(ours)}
    got = {path: _described(leaf) for path, leaf in named_leaves(theirs)}
    for path in sorted(expected.keys() | got.keys()):
      if expected.get(path) != got.get(path):
        raise InputError(
          f"{where}: {name}/{path}",
          expected=expected.get(path, "nothing"),
          got=got.get(path, "nothing"),
          fix="it was made for an adapter or a backbone of other sizes",
        )


@functools.cache
def _shapes(adapter: Adapter) -> tuple[Tree, Tree]:
  key = jax.random.key(0)
  return (
    jax.eval_shape(adapter.init_task, key),
    jax.eval_shape(adapter.init_shared, key),
  )


_KINDS = {"floats": jnp.floating, "booleans": jnp.bool_}


def _described(leaf: Any) -> str:
  """Kind of number and shape; how many bits a number has is left open."""
  leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
  kinds = (name for name, k in _KINDS.items() if jnp.issubdtype(leaf.dtype, k))
  return f"{next(kinds, str(leaf.dtype))} of shape {tuple(leaf.shape)}"


@dataclasses.dataclass(frozen=True)
class Frozen:
  """No adapter: the backbone as it is. The control, and pretraining's family."""

  def init_shared(self, key: jax.Array) -> Tree:
    del key
    return {}

  def init_task(self, key: jax.Array) -> Tree:
    del key
    return {}

  def at(
    self, stack: Stack, shared: Tree, row: Tree
  ) -> tuple[Adapter, Tree, Tree]:
    """Families are written for the encoder's layers (`hra.adapters.stacks`)."""
    if stack == "encoder":
      return self, shared, row
    return Frozen(), {}, {}

  def merge(self, row: Tree, backbone: Backbone) -> Backbone:
    del row
    return backbone

  def init_carry(self, hidden_TD: jax.Array) -> Tree:
    del hidden_TD
    return ()

  def look_up(self, shared: Tree, row: Tree, layer: jax.Array) -> Tree:
    del shared, layer
    return row

  def after_layer(
    self,
    shared: Tree,
    row: Tree,
    layer: jax.Array,
    carry: Tree,
    hidden_TD: jax.Array,
  ) -> tuple[Tree, jax.Array]:
    del shared, row, layer
    return carry, hidden_TD

  def tap(
    self,
    shared: Tree,
    row: Tree,
    layer: jax.Array,
    site: str,
    inputs: jax.Array,
    outputs: jax.Array,
  ) -> jax.Array:
    del shared, row, layer, site, inputs
    return outputs
