"""A backbone: subsampling, L stacked layers, a decoder.

In: mel_TF of one utterance. Out: hidden_TD before the layers (`embed`). After them
`leave` and then `head` take it from there; `hra.model` scans over the layers.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from hra.backbone.encoders import ENCODERS
from hra.config import BackboneConfig
from hra.decoders.families import DECODERS
from hra.errors import InputError
from hra.nn.norm import LayerNorm, layer_norm
from hra.nn.subsampling import SUBSAMPLINGS, Subsampling
from hra.nn.types import types_of


class Backbone(nnx.Module):
  """Parameters of one model; `vocabulary` counts the blank."""

  def __init__(self, config: BackboneConfig, *, mels: int, key: jax.Array):
    key_subsampling, key_layers, key_head = jax.random.split(key, 3)
    self.config = nnx.static(config)
    self.subsampling: Subsampling = SUBSAMPLINGS[config.subsampling](
      config, mels=mels, rngs=nnx.Rngs(key_subsampling)
    )
    self.positions = _positions(config, rngs=nnx.Rngs(key_subsampling))
    self.layers = ENCODERS[config.encoder].init_layers(config, key=key_layers)
    self.norm = _final_norm(config, rngs=nnx.Rngs(key_layers))
    self.head = DECODERS[config.decoder.kind](config, rngs=nnx.Rngs(key_head))

  def embed(
    self, mel_TF: jax.Array, length: jax.Array
  ) -> tuple[jax.Array, jax.Array, Any]:
    """mel_TF, valid frames -> hidden_TD, valid frames, the layers' context.

    Raises:
      InputError: other frames than a table of positions has places for.
    """
    config = self.config
    hidden_TD, length = self.subsampling(
      mel_TF.astype(jnp.dtype(config.dtype)), length
    )
    if config.scale_input:
      hidden_TD *= config.width**0.5
    if self.positions is not None:
      table_TD = self.positions[...].astype(hidden_TD.dtype)
      _check_fills(hidden_TD, table_TD)
      hidden_TD += table_TD
    context_of = ENCODERS[config.encoder].context_of
    return hidden_TD, length, context_of(config, len(hidden_TD), length)

  def leave(self, hidden_TD: jax.Array) -> jax.Array:
    """hidden_TD of the last layer -> hidden_TD for the decoder."""
    return hidden_TD if self.norm is None else self.norm(hidden_TD)


def _positions(config: BackboneConfig, *, rngs: nnx.Rngs) -> nnx.Param | None:
  """A table [frames, D], added before Transformer layers."""
  if config.encoder != "transformer":
    return None
  size = (config.transformer.frames, config.width)
  dtype = jnp.dtype(config.param_dtype)
  return nnx.Param(
    config.width**-0.5 * jax.random.normal(rngs.params(), size, dtype)
  )


def _check_fills(hidden_TD: jax.Array, table_TD: jax.Array) -> None:
  if len(hidden_TD) != len(table_TD):
    raise InputError(
      "features",
      expected=f"{len(table_TD)} frames of the encoder: what the backbone always "
      "hears, silence included",
      got=str(len(hidden_TD)),
      fix="cut longer recordings into pieces",
    )


def _final_norm(config: BackboneConfig, *, rngs: nnx.Rngs) -> LayerNorm | None:
  parts, types = config.conformer, types_of(config)
  if not (parts.final_norm or config.encoder == "transformer"):
    return None
  return layer_norm(config.width, parts=parts, types=types, rngs=rngs)
