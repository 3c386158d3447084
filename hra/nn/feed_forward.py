"""The position-wise feed-forward module (Gulati et al. 2020, section 2.3)."""

import jax
from flax import nnx

from hra.nn.tap import Tap, no_tap
from hra.nn.types import Types


class FeedForward(nnx.Module):
  """Two projections with a swish between them. hidden_TD -> hidden_TD."""

  def __init__(
    self,
    width: int,
    *,
    inner: int,
    types: Types,
    rngs: nnx.Rngs,
  ):
    self.up = nnx.Linear(width, inner, rngs=rngs, **types)
    self.down = nnx.Linear(inner, width, rngs=rngs, **types)

  def __call__(
    self, hidden_TD: jax.Array, *, site: str, tap: Tap = no_tap
  ) -> jax.Array:
    inner_TI = jax.nn.silu(tap(f"{site}.up", hidden_TD, self.up(hidden_TD)))
    return tap(f"{site}.down", inner_TI, self.down(inner_TI))
