"""The Conformer encoder with a CTC head (Gulati et al. 2020).

In: mel_TF of one utterance. Out: hidden_TD before the layers (`embed`), and
logits_TV after them (`head`). The layers are stacked along a leading axis L;
`hra.model` scans over them.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from hra.config import BackboneConfig
from hra.nn.attention import Attention, Context, make_context
from hra.nn.convolution import ConvolutionModule, Subsampling
from hra.nn.feed_forward import FeedForward
from hra.nn.tap import Tap, no_tap
from hra.nn.types import Types


class ConformerLayer(nnx.Module):
  """Half feed-forward, attention, convolution, half feed-forward, norm.

  Its tap hears of every projection and of every norm (`projections`, `NORMS`).
  """

  def __init__(self, config: BackboneConfig, *, rngs: nnx.Rngs):
    types = _types(config)
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


NORMS = (
  "first_norm",
  "attention_norm",
  "convolution_norm",
  "convolution.norm",
  "second_norm",
  "output_norm",
)
"""Sites of a layer's norms; each is as wide as the layer."""


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


_BRANCHES = (
  ("first", "down"),
  ("attention", "output"),
  ("convolution", "output"),
  ("second", "down"),
)
"""What each residual branch of a layer ends in."""


class Conformer(nnx.Module):
  """Subsampling, L stacked layers, CTC head. `vocabulary` counts the blank."""

  def __init__(self, config: BackboneConfig, *, mels: int, key: jax.Array):
    key_subsampling, key_layers, key_head = jax.random.split(key, 3)
    types = _types(config)
    self.config = nnx.static(config)
    self.subsampling = Subsampling(
      mels,
      channels=config.subsampling_channels,
      width=config.width,
      causal=config.causal,
      types=types,
      rngs=nnx.Rngs(key_subsampling),
    )
    self.layers = jax.vmap(
      lambda key: ConformerLayer(config, rngs=nnx.Rngs(key))
    )(jax.random.split(key_layers, config.layers))
    self._quieten_branches()
    self.head = nnx.Linear(
      config.width,
      config.vocabulary,
      rngs=nnx.Rngs(key_head),
      **types,
    )

  def _quieten_branches(self) -> None:
    """Starts residual branches smaller the more there are.

    Radford et al. 2019, section 2.3. Each layer ends in a norm, so branches as
    loud as their input halve what a layer hands on: twelve layers then learn
    nothing but blanks for hundreds of steps.
    """
    scale = (len(_BRANCHES) * self.config.layers) ** -0.5
    for module, projection in _BRANCHES:
      getattr(getattr(self.layers, module), projection).kernel[...] *= scale

  def embed(
    self, mel_TF: jax.Array, length: jax.Array
  ) -> tuple[jax.Array, jax.Array, Context]:
    """mel_TF, valid frames -> hidden_TD, valid frames, the layers' context."""
    config = self.config
    dtype = jnp.dtype(config.dtype)
    hidden_TD, length = self.subsampling(mel_TF.astype(dtype), length)
    context = make_context(
      len(hidden_TD),
      length,
      position=config.position,
      width=config.width,
      heads=config.heads,
      causal=config.causal,
      left_context=config.left_context,
      dtype=dtype,
    )
    return hidden_TD, length, context

  def logits(self, hidden_TD: jax.Array) -> jax.Array:
    """Unnormalised log-probabilities [T, V] in at least float32."""
    logits_TV = self.head(hidden_TD)
    return logits_TV.astype(jnp.promote_types(logits_TV.dtype, jnp.float32))


def _types(config: BackboneConfig) -> Types:
  return Types(
    dtype=jnp.dtype(config.dtype), param_dtype=jnp.dtype(config.param_dtype)
  )
