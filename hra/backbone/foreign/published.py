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


def _whisper(
  millions: int,
  *,
  width: int,
  layers: int,
  decoder_layers: int | None = None,
  mels: int = 80,
) -> Published:
  """One of Whisper's sizes: heads of 64, branches four times as wide."""
  sizes = {"d_model": width, "num_mel_bins": mels}
  sizes["vocab_size"] = 51866 if mels == 128 else 51865
  for part, count in (
    ("encoder", layers),
    ("decoder", decoder_layers or layers),
  ):
    sizes |= {
      f"{part}_layers": count,
      f"{part}_attention_heads": width // 64,
      f"{part}_ffn_dim": 4 * width,
    }
  return Published(
    "WhisperForConditionalGeneration", millions, sizes, {"feature_size": mels}
  )


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
  "openai/whisper-tiny": _whisper(39, width=384, layers=4),
  "openai/whisper-base": _whisper(74, width=512, layers=6),
  "openai/whisper-small": _whisper(244, width=768, layers=12),
  "openai/whisper-medium": _whisper(769, width=1024, layers=24),
  "openai/whisper-large-v3": _whisper(1550, width=1280, layers=32, mels=128),
  "openai/whisper-large-v3-turbo": _whisper(
    809, width=1280, layers=32, decoder_layers=4, mels=128
  ),
}


def outline(name: str) -> tuple[BackboneConfig, FrontendConfig]:
  """What a checkpoint of `PUBLISHED` would be converted to."""
  told = PUBLISHED[name]
  family = FAMILIES[told.architecture]
  translated = family.translate(told.config, name)
  return translated.config, family.frontend(told.extractor, name)
