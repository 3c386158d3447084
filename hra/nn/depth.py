"""How stacked layers run one after the other, whoever adapts them.

A stack of layers knows its own sums; what adapts it stands between and inside them
(`hra.adapters.interface`). Who owns layers is handed a `Depth` and runs them by it.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax

from hra.nn.tap import Tap

Tree = Any

Step = Callable[[Any, Tree, jax.Array, Tap], tuple[jax.Array, Tree]]
"""(layer, that layer's part of `extras`, hidden_TD, tap) -> (hidden_TD, what it
says besides)."""


class Depth(Protocol):
  """Of one stack, one utterance and its row."""

  def through(
    self, layers: Any, hidden_TD: jax.Array, step: Step, extras: Tree = ()
  ) -> tuple[jax.Array, Tree]:
    """All layers, one after the other: hidden_TD, and [L, ...] of what they say.

    Args:
      layers: L of them, stacked.
      extras: [L, ...], of which each layer hears its own part.
    """
    ...

  def each(self, layers: Any, function: Callable[[Any, Tap], Tree]) -> Tree:
    """What a function of (layer, tap) says of each layer [L, ...]."""
    ...
