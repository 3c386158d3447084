"""The adapter contract: written for ONE task and ONE utterance.

`vmap` makes it many. A *row* is what one task owns, *shared* is what all tasks
own together; both are trees of arrays (dicts). Leaves under the key "layers", in
either, carry a leading axis L, and `after_layer` and `tap` receive that layer's
slice of them; all other leaves reach every layer whole.
"""

from typing import Any, Protocol

import jax

Tree = Any
"""A pytree of arrays."""


class Adapter(Protocol):
  """One family of Submodels. With a fresh row, adapted equals backbone."""

  def init_shared(self, key: jax.Array) -> Tree:
    """What all tasks share, trained together; `{}` where nothing is."""
    ...

  def init_task(self, key: jax.Array) -> Tree:
    """A fresh row: the identity, whatever the shared parameters are."""
    ...

  def init_carry(self, hidden_TD: jax.Array) -> Tree:
    """The recurrent state over depth before the first layer."""
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
    """The output of `site` inside a layer -> the output to go on with."""
    ...


def layer_slices(tree: Tree) -> tuple[Tree, Tree]:
  """A row or shared tree -> (its leaves for every layer, its "layers" part)."""
  whole = {name: leaf for name, leaf in tree.items() if name != "layers"}
  return whole, tree.get("layers", {})


def with_layer(whole: Tree, layer_part: Tree) -> Tree:
  """Puts one layer's slice back beside the leaves for every layer."""
  return {**whole, "layers": layer_part} if layer_part else whole


class Frozen:
  """No adapter: the backbone as it is. The control, and pretraining's family."""

  def init_shared(self, key: jax.Array) -> Tree:
    del key
    return {}

  def init_task(self, key: jax.Array) -> Tree:
    del key
    return {}

  def init_carry(self, hidden_TD: jax.Array) -> Tree:
    del hidden_TD
    return ()

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
