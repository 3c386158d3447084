"""Several families in one batch: a row of all their rows, of which some are active.

An utterance's row has a place for every part and says of each whether it acts; a
part that does not act leaves hidden states and outputs exactly alone, whatever
stands in its place and in what its tasks share. (Gradients ask for finite numbers
there, such as the zeros that `Composite.row` puts.) So one compiled program answers
utterances of several families, of several sets of shared parameters, and of the
bare backbone. It costs the sum of its parts.

    row      {"active": {NAME: boolean}, "whole": {NAME: ...}, "layers": {NAME: ...}}
    shared   {"whole": {NAME: ...}, "layers": {NAME: ...}}

What a part has under "layers" stands under the composite's own, where the layer
scan slices it.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from hra.adapters.full import Full
from hra.adapters.interface import (
  Adapter,
  Frozen,
  Stack,
  Tree,
  layer_slices,
  switch,
  with_layer,
)
from hra.errors import InputError
from hra.keys import fold_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Composite(Frozen):
  """Parts (NAME, adapter); where several are active, they act in this order.

  Raises:
    InputError: for a part that fine-tunes in full, or a name that stands twice.
  """

  parts: tuple[tuple[str, Adapter], ...]

  def __post_init__(self) -> None:
    names = [name for name, _ in self.parts]
    for name, part in self.parts:
      if names.count(name) > 1 or isinstance(part, Full):
        raise InputError(
          f"part {name!r} of a composite adapter",
          expected="distinct names of families that leave the weights alone",
          got=f"{', '.join(names)}, {name!r} being {type(part).__name__}",
        )

  def row(self, rows: Mapping[str, Tree]) -> Tree:
    """The row in which the parts that are named act, by these rows of theirs.

    The places of the others hold zeros.
    """
    there = {
      name: rows[name] if name in rows else _zeros(part)
      for name, part in self.parts
    }
    return self.of_all(
      there, {name: np.asarray(name in rows) for name, _ in self.parts}
    )

  def of_all(self, rows: Mapping[str, Tree], active: Mapping[str, Any]) -> Tree:
    """The row of rows of all parts, of which those act that are `active`."""
    return {"active": dict(active), **_joined(rows)}

  def shared(self, shared: Mapping[str, Tree]) -> Tree:
    """What the tasks of each part share, as one tree."""
    return _joined({name: shared[name] for name, _ in self.parts})

  def init_shared(self, key: jax.Array) -> Tree:
    return _joined(
      {
        name: part.init_shared(fold_name(key, name))
        for name, part in self.parts
      }
    )

  def init_task(self, key: jax.Array) -> Tree:
    """Fresh rows of all parts, none of them active."""
    fresh = {
      name: part.init_task(fold_name(key, name)) for name, part in self.parts
    }
    return {"active": dict.fromkeys(fresh, np.asarray(False)), **_joined(fresh)}

  def at(
    self, stack: Stack, shared: Tree, row: Tree
  ) -> tuple[Adapter, Tree, Tree]:
    found = {
      name: part.at(stack, _part(shared, name), _part(row, name))
      for name, part in self.parts
    }
    own = Composite(parts=tuple((n, part) for n, (part, _, _) in found.items()))
    own_shared = _joined({name: each for name, (_, each, _) in found.items()})
    own_row = _joined({name: each for name, (_, _, each) in found.items()})
    return own, own_shared, {"active": row["active"], **own_row}

  def init_carry(self, hidden_TD: jax.Array) -> Tree:
    return {name: part.init_carry(hidden_TD) for name, part in self.parts}

  def look_up(self, shared: Tree, row: Tree, layer: jax.Array) -> Tree:
    rows = {
      name: part.look_up(own_shared, own_row, layer)
      for name, part, _, own_shared, own_row in self._each(shared, row)
    }
    return {"active": row["active"], **_joined(rows)}

  def after_layer(
    self,
    shared: Tree,
    row: Tree,
    layer: jax.Array,
    carry: Tree,
    hidden_TD: jax.Array,
  ) -> tuple[Tree, jax.Array]:
    carries = {}
    for name, part, active, own_shared, own_row in self._each(shared, row):
      carries[name], adapted_TD = part.after_layer(
        own_shared, own_row, layer, carry[name], hidden_TD
      )
      hidden_TD = switch(active, adapted_TD, hidden_TD)
    return carries, hidden_TD

  def tap(
    self,
    shared: Tree,
    row: Tree,
    layer: jax.Array,
    site: str,
    inputs: jax.Array,
    outputs: jax.Array,
  ) -> jax.Array:
    for _, part, active, own_shared, own_row in self._each(shared, row):
      adapted = part.tap(own_shared, own_row, layer, site, inputs, outputs)
      outputs = switch(active, adapted, outputs)
    return outputs

  def _each(
    self, shared: Tree, row: Tree
  ) -> Iterator[tuple[str, Adapter, jax.Array, Tree, Tree]]:
    for name, part in self.parts:
      active = row["active"][name]
      yield name, part, active, _part(shared, name), _part(row, name)


def _joined(trees: Mapping[str, Tree]) -> Tree:
  """Trees of the parts -> the composite's, "layers" of all at one place."""
  halves = {name: layer_slices(tree) for name, tree in trees.items()}
  layers = {name: sliced for name, (_, sliced) in halves.items() if sliced}
  return with_layer(
    {"whole": {name: whole for name, (whole, _) in halves.items()}}, layers
  )


def _part(tree: Tree, name: str) -> Tree:
  """The inverse of `_joined`, for one part."""
  return with_layer(tree["whole"][name], tree.get("layers", {}).get(name, {}))


@functools.cache
def _zeros(part: Adapter) -> Tree:
  """A row of one zero, seen from everywhere: read only, and traced once."""
  shapes = jax.eval_shape(part.init_task, jax.random.key(0))
  return jax.tree.map(
    lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), shapes
  )
