"""An adapter for each stack of layers of an encoder-decoder.

    row      {"encoder": ROW, "decoder": ROW}
    shared   {"encoder": ..., "decoder": ...}

Each part is an adapter of the family as it would be on that stack alone: depth, and
so a recurrent controller's state, begins anew where the decoder begins. A stack
without a part stays as it is.
"""

import dataclasses
from collections.abc import Callable

import jax

from hra.adapters.interface import Adapter, Frozen, Stack, Tree
from hra.keys import fold_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stacks(Frozen):
  """Adapters by the stack that they act on."""

  parts: tuple[tuple[Stack, Adapter], ...]

  def each(self, of: Callable[[Stack, Adapter], Tree]) -> Tree:
    """What a function says of each part, by stack; files keep no empty trees."""
    said = {stack: of(stack, part) for stack, part in self.parts}
    return {
      stack: tree for stack, tree in said.items() if jax.tree.leaves(tree)
    }

  def init_shared(self, key: jax.Array) -> Tree:
    return self.each(
      lambda stack, part: part.init_shared(fold_name(key, stack))
    )

  def init_task(self, key: jax.Array) -> Tree:
    """Keys differ by stack, so that no part says anything of the other."""
    return self.each(lambda stack, part: part.init_task(fold_name(key, stack)))

  def at(
    self, stack: Stack, shared: Tree, row: Tree
  ) -> tuple[Adapter, Tree, Tree]:
    part = dict(self.parts).get(stack)
    if part is None:
      return Frozen(), {}, {}
    return part, shared.get(stack, {}), row.get(stack, {})
