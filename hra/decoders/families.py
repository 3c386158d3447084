"""The registry: a decoder's name in a config -> its parameters and what they do."""

from typing import Protocol

from flax import nnx

from hra.config import BackboneConfig
from hra.decoders import transformer
from hra.decoders.ctc import Ctc
from hra.decoders.interface import Decoder, Layered
from hra.decoders.las import Las
from hra.decoders.rnnt import Rnnt
from hra.decoders.transformer import TransformerSpeller


class _Make(Protocol):
  def __call__(
    self, config: BackboneConfig, *, rngs: nnx.Rngs
  ) -> Decoder | Layered: ...


DECODERS: dict[str, _Make] = {
  "ctc": Ctc,
  "rnnt": Rnnt,
  "tdt": Rnnt,
  "las": Las,
  "transformer": TransformerSpeller,
}

LAYERED = {"transformer": transformer}
"""Those with layers to adapt -> whose `projections` and `biases` say of which."""

GREEDY_ONLY = frozenset({"tdt"})
"""Hypotheses of equal labels are at unlike frames there after equally many steps,
which `hra.decoders.beam` can't merge."""
