"""Whisper (Radford et al. 2022): `WhisperForConditionalGeneration` of transformers.

What its searches may not say stands in generation_config.json, or in the config.json of
older checkpoints.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hra.backbone.foreign import rules
from hra.backbone.foreign.family import Family, Translated
from hra.backbone.foreign.options import Options
from hra.backbone.foreign.rules import Rule
from hra.backbone.foreign.source import Source
from hra.config import (
  BackboneConfig,
  DecoderConfig,
  FrontendConfig,
  TransformerConfig,
)
from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.features.frontend import PRESETS

GENERATION_FILE = "generation_config.json"

_MODEL = MappingProxyType(
  {
    "vocab_size": 51865,
    "num_mel_bins": 80,
    "d_model": 384,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_layers": 4,
    "decoder_attention_heads": 6,
    "decoder_ffn_dim": 1536,
    "max_source_positions": 1500,
    "max_target_positions": 448,
    "activation_function": "gelu",
    "decoder_start_token_id": 50257,
    "eos_token_id": 50256,
    "tie_word_embeddings": True,
  }
)
_GENERATION = MappingProxyType(
  {
    "suppress_tokens": (),
    "begin_suppress_tokens": (),
    "no_timestamps_token_id": 0,
    "max_initial_timestamp_index": 0,
  }
)
_EXTRACTOR = MappingProxyType(
  {
    "feature_size": 80,
    "sampling_rate": SAMPLE_RATE,
    "hop_length": 160,
    "chunk_length": 30,
    "n_fft": 400,
    "dither": 0.0,
    "padding_value": 0.0,
  }
)
_SEVERAL_LANGUAGES = 51865
"""Labels of a model that knows several languages, at least, where it isn't said."""
_BRANCHES = (
  ("attention", "self_attn", "self_attn_layer_norm"),
  ("cross_attention", "encoder_attn", "encoder_attn_layer_norm"),
)


def _translate(told: Mapping[str, Any], where: str) -> Translated:
  options = Options(told, _MODEL, where=where)
  options.only(
    "tie_word_embeddings", True, why="labels have one embedding, in and out"
  )
  config = BackboneConfig(
    encoder="transformer",
    width=options["d_model"],
    layers=options["encoder_layers"],
    heads=options["encoder_attention_heads"],
    feed_forward=options["encoder_ffn_dim"],
    transformer=TransformerConfig(
      activation=options.activation("activation_function"),
      frames=options["max_source_positions"],
    ),
    subsampling="half",
    subsampling_halvings=1,
    vocabulary=options["vocab_size"],
    decoder=DecoderConfig(
      kind="transformer",
      layers=options["decoder_layers"],
      heads=options["decoder_attention_heads"],
      feed_forward=options["decoder_ffn_dim"],
      places=options["max_target_positions"],
    ),
  )
  translated = Translated(
    config, options["eos_token_id"], "eos_token_id", "eos_token"
  )
  start = options["decoder_start_token_id"]
  config.decoder.prompt = (translated.label(start),)
  return translated


def _searched(translated: Translated, source: Source) -> Translated:
  """With its language, English first, and what its searches may not say."""
  file = GENERATION_FILE if source.has(GENERATION_FILE) else "config.json"
  given = {k: v for k, v in source.json(file).items() if v is not None}
  config = translated.config
  several = config.vocabulary >= _SEVERAL_LANGUAGES
  defaults = {**_GENERATION, "is_multilingual": several}
  options = Options(given, defaults, where=str(source.folder / file))

  def labels(field: str) -> tuple[int, ...]:
    ids = options[field]
    for id in ids:
      if type(id) is not int or not 0 <= id < config.vocabulary:
        raise InputError(
          f"{source.folder / file}: {field}",
          expected=f"ids of the vocabulary's {config.vocabulary} labels",
          got=repr(id),
        )
    return tuple(sorted(map(translated.label, ids)))

  without_times = options["no_timestamps_token_id"]
  config.decoder.language = "en" if options["is_multilingual"] else ""
  config.decoder.suppressed = labels("suppress_tokens")
  config.decoder.suppressed_first = labels("begin_suppress_tokens")
  if without_times:
    config.decoder.texts = translated.blank
    config.decoder.first_time = translated.label(without_times) + 1
    config.decoder.latest_first_time = options["max_initial_timestamp_index"]
  return translated


def _rules(translated: Translated) -> list[Rule]:
  encoder, decoder = "model.encoder", "model.decoder"
  return [
    *rules.convolution("subsampling/first", f"{encoder}.conv1"),
    *rules.convolution("subsampling/second", f"{encoder}.conv2"),
    rules.same("positions", f"{encoder}.embed_positions.weight"),
    *_layers("layers", f"{encoder}.layers.{{l}}", crosses=False),
    *rules.norm("norm", f"{encoder}.layer_norm"),
    rules.rows(
      "head/labels/embedding",
      f"{decoder}.embed_tokens.weight",
      order=translated.order,
    ),
    rules.same("head/places/embedding", f"{decoder}.embed_positions.weight"),
    *_layers("head/layers", f"{decoder}.layers.{{l}}", crosses=True),
    *rules.norm("head/norm", f"{decoder}.layer_norm"),
  ]


def _layers(ours: str, theirs: str, *, crosses: bool) -> list[Rule]:
  found = [
    *rules.norm(f"{ours}/feed_forward_norm", f"{theirs}.final_layer_norm"),
    *rules.linear(f"{ours}/feed_forward/up", f"{theirs}.fc1"),
    *rules.linear(f"{ours}/feed_forward/down", f"{theirs}.fc2"),
  ]
  for branch, module, norm in _BRANCHES[: 1 + crosses]:
    found += rules.norm(f"{ours}/{branch}_norm", f"{theirs}.{norm}")
    for name, projection in (
      ("query", "q_proj"),
      ("key", "k_proj"),
      ("value", "v_proj"),
      ("output", "out_proj"),
    ):
      found += rules.linear(
        f"{ours}/{branch}/{name}", f"{theirs}.{module}.{projection}"
      )
  return found


def _frontend(told: Mapping[str, Any], where: str) -> FrontendConfig:
  options = Options(told, _EXTRACTOR, where=where)
  options.only("sampling_rate", SAMPLE_RATE)
  options.only("dither", 0.0)
  options.only("padding_value", 0.0)
  return dataclasses.replace(
    PRESETS["whisper80"],
    num_mels=options["feature_size"],
    hop_length=options["hop_length"],
    fft_length=options["n_fft"],
    frame_length=options["n_fft"],
    pad_to=options["chunk_length"] * SAMPLE_RATE,
  )


WHISPER = Family(
  translate=_translate,
  rules=_rules,
  ignorable=("proj_out.weight",),  # the embedding of labels once more
  tokenizer="tokenizer.json",
  extractor="WhisperFeatureExtractor",
  frontend=_frontend,
  searched=_searched,
)
