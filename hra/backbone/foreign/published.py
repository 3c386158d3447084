"""Public checkpoints by name -> what they are, without a file of theirs.

Of each config.json stands here what its family's defaults don't say; the family
translates it as it does the file (`hra.backbone.foreign.checkpoint`).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from hra.backbone.foreign.checkpoint import FAMILIES
from hra.config import BackboneConfig, FrontendConfig

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Published(NamedTuple):
  """A checkpoint that can be converted, or fine-tuned to one."""

  architecture: str
  """One of `FAMILIES`."""
  millions: int
  """Parameters, as its publisher counts them."""
  config: Mapping[str, Any] = _NOTHING
  """Of config.json."""
  extractor: Mapping[str, Any] = _NOTHING
  """Of preprocessor_config.json."""


PUBLISHED: dict[str, Published] = {
  "google/medasr": Published("LasrForCTC", 105),
  "nvidia/parakeet-ctc-0.6b": Published("ParakeetForCTC", 600),
  "nvidia/parakeet-ctc-1.1b": Published(
    "ParakeetForCTC", 1100, {"encoder_config": {"num_hidden_layers": 42}}
  ),
  # Published without a CTC head, here with one of 32 characters.
  "facebook/w2v-bert-2.0": Published(
    "Wav2Vec2BertForCTC", 580, {"vocab_size": 32}
  ),
}


def outline(name: str) -> tuple[BackboneConfig, FrontendConfig]:
  """What a checkpoint of `PUBLISHED` would be converted to."""
  told = PUBLISHED[name]
  family = FAMILIES[told.architecture]
  translated = family.translate(told.config, name)
  return translated.config, family.frontend(told.extractor, name)
