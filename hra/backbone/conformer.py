"""The Conformer's layers (Gulati et al. 2020): an encoder of `hra.backbone.network`."""

import jax
import jax.numpy as jnp
from flax import nnx

from hra.config import BackboneConfig
from hra.nn.attention import Attention, Context, make_context
from hra.nn.convolution import ConvolutionModule
from hra.nn.feed_forward import FeedForward
from hra.nn.tap import Tap, no_tap
from hra.nn.types import types_of


class ConformerLayer(nnx.Module):
  """Half feed-forward, attention, convolution, half feed-forward, norm.

  Its tap hears of every projection and of every norm (`projections`, `biases`).
  """

  def __init__(self, config: BackboneConfig, *, rngs: nnx.Rngs):
    types = types_of(config)
    width = config.width

    def norm() -> nnx.LayerNorm:
      return nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs, **types)

    def feed_forward() -> FeedForward:
      return FeedForward(
        width, inner=config.feed_forward, types=types, rngs=rngs
      )

    self.first_norm, self.first = norm(), feed_forward()
    self.attention_norm = norm()
    self.attention = Attention(
      width,
      heads=config.heads,
      position=config.position,
      types=types,
      rngs=rngs,
    )
    self.convolution_norm = norm()
    self.convolution = ConvolutionModule(
      width,
      kernel=config.kernel,
      causal=config.causal,
      types=types,
      rngs=rngs,
    )
    self.second_norm, self.second = norm(), feed_forward()
    self.output_norm = norm()

  def __call__(
    self, hidden_TD: jax.Array, context: Context, *, tap: Tap = no_tap
  ) -> jax.Array:
    def norm(name: str, hidden_TD: jax.Array) -> jax.Array:
      return tap(name, hidden_TD, getattr(self, name)(hidden_TD))

    hidden_TD += 0.5 * self.first(
      norm("first_norm", hidden_TD), site="first", tap=tap
    )
    hidden_TD += self.attention(
      norm("attention_norm", hidden_TD), context, tap=tap
    )
    hidden_TD += self.convolution(
      norm("convolution_norm", hidden_TD), context.valid_T, tap=tap
    )
    hidden_TD += 0.5 * self.second(
      norm("second_norm", hidden_TD), site="second", tap=tap
    )
    return norm("output_norm", hidden_TD)


_NORMS = (
  "first_norm",
  "attention_norm",
  "convolution_norm",
  "convolution.norm",
  "second_norm",
  "output_norm",
)
"""Sites of a layer's norms; each is as wide as the layer."""

_BRANCHES = (
  ("first", "down"),
  ("attention", "output"),
  ("convolution", "output"),
  ("second", "down"),
)
"""What each residual branch of a layer ends in."""


def projections(config: BackboneConfig) -> dict[str, tuple[int, int]]:
  """Sites of a layer's projections -> (inputs, outputs) of each."""
  width, inner = config.width, config.feed_forward
  sizes = {
    f"attention.{name}": (width, width)
    for name in ("query", "key", "value", "output")
  }
  for name in ("first", "second"):
    sizes |= {f"{name}.up": (width, inner), f"{name}.down": (inner, width)}
  return sizes | {
    "convolution.gate": (width, 2 * width),
    "convolution.output": (width, width),
  }


def biases(config: BackboneConfig) -> dict[str, int]:
  """Sites of a layer where a bias is added -> how wide it is."""
  outputs = {site: wide for site, (_, wide) in projections(config).items()}
  return outputs | dict.fromkeys(_NORMS, config.width)


def init_layers(config: BackboneConfig, *, key: jax.Array) -> ConformerLayer:
  """L layers, stacked; residual branches start the smaller the more there are.

  Radford et al. 2019, section 2.3. Each layer ends in a norm, so branches as loud
  as their input halve what a layer hands on: twelve layers then learn nothing but
  blanks for hundreds of steps.
  """
  layers = jax.vmap(lambda key: ConformerLayer(config, rngs=nnx.Rngs(key)))(
    jax.random.split(key, config.layers)
  )
  scale = (len(_BRANCHES) * config.layers) ** -0.5
  for module, projection in _BRANCHES:
    getattr(getattr(layers, module), projection).kernel[...] *= scale
  return layers


def context_of(
  config: BackboneConfig, frames: int, length: jax.Array
) -> Context:
  """What every layer needs to know of an utterance, once."""
  return make_context(
    frames,
    length,
    position=config.position,
    width=config.width,
    heads=config.heads,
    causal=config.causal,
    left_context=config.left_context,
    dtype=jnp.dtype(config.dtype),
  )
