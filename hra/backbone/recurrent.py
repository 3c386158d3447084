"""Layers of LSTMs: the encoder of Listen, Attend and Spell (Chan et al. 2015).

Another encoder of `hra.backbone.network`. Each layer is bidirectional, of half the
width in either direction, or runs forward only where the backbone is causal; it
ends in a layer norm.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from hra.config import BackboneConfig
from hra.nn.lstm import Lstm
from hra.nn.norm import EPSILON, LayerNorm
from hra.nn.tap import Tap, no_tap
from hra.nn.types import types_of


class Frames(NamedTuple):
  """What every layer needs to know of an utterance."""

  valid_T: jax.Array
  """True where a frame is speech, False where it is padding."""


class RecurrentLayer(nnx.Module):
  """An LSTM in each direction, and a norm: hidden_TD -> hidden_TD."""

  def __init__(self, config: BackboneConfig, *, rngs: nnx.Rngs):
    types = types_of(config)
    for direction in _directions(config):
      lstm = Lstm(config.width, _cells(config), types=types, rngs=rngs)
      setattr(self, direction, lstm)
    self.directions = _directions(config)
    self.norm = LayerNorm(config.width, epsilon=EPSILON, rngs=rngs, **types)

  def __call__(
    self, hidden_TD: jax.Array, context: Frames, *, tap: Tap = no_tap
  ) -> jax.Array:
    heard = [
      getattr(self, direction)(
        hidden_TD,
        context.valid_T,
        reverse=direction == "backward",
        site=direction,
        tap=tap,
      )
      for direction in self.directions
    ]
    hidden_TD = jnp.concatenate(heard, axis=1)
    return tap("norm", hidden_TD, self.norm(hidden_TD))


def _directions(config: BackboneConfig) -> tuple[str, ...]:
  return ("forward",) if config.causal else ("forward", "backward")


def _cells(config: BackboneConfig) -> int:
  """Of one direction."""
  return config.width // len(_directions(config))


def projections(config: BackboneConfig) -> dict[str, tuple[int, int]]:
  """Sites of a layer's projections -> (inputs, outputs) of each."""
  width, cells = config.width, _cells(config)
  return {
    f"{direction}.{name}": (inputs, 4 * cells)
    for direction in _directions(config)
    for name, inputs in (("input", width), ("recurrent", cells))
  }


def biases(config: BackboneConfig) -> dict[str, int]:
  """Sites of a layer where a bias is added -> how wide it is."""
  gates = 4 * _cells(config)
  inputs = {f"{direction}.input": gates for direction in _directions(config)}
  return inputs | {"norm": config.width}


def init_layers(config: BackboneConfig, *, key: jax.Array) -> RecurrentLayer:
  """L layers, stacked."""
  return jax.vmap(lambda key: RecurrentLayer(config, rngs=nnx.Rngs(key)))(
    jax.random.split(key, config.layers)
  )


def context_of(
  config: BackboneConfig, frames: int, length: jax.Array
) -> Frames:
  """What every layer needs to know of an utterance, once."""
  del config
  return Frames(jnp.arange(frames) < length)
