"""The Conformer's layers (Gulati et al. 2020): an encoder of `hra.backbone.network`.

One layer with the switches of `hra.config.ConformerConfig` is ours and those of the
public checkpoints that `hra.backbone.foreign` converts.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from hra.config import BackboneConfig, ConformerConfig
from hra.nn.attention import Attention, Context, Limits, make_context
from hra.nn.convolution import ConvolutionModule
from hra.nn.feed_forward import FeedForward
from hra.nn.norm import LayerNorm, layer_norm
from hra.nn.tap import Tap, no_tap
from hra.nn.types import types_of


class ConformerLayer(nnx.Module):
  """Half feed-forward, attention, convolution, half feed-forward, norm.

  Its tap hears of every projection and of every norm (`projections`, `biases`).
  """

  def __init__(self, config: BackboneConfig, *, rngs: nnx.Rngs):
    types = types_of(config)
    width, parts = config.width, config.conformer
    self.parts = parts

    def norm() -> LayerNorm:
      return layer_norm(width, parts=parts, types=types, rngs=rngs)

    def feed_forward() -> FeedForward:
      return FeedForward(
        width,
        inner=config.feed_forward,
        bias=parts.projection_bias,
        activation=parts.activation,
        types=types,
        rngs=rngs,
      )

    self.first_norm, self.first = norm(), feed_forward()
    self.attention_norm = norm()
    self.attention = Attention(
      width,
      heads=config.heads,
      position=config.position,
      limits=_limits(config),
      bias=parts.projection_bias,
      types=types,
      rngs=rngs,
    )
    self.convolution_norm = norm()
    self.convolution = ConvolutionModule(
      width,
      kernel=config.kernel,
      causal=config.causal or parts.causal_convolution,
      parts=parts,
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

    parts = self.parts
    branch_TD = self.first(norm("first_norm", hidden_TD), site="first", tap=tap)
    hidden_TD = _joined(hidden_TD, branch_TD, parts.feed_forward_weights)
    hidden_TD += self.attention(
      norm("attention_norm", hidden_TD), context, tap=tap
    )
    branch_TD = self.convolution(
      norm("convolution_norm", hidden_TD), context.valid_T, tap=tap
    )
    hidden_TD = _joined(hidden_TD, branch_TD, parts.convolution_weights)
    branch_TD = self.second(
      norm("second_norm", hidden_TD), site="second", tap=tap
    )
    hidden_TD = _joined(hidden_TD, branch_TD, parts.feed_forward_weights)
    return norm("output_norm", hidden_TD)


def _joined(
  stream_TD: jax.Array, branch_TD: jax.Array, weights: tuple[float, ...]
) -> jax.Array:
  """A residual sum; a weight of 1 is no operation."""
  ours, theirs = weights
  stream_TD = stream_TD if ours == 1 else ours * stream_TD
  return stream_TD + (branch_TD if theirs == 1 else theirs * branch_TD)


_NORMS = (
  "first_norm",
  "attention_norm",
  "convolution_norm",
  "second_norm",
  "output_norm",
)
"""Sites of a layer's norms; each is as wide as the layer. The convolution has
another one inside, unless it is folded."""

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
  parts = config.conformer
  folded = parts.convolution_norm == "folded"
  sites = {
    site: wide
    for site, (_, wide) in projections(config).items()
    if _has_bias(site, parts)
  }
  if parts.norm_bias:
    norms = (*_NORMS, *(() if folded else ("convolution.norm",)))
    sites |= dict.fromkeys(norms, config.width)
  if folded:
    sites["convolution.depthwise"] = config.width
  return sites


def _has_bias(projection: str, parts: ConformerConfig) -> bool:
  if projection.startswith("convolution."):
    return parts.convolution_bias
  return parts.projection_bias


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
    limits=_limits(config),
    causal=config.causal,
    left_context=config.left_context,
    dtype=jnp.dtype(config.dtype),
  )


def _limits(config: BackboneConfig) -> Limits:
  parts = config.conformer
  return Limits(parts.distance_left, parts.distance_right)
