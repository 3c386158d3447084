"""w2v-BERT 2.0 with CTC: `Wav2Vec2BertForCTC` of transformers."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hra.backbone.foreign import rules
from hra.backbone.foreign.family import Family, Translated
from hra.backbone.foreign.options import Options
from hra.backbone.foreign.rules import Rule
from hra.config import BackboneConfig, ConformerConfig, FrontendConfig
from hra.dims import SAMPLE_RATE
from hra.features.frontend import PRESETS
from hra.nn.attention import Position

_MODEL = MappingProxyType(
  {
    "vocab_size": 0,
    "pad_token_id": 0,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "hidden_act": "swish",
    "layer_norm_eps": 1e-5,
    "add_adapter": False,
    "use_intermediate_ffn_before_adapter": False,
    "position_embeddings_type": "relative_key",
    "left_max_position_embeddings": 64,
    "right_max_position_embeddings": 8,
    "conv_depthwise_kernel_size": 31,
  }
)
_EXTRACTOR = MappingProxyType(
  {"num_mel_bins": 80, "sampling_rate": SAMPLE_RATE, "stride": 2}
)
_POSITIONS: dict[str, Position] = {
  "relative_key": "distance",
  "relative": "relative",
}
_NORMS = {
  "first_norm": "ffn1_layer_norm",
  "attention_norm": "self_attn_layer_norm",
  "convolution_norm": "conv_module.layer_norm",
  "convolution/norm": "conv_module.depthwise_layer_norm",
  "second_norm": "ffn2_layer_norm",
  "output_norm": "final_layer_norm",
}
_PROJECTIONS = {
  "first/up": "ffn1.intermediate_dense",
  "first/down": "ffn1.output_dense",
  "attention/query": "self_attn.linear_q",
  "attention/key": "self_attn.linear_k",
  "attention/value": "self_attn.linear_v",
  "attention/output": "self_attn.linear_out",
  "attention/relative": "self_attn.linear_pos",
  "second/up": "ffn2.intermediate_dense",
  "second/down": "ffn2.output_dense",
}
_PARAMETERS = {
  "attention/distance": "self_attn.distance_embedding.weight",
  "attention/content_bias": "self_attn.pos_bias_u",
  "attention/position_bias": "self_attn.pos_bias_v",
}


def _translate(told: Mapping[str, Any], where: str) -> Translated:
  options = Options(told, _MODEL, where=where)
  options.only("add_adapter", False)
  options.only("use_intermediate_ffn_before_adapter", False)
  options.only("position_embeddings_type", *_POSITIONS)
  position = _POSITIONS[options["position_embeddings_type"]]
  parts = ConformerConfig(
    norm_epsilon=options["layer_norm_eps"],
    convolution_bias=False,
    causal_convolution=True,
    activation=options.activation("hidden_act"),
  )
  if position == "distance":
    parts.distance_left = options["left_max_position_embeddings"]
    parts.distance_right = options["right_max_position_embeddings"]
  config = BackboneConfig(
    width=options["hidden_size"],
    layers=options["num_hidden_layers"],
    heads=options["num_attention_heads"],
    feed_forward=options["intermediate_size"],
    kernel=options["conv_depthwise_kernel_size"],
    position=position,
    conformer=parts,
    subsampling="projection",
    subsampling_halvings=0,
    vocabulary=options["vocab_size"],
  )
  return Translated(config, options["pad_token_id"])


def _rules(translated: Translated) -> list[Rule]:
  ours, theirs = "layers", "wav2vec2_bert.encoder.layers.{l}"
  found: list[Rule] = []
  for kind, names in ((rules.norm, _NORMS), (rules.linear, _PROJECTIONS)):
    for our, their in names.items():
      found += kind(f"{ours}/{our}", f"{theirs}.{their}")
  for our, their in _PARAMETERS.items():
    found.append(rules.same(f"{ours}/{our}", f"{theirs}.{their}"))
  convolution, module = f"{ours}/convolution", f"{theirs}.conv_module"
  projection = "wav2vec2_bert.feature_projection"
  return [
    *rules.norm("subsampling/norm", f"{projection}.layer_norm"),
    *rules.linear("subsampling/output", f"{projection}.projection"),
    *found,
    *rules.pointwise(f"{convolution}/gate", f"{module}.pointwise_conv1"),
    *rules.depthwise(f"{convolution}/depthwise", f"{module}.depthwise_conv"),
    *rules.pointwise(f"{convolution}/output", f"{module}.pointwise_conv2"),
    *rules.labels("head", "lm_head", order=translated.order, rank=2),
  ]


def _frontend(told: Mapping[str, Any], where: str) -> FrontendConfig:
  options = Options(told, _EXTRACTOR, where=where)
  options.only("sampling_rate", SAMPLE_RATE)
  return dataclasses.replace(
    PRESETS["kaldi"],
    num_mels=options["num_mel_bins"],
    stack=options["stride"],
  )


W2V_BERT = Family(
  translate=_translate,
  rules=_rules,
  ignorable=("wav2vec2_bert.masked_spec_embed",),
  tokenizer="vocab.json",
  extractor="SeamlessM4TFeatureExtractor",
  frontend=_frontend,
)
