"""Transformer layers: the encoder of Whisper.

Another encoder of `hra.backbone.network` (Radford et al. 2022, arXiv 2212.04356,
section 2.2). Positions are a table that is added before the layers, as long as the
audio that is always heard: silence after a shorter utterance is a part of it, so that
no frame is hidden from another.
"""

import jax
import jax.numpy as jnp

from hra.config import BackboneConfig
from hra.nn import transformer
from hra.nn.attention import Context, make_context
from hra.nn.transformer import TransformerLayer
from hra.nn.types import types_of


def projections(config: BackboneConfig) -> dict[str, tuple[int, int]]:
  """Sites of a layer's projections -> (inputs, outputs) of each."""
  return transformer.projections(config.width, inner=config.feed_forward)


def biases(config: BackboneConfig) -> dict[str, int]:
  """Sites of a layer where a bias is added -> how wide it is."""
  return transformer.biases(
    config.width, inner=config.feed_forward, key_bias=False
  )


def init_layers(config: BackboneConfig, *, key: jax.Array) -> TransformerLayer:
  """L layers, stacked."""
  return transformer.stacked(
    config.layers,
    key=key,
    width=config.width,
    heads=config.heads,
    inner=config.feed_forward,
    activation=config.transformer.activation,
    key_bias=False,
    types=types_of(config),
  )


def context_of(
  config: BackboneConfig, frames: int, length: jax.Array
) -> Context:
  """What every layer needs to know of an utterance, once: it hears all frames."""
  del length
  return make_context(
    frames,
    jnp.asarray(frames),
    position=None,
    width=config.width,
    heads=config.heads,
  )
