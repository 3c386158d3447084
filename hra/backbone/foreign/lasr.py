"""LASR with CTC (MedASR): `LasrForCTC` of transformers."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hra.backbone.foreign import fast_conformer, rules
from hra.backbone.foreign.family import Family, Translated
from hra.backbone.foreign.options import Options
from hra.backbone.foreign.rules import Rule
from hra.config import BackboneConfig, ConformerConfig, FrontendConfig
from hra.dims import SAMPLE_RATE
from hra.features.frontend import PRESETS

_MODEL = MappingProxyType(
  {"vocab_size": 512, "pad_token_id": 0, "encoder_config": {}}
)
_ENCODER = MappingProxyType(
  {
    "hidden_size": 512,
    "num_hidden_layers": 17,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "hidden_act": "silu",
    "attention_bias": False,
    "convolution_bias": False,
    "conv_kernel_size": 32,
    "subsampling_conv_channels": 256,
    "subsampling_conv_kernel_size": 5,
    "subsampling_conv_stride": 2,
    "layer_norm_eps": 1e-6,
    "feed_forward_residual_weights": (1.5, 0.5),
    "conv_residual_weights": (2.0, 1.0),
    "rope_parameters": {},
  }
)
_ROPE = MappingProxyType({"rope_type": "default", "rope_theta": 10_000.0})
_EXTRACTOR = MappingProxyType(
  {
    "feature_size": 128,
    "sampling_rate": SAMPLE_RATE,
    "hop_length": 160,
    "n_fft": 512,
    "win_length": 400,
  }
)


def _translate(told: Mapping[str, Any], where: str) -> Translated:
  model = Options(told, _MODEL, where=where)
  where = f"{where}: encoder_config"
  encoder = Options(model["encoder_config"], _ENCODER, where=where)
  heads, width = encoder["num_attention_heads"], encoder["hidden_size"]
  encoder.only("subsampling_conv_stride", 2)
  encoder.absent_or("num_key_value_heads", heads)
  encoder.absent_or("head_dim", width // heads)
  rope = Options(
    encoder["rope_parameters"], _ROPE, where=f"{where}.rope_parameters"
  )
  rope.only("rope_type", "default")
  rope.only("rope_theta", 10_000)
  config = BackboneConfig(
    width=width,
    layers=encoder["num_hidden_layers"],
    heads=heads,
    feed_forward=encoder["intermediate_size"],
    kernel=encoder["conv_kernel_size"],
    position="rotary",
    conformer=ConformerConfig(
      norm_epsilon=encoder["layer_norm_eps"],
      norm_bias=False,
      projection_bias=encoder["attention_bias"],
      convolution_bias=encoder["convolution_bias"],
      convolution_norm="folded",
      activation=encoder.activation("hidden_act"),
      feed_forward_weights=encoder["feed_forward_residual_weights"],
      convolution_weights=encoder["conv_residual_weights"],
      final_norm=True,
    ),
    subsampling="dense_convolution",
    subsampling_channels=encoder["subsampling_conv_channels"],
    subsampling_kernel=encoder["subsampling_conv_kernel_size"],
    vocabulary=model["vocab_size"],
  )
  return Translated(config, model["pad_token_id"])


def _rules(translated: Translated) -> list[Rule]:
  theirs = "encoder.subsampler"
  return [
    *rules.linear("subsampling/input", f"{theirs}.dense_0"),
    *rules.convolution("subsampling/first", f"{theirs}.conv_0"),
    *rules.convolution("subsampling/second", f"{theirs}.conv_1"),
    *rules.linear("subsampling/output", f"{theirs}.dense_1"),
    *fast_conformer.layer_rules(translated.config),
    *rules.norm("norm", "encoder.out_norm"),
    *rules.labels("head", "ctc_head", order=translated.order, rank=3),
  ]


def _frontend(told: Mapping[str, Any], where: str) -> FrontendConfig:
  options = Options(told, _EXTRACTOR, where=where)
  options.only("sampling_rate", SAMPLE_RATE)
  return dataclasses.replace(
    PRESETS["lasr"],
    num_mels=options["feature_size"],
    hop_length=options["hop_length"],
    fft_length=options["n_fft"],
    frame_length=options["win_length"],
  )


LASR = Family(
  translate=_translate,
  rules=_rules,
  ignorable=fast_conformer.IGNORABLE,
  tokenizer="tokenizer.json",
  extractor="LasrFeatureExtractor",
  frontend=_frontend,
)
