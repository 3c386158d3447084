"""A Transformer's layer (Vaswani et al. 2017), its norms before its branches.

In: hidden_TD and the `Context` that all layers share; where it attends to frames from
elsewhere too, what it keeps of them. Out: hidden_TD.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from hra.nn.attention import (
  Attention,
  Cache,
  Context,
  CrossAttention,
  Memory,
  Position,
)
from hra.nn.feed_forward import FeedForward
from hra.nn.norm import EPSILON, LayerNorm
from hra.nn.tap import Tap, no_tap
from hra.nn.types import Types


class Stepped(NamedTuple):
  """What a layer says of one more frame."""

  hidden_D: jax.Array
  cache: Cache
  attended_T: jax.Array
  """To frames from elsewhere, the mean of the heads; [0] without any."""


class TransformerLayer(nnx.Module):
  """hidden + attention(norm hidden), and so on for each of its branches.

  Its tap hears of every projection and of every norm (`projections`, `biases`).
  """

  def __init__(
    self,
    width: int,
    *,
    heads: int,
    inner: int,
    position: Position | None = None,
    activation: str = "silu",
    key_bias: bool = True,
    crosses: bool = False,
    types: Types,
    rngs: nnx.Rngs,
  ):
    """Args:
    inner: width of the feed-forward branch.
    crosses: whether it attends to frames from elsewhere.
    """

    def norm() -> LayerNorm:
      return LayerNorm(width, epsilon=EPSILON, rngs=rngs, **types)

    self.attention_norm = norm()
    self.attention = Attention(
      width,
      heads=heads,
      position=position,
      key_bias=key_bias,
      types=types,
      rngs=rngs,
    )
    self.crosses = crosses
    if crosses:
      self.cross_attention_norm = norm()
      self.cross_attention = CrossAttention(
        width, heads=heads, types=types, rngs=rngs
      )
    self.feed_forward_norm = norm()
    self.feed_forward = FeedForward(
      width, inner=inner, activation=activation, types=types, rngs=rngs
    )

  def memory(self, frames_TD: jax.Array, *, tap: Tap = no_tap) -> Memory:
    """What it keeps of frames from elsewhere."""
    return self.cross_attention.memory(frames_TD, tap=tap)

  def __call__(
    self,
    hidden_TD: jax.Array,
    context: Context,
    *,
    memory: Memory | None = None,
    tap: Tap = no_tap,
  ) -> jax.Array:
    """Args:
    memory: where it crosses.
    """
    normed_TD = self._normed("attention_norm", hidden_TD, tap)
    hidden_TD += self.attention(normed_TD, context, tap=tap)
    return self._crossed(hidden_TD, memory, tap)[0]

  def step(
    self,
    hidden_D: jax.Array,
    cache: Cache,
    count: jax.Array,
    *,
    memory: Memory | None = None,
    tap: Tap = no_tap,
  ) -> Stepped:
    """One more frame after `count` others (`hra.nn.attention.Attention.step`)."""
    normed_1D = self._normed("attention_norm", hidden_D[None], tap)
    mixed_D, cache = self.attention.step(normed_1D[0], cache, count, tap=tap)
    hidden_1D, attended_1T = self._crossed(
      (hidden_D + mixed_D)[None], memory, tap
    )
    return Stepped(hidden_1D[0], cache, attended_1T[0])

  def _crossed(
    self, hidden_TD: jax.Array, memory: Memory | None, tap: Tap
  ) -> tuple[jax.Array, jax.Array]:
    """All branches after the first, and where they attended to."""
    attended = jnp.zeros((len(hidden_TD), 0))
    if self.crosses:
      assert memory is not None
      normed_TD = self._normed("cross_attention_norm", hidden_TD, tap)
      mixed_TD, weights = self.cross_attention(normed_TD, memory, tap=tap)
      hidden_TD, attended = hidden_TD + mixed_TD, weights.mean(axis=0)
    normed_TD = self._normed("feed_forward_norm", hidden_TD, tap)
    fed_TD = self.feed_forward(normed_TD, site="feed_forward", tap=tap)
    return hidden_TD + fed_TD, attended

  def _normed(self, name: str, hidden_TD: jax.Array, tap: Tap) -> jax.Array:
    return tap(name, hidden_TD, getattr(self, name)(hidden_TD))


def stacked(layers: int, *, key: jax.Array, **sizes: Any) -> TransformerLayer:
  """Layers one above the other; branches start the smaller the more there are.

  Radford et al. 2019, section 2.3.

  Args:
    sizes: what `TransformerLayer` takes, its width as `width`.
  """
  made = jax.vmap(lambda key: TransformerLayer(**sizes, rngs=nnx.Rngs(key)))(
    jax.random.split(key, layers)
  )
  branches = [made.attention.output, made.feed_forward.down]
  if made.crosses:
    branches.append(made.cross_attention.output)
  for branch in branches:
    branch.kernel[...] *= (len(branches) * layers) ** -0.5
  return made


def projections(
  width: int, *, inner: int, crosses: bool = False
) -> dict[str, tuple[int, int]]:
  """Sites of a layer's projections -> (inputs, outputs) of each."""
  attentions = ("attention", *(("cross_attention",) if crosses else ()))
  sites = {
    f"{attention}.{name}": (width, width)
    for attention in attentions
    for name in ("query", "key", "value", "output")
  }
  return sites | {
    "feed_forward.up": (width, inner),
    "feed_forward.down": (inner, width),
  }


def biases(
  width: int, *, inner: int, key_bias: bool, crosses: bool = False
) -> dict[str, int]:
  """Sites of a layer where a bias is added -> how wide it is."""
  sites = {
    site: wide
    for site, (_, wide) in projections(
      width, inner=inner, crosses=crosses
    ).items()
    if site != "cross_attention.key" and (key_bias or site != "attention.key")
  }
  norms = [
    "attention_norm",
    "feed_forward_norm",
    *(("cross_attention_norm",) if crosses else ()),
  ]
  return sites | dict.fromkeys(norms, width)
