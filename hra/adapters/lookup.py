"""Rows that stay in their table: each layer looks up its own part, where it is used.

    row      {"place": int32}
    shared   what the family's tasks share, beside {"table": rows [N, ...]}

A batch of rows [B, L, ...] would be written as a whole, turned to [L, B, ...] for the
scan over layers, and copied once more layer by layer. Looked up by (place, layer) in
the scan, the rows are read and written once. For inference: the gradient of a lookup
is as large as the table.
"""

import dataclasses

import jax

from hra.adapters import table
from hra.adapters.full import Full
from hra.adapters.interface import (
  Adapter,
  Frozen,
  Stack,
  Tree,
  layer_slices,
  with_layer,
)
from hra.errors import InputError

_TABLE, _PLACE = "table", "place"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lookup(Frozen):
  """A family, by tables of rows that it has made; it makes none itself.

  `at` reads what a row has for every layer, and leaves the others in the table. A place
  out of range reads zeros, as in `hra.adapters.table.gather`.

  Raises:
    InputError: for a family that fine-tunes in full.
  """

  family: Adapter

  def __post_init__(self) -> None:
    if isinstance(self.family, Full):
      raise InputError(
        "rows in a table",
        expected="a family that leaves the weights alone",
        got="full fine-tuning",
      )

  @staticmethod
  def shared(shared: Tree, rows_N: Tree) -> Tree:
    """What the family shares and the rows [N, ...] of its tasks, as one tree."""
    return {**shared, _TABLE: rows_N}

  @staticmethod
  def row(place: jax.Array) -> Tree:
    """The row that stands at a place of the table."""
    return {_PLACE: place}

  def at(
    self, stack: Stack, shared: Tree, row: Tree
  ) -> tuple[Adapter, Tree, Tree]:
    family, own_shared, rows_N = self.family.at(
      stack, _without(shared, _TABLE), shared[_TABLE]
    )
    whole_N, layers_N = layer_slices(rows_N)
    whole = table.gather(whole_N, row[_PLACE])
    return (
      Lookup(family=family),
      self.shared(own_shared, layers_N),
      {**whole, _PLACE: row[_PLACE]},
    )

  def init_carry(self, hidden_TD: jax.Array) -> Tree:
    return self.family.init_carry(hidden_TD)

  def look_up(self, shared: Tree, row: Tree, layer: jax.Array) -> Tree:
    rows_NL, place = shared[_TABLE], (row[_PLACE], layer)
    own = with_layer(_without(row, _PLACE), table.gather(rows_NL, place))
    return self.family.look_up(_without(shared, _TABLE), own, layer)

  def after_layer(
    self,
    shared: Tree,
    row: Tree,
    layer: jax.Array,
    carry: Tree,
    hidden_TD: jax.Array,
  ) -> tuple[Tree, jax.Array]:
    return self.family.after_layer(
      _without(shared, _TABLE), row, layer, carry, hidden_TD
    )

  def tap(
    self,
    shared: Tree,
    row: Tree,
    layer: jax.Array,
    site: str,
    inputs: jax.Array,
    outputs: jax.Array,
  ) -> jax.Array:
    return self.family.tap(
      _without(shared, _TABLE), row, layer, site, inputs, outputs
    )


def _without(tree: Tree, name: str) -> Tree:
  return {key: leaf for key, leaf in tree.items() if key != name}
