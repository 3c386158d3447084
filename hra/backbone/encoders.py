"""The registry: an encoder's name in a config -> its layers."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from hra.backbone import conformer, recurrent, transformer
from hra.config import BackboneConfig


class _Init(Protocol):
  def __call__(self, config: BackboneConfig, *, key: jax.Array) -> Any: ...


class Encoder(NamedTuple):
  """What `hra.backbone.network` and the adapters ask of a kind of layer."""

  init_layers: _Init
  """L layers, stacked; each maps (hidden_TD, context, tap=) -> hidden_TD."""
  context_of: Callable[[BackboneConfig, int, jax.Array], Any]
  """Of an utterance with `length` valid frames of so many."""
  projections: Callable[[BackboneConfig], dict[str, tuple[int, int]]]
  """Sites of a layer's projections -> (inputs, outputs)."""
  biases: Callable[[BackboneConfig], dict[str, int]]
  """Sites of a layer where a bias is added -> how wide it is."""


ENCODERS = {
  name: Encoder(
    layers.init_layers, layers.context_of, layers.projections, layers.biases
  )
  for name, layers in (
    ("conformer", conformer),
    ("lstm", recurrent),
    ("transformer", transformer),
  )
}
