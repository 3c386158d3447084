"""The position-wise feed-forward module (Gulati et al. 2020, section 2.3)."""

import jax
from flax import nnx

from hra.nn.activations import ACTIVATIONS
from hra.nn.tap import Tap, no_tap
from hra.nn.types import Types


class FeedForward(nnx.Module):
  """Two projections with an activation between them. hidden_TD -> hidden_TD."""

  def __init__(
    self,
    width: int,
    *,
    inner: int,
    bias: bool = True,
    activation: str = "silu",
    types: Types,
    rngs: nnx.Rngs,
  ):
    self.activation = activation
    self.up = nnx.Linear(width, inner, use_bias=bias, rngs=rngs, **types)
    self.down = nnx.Linear(inner, width, use_bias=bias, rngs=rngs, **types)

  def __call__(
    self, hidden_TD: jax.Array, *, site: str, tap: Tap = no_tap
  ) -> jax.Array:
    inner_TI = tap(f"{site}.up", hidden_TD, self.up(hidden_TD))
    inner_TI = ACTIVATIONS[self.activation](inner_TI)
    return tap(f"{site}.down", inner_TI, self.down(inner_TI))
