"""Parakeet with CTC (Fast Conformer): `ParakeetForCTC` of transformers."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hra.backbone.foreign import fast_conformer, rules
from hra.backbone.foreign.family import Family, Translated
from hra.backbone.foreign.options import Options
from hra.backbone.foreign.rules import Rule
from hra.config import (
  BackboneConfig,
  ConformerConfig,
  DecoderConfig,
  FrontendConfig,
)
from hra.dims import SAMPLE_RATE
from hra.features.frontend import PRESETS

_MODEL = MappingProxyType(
  {"vocab_size": 1025, "pad_token_id": 1024, "encoder_config": {}}
)
_ENCODER = MappingProxyType(
  {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 8,
    "intermediate_size": 4096,
    "hidden_act": "silu",
    "attention_bias": True,
    "convolution_bias": True,
    "conv_kernel_size": 9,
    "subsampling_factor": 8,
    "subsampling_conv_channels": 256,
    "subsampling_conv_kernel_size": 3,
    "subsampling_conv_stride": 2,
    "scale_input": True,
  }
)
_EXTRACTOR = MappingProxyType(
  {
    "feature_size": 80,
    "sampling_rate": SAMPLE_RATE,
    "hop_length": 160,
    "n_fft": 512,
    "win_length": 400,
    "preemphasis": 0.97,
  }
)
_FACTORS = tuple(2**halvings for halvings in range(1, 7))
_ODD = "an even kernel makes one frame fewer than it hears"


def _translate(told: Mapping[str, Any], where: str) -> Translated:
  model = Options(told, _MODEL, where=where)
  config = encoder(model, where, decoder=DecoderConfig())
  return Translated(config, model["pad_token_id"])


def encoder(
  model: Options, where: str, *, decoder: DecoderConfig
) -> BackboneConfig:
  """A Fast Conformer as `encoder_config` says, and what follows it."""
  encoder = Options(
    model["encoder_config"], _ENCODER, where=f"{where}: encoder_config"
  )
  heads, width = encoder["num_attention_heads"], encoder["hidden_size"]
  encoder.only("subsampling_conv_stride", 2)
  encoder.only("subsampling_factor", *_FACTORS)
  encoder.absent_or("num_key_value_heads", heads)
  encoder.absent_or("head_dim", width // heads)
  kernel = encoder["conv_kernel_size"]
  encoder.only("conv_kernel_size", kernel | 1, why=_ODD)
  return BackboneConfig(
    width=width,
    layers=encoder["num_hidden_layers"],
    heads=heads,
    feed_forward=encoder["intermediate_size"],
    kernel=kernel,
    position="relative",
    conformer=ConformerConfig(
      projection_bias=encoder["attention_bias"],
      convolution_bias=encoder["convolution_bias"],
      convolution_norm="folded",
      activation=encoder.activation("hidden_act"),
    ),
    subsampling="separable",
    subsampling_channels=encoder["subsampling_conv_channels"],
    subsampling_kernel=encoder["subsampling_conv_kernel_size"],
    subsampling_halvings=_FACTORS.index(encoder["subsampling_factor"]) + 1,
    scale_input=encoder["scale_input"],
    vocabulary=model["vocab_size"],
    decoder=decoder,
  )


def _rules(translated: Translated) -> list[Rule]:
  return [
    *encoder_rules(translated.config),
    *rules.labels("head", "ctc_head", order=translated.order, rank=3),
  ]


def encoder_rules(config: BackboneConfig) -> list[Rule]:
  """All but the decoder."""
  theirs, attention = "encoder.subsampling", "encoder.layers.{l}.self_attn"
  others: list[Rule] = []
  for place in range(config.subsampling_halvings - 1):
    # Their list counts activations too: 0 and 1, then three for each of ours.
    ours, first = f"subsampling/others/{place}", 2 + 3 * place
    others += rules.depthwise(f"{ours}/depthwise", f"{theirs}.layers.{first}")
    others += rules.pointwise(
      f"{ours}/pointwise", f"{theirs}.layers.{first + 1}", axes=2
    )
  return [
    *rules.convolution("subsampling/first", f"{theirs}.layers.0"),
    *others,
    *rules.flattened(
      "subsampling/output",
      f"{theirs}.linear",
      channels=config.subsampling_channels,
    ),
    *fast_conformer.layer_rules(config),
    *rules.linear("layers/attention/relative", f"{attention}.relative_k_proj"),
    rules.same("layers/attention/content_bias", f"{attention}.bias_u"),
    rules.same("layers/attention/position_bias", f"{attention}.bias_v"),
  ]


def _frontend(told: Mapping[str, Any], where: str) -> FrontendConfig:
  options = Options(told, _EXTRACTOR, where=where)
  options.only("sampling_rate", SAMPLE_RATE)
  return dataclasses.replace(
    PRESETS["parakeet"],
    num_mels=options["feature_size"],
    hop_length=options["hop_length"],
    fft_length=options["n_fft"],
    frame_length=options["win_length"],
    pre_emphasis=options["preemphasis"],
  )


PARAKEET = Family(
  translate=_translate,
  rules=_rules,
  ignorable=fast_conformer.IGNORABLE,
  tokenizer="tokenizer.json",
  extractor="ParakeetFeatureExtractor",
  frontend=_frontend,
)
