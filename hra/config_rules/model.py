"""Rules of features, backbone, decoder, adapter and language model."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from hra.config import (
  AdapterConfig,
  BackboneConfig,
  ConformerConfig,
  DecoderConfig,
  FrontendConfig,
  LanguageModelConfig,
  SpaceConfig,
  SpecAugmentConfig,
  TransformerConfig,
)
from hra.config_rules.interface import Minima, Rule, Table, Told
from hra.dims import SAMPLE_RATE

FAMILY_FIELDS: dict[str, frozenset[str]] = {
  "hra": frozenset(
    {
      "width",
      "controller",
      "controllers",
      "head",
      "head_width",
      "heads",
      "stacks",
    }
  ),
  "residual": frozenset({"width", "norm", "stacks"}),
  "lora": frozenset({"width", "alpha", "sites", "stacks"}),
  "bitfit": frozenset({"stacks"}),
}
"""Fields of the adapter that a family uses; all others use none."""

_SPELLING = {"layers", "width", "embedding"}
_TRANSDUCER = {
  "prediction",
  "context",
  "joint",
  "joint_activation",
  "frame_labels",
  "most_labels",
  "chunk",
  *_SPELLING,
}
DECODER_FIELDS: dict[str, frozenset[str]] = {
  "rnnt": frozenset(_TRANSDUCER),
  "tdt": frozenset({"durations", "sigma", *_TRANSDUCER}),
  "las": frozenset(
    {"attention", "heads", "location", "label_smoothing", *_SPELLING}
  ),
  "transformer": frozenset(
    {
      "layers",
      "heads",
      "feed_forward",
      "places",
      "label_smoothing",
      "language",
      "task",
      "timestamps",
      "prompt",
      "suppressed",
      "suppressed_first",
      "texts",
      "first_time",
      "latest_first_time",
    }
  ),
}
"""Fields that a kind of decoder uses; CTC uses none."""

RUNS_OWN = frozenset(
  {"chunk", "label_smoothing", "sigma", "language", "task", "timestamps"}
)
"""Fields of a decoder that a run may say whatever the kind in its configuration,
where the backbone's folder says the kind."""


MINIMA: Minima = {
  AdapterConfig: {"width": 1, "head_width": 1, "alpha": 0},
  BackboneConfig: {
    "width": 4,
    "layers": 1,
    "heads": 1,
    "kernel": 1,
    "subsampling_channels": 1,
    "subsampling_kernel": 2,
    "subsampling_halvings": 0,
  },
  ConformerConfig: {"distance_left": 0, "distance_right": 0},
  DecoderConfig: {
    "context": 1,
    "layers": 1,
    "width": 1,
    "embedding": 1,
    "joint": 1,
    "sigma": 0,
    "frame_labels": 0,
    "most_labels": 1,
    "chunk": 1,
    "attention": 1,
    "heads": 1,
    "location": 0,
    "feed_forward": 1,
    "places": 2,
    "texts": 0,
    "first_time": 0,
    "latest_first_time": 0,
  },
  FrontendConfig: {
    "frame_length": 2,
    "hop_length": 1,
    "num_mels": 1,
    "pad_to": 0,
    "floor": 0,
    "stack": 1,
  },
  TransformerConfig: {"frames": 1},
  LanguageModelConfig: {
    "vocabulary": 0,
    "width": 1,
    "layers": 1,
    "embedding": 0,
    "heads": 1,
    "feed_forward": 1,
    "context": 2,
  },
  SpaceConfig: {"size": 1, "rank": 1},
  SpecAugmentConfig: {
    "freq_masks": 0,
    "freq_width": 0,
    "time_masks": 0,
    "time_width": 0,
    "warp": 0,
    "start": 0,
    "warmup": 0,
  },
}


def _adapter(config: AdapterConfig) -> Iterator[Rule]:
  return unused(config, "family", FAMILY_FIELDS)


def unused(
  config: Any, chooser: str, fields: Mapping[str, Collection[str]]
) -> Iterator[Rule]:
  """What the kind that `chooser` names has no use for stays at its default."""
  kind = getattr(config, chooser)
  for field in dataclasses.fields(config):
    users = [name for name, used in fields.items() if field.name in used]
    if field.name != chooser and kind not in users:
      yield Rule(
        field.name,
        getattr(config, field.name) == field.default,
        f"its default, {field.default!r}, with {chooser} {kind!r}",
        f"it belongs to {', '.join(map(repr, users))}",
      )


SUBSAMPLING_FIELDS: dict[str, frozenset[str]] = {
  "convolution": frozenset({"channels"}),
  "dense_convolution": frozenset({"channels", "kernel"}),
  "separable": frozenset({"channels", "kernel", "halvings"}),
  "projection": frozenset(),
  "half": frozenset(),
}
"""Fields `subsampling_...` that a kind of subsampling uses."""


def _backbone(config: BackboneConfig) -> Iterator[Told]:
  yield from _subsampling(config)
  if config.encoder == "conformer":
    yield from _conformer_of(config)
  elif config.encoder == "transformer":
    yield from _transformer_of(config)
  else:
    yield (
      "width",
      config.causal or config.width % 2 == 0,
      "an even number: half of it in either direction",
    )
  decoder = config.decoder
  yield (
    "decoder.heads",
    decoder.kind != "transformer" or config.width % decoder.heads == 0,
    f"a divisor of the width ({config.width})",
  )
  for field, users in _FIELDS_OF.items():
    default = getattr(BackboneConfig(), field)
    yield (
      field,
      config.encoder in users or getattr(config, field) == default,
      f"its default, {default!r}, with encoder {config.encoder!r}",
    )


_FIELDS_OF = {
  "heads": ("conformer", "transformer"),
  "feed_forward": ("conformer", "transformer"),
  "kernel": ("conformer",),
  "position": ("conformer",),
  "causal": ("conformer", "lstm"),
  "left_context": ("conformer",),
  "weights": ("conformer", "transformer"),
  "conformer": ("conformer",),
}
"""Fields of a backbone that not every encoder uses; `transformer` is also a
decoder's."""


def _transformer_of(config: BackboneConfig) -> Iterator[Told]:
  yield (
    "heads",
    config.width % config.heads == 0,
    f"a divisor of the width ({config.width})",
  )
  yield (
    "subsampling",
    config.subsampling == "half",
    "'half' with encoder 'transformer'",
  )


def _subsampling(config: BackboneConfig) -> Iterator[Told]:
  kind = config.subsampling
  halvings = "subsampling_halvings"
  for name in ("channels", "kernel"):
    field = f"subsampling_{name}"
    default = getattr(BackboneConfig(), field)
    yield (
      field,
      name in SUBSAMPLING_FIELDS[kind] or getattr(config, field) == default,
      f"its default, {default}, with subsampling {kind!r}",
    )
  if kind == "separable":
    yield halvings, config.subsampling_halvings >= 1, "at least 1"
  else:
    only = {"projection": 0, "half": 1}.get(kind, 2)
    yield (
      halvings,
      config.subsampling_halvings == only,
      f"{only} with subsampling {kind!r}",
    )
  yield (
    "causal",
    not config.causal or kind in ("convolution", "projection"),
    f"False with subsampling {kind!r}, which hears later frames",
  )


def _conformer_of(config: BackboneConfig) -> Iterator[Told]:
  parts, ours = config.conformer, ConformerConfig()
  yield (
    "heads",
    config.width % (2 * config.heads) == 0,
    f"a divisor of half the width ({config.width // 2})",
  )
  yield (
    "conformer.causal_convolution",
    not (config.causal and parts.causal_convolution),
    "False with causal, which implies it",
  )
  for field in ("distance_left", "distance_right"):
    default = getattr(ours, field)
    yield (
      f"conformer.{field}",
      config.position == "distance" or getattr(parts, field) == default,
      f"its default, {default}, with position {config.position!r}",
    )


def _conformer(config: ConformerConfig) -> Iterator[Told]:
  yield "norm_epsilon", config.norm_epsilon > 0, "more than 0"
  for field in ("feed_forward_weights", "convolution_weights"):
    yield (
      field,
      len(getattr(config, field)) == 2,
      "two numbers: of what enters the module and of what leaves it",
    )


def _decoder(config: DecoderConfig) -> Iterator[Told]:
  for rule in unused(config, "kind", DECODER_FIELDS):
    if rule.field not in RUNS_OWN:
      yield rule
  if config.kind in ("rnnt", "tdt"):
    stateless = config.prediction == "stateless"
    for field, belongs in (
      ("context", stateless),
      ("layers", not stateless),
      ("embedding", not stateless),
    ):
      default = getattr(DecoderConfig(), field)
      yield (
        field,
        belongs or getattr(config, field) == default,
        f"its default, {default}, with prediction {config.prediction!r}",
      )
  durations = config.durations
  yield (
    "durations",
    len(durations) == len(set(durations)) > 0
    and min(durations) >= 0
    and max(durations) > 0,
    "different numbers of frames, one of them at least 1",
  )
  if config.kind == "las":
    yield (
      "heads",
      config.attention % config.heads == 0,
      f"a divisor of the attention's width ({config.attention})",
    )
  yield (
    "prompt",
    0 < len(config.prompt) < config.places,
    f"labels that begin a sentence, fewer than its places ({config.places})",
  )
  yield (
    "label_smoothing",
    0 <= config.label_smoothing < 1,
    "at least 0 and less than 1",
  )


def _frontend(config: FrontendConfig) -> Iterator[Told]:
  yield (
    "fft_length",
    config.fft_length >= config.frame_length,
    f"at least frame_length ({config.frame_length})",
  )
  yield (
    "high_hz",
    0 <= config.low_hz < config.high_hz <= SAMPLE_RATE / 2,
    f"more than low_hz ({config.low_hz:g}), both in [0, {SAMPLE_RATE // 2}]",
  )


def _specaugment(config: SpecAugmentConfig) -> Iterator[Told]:
  parts = (
    "time_ratio",
    "time_multiplicity",
    "time_size",
    "time_budget",
    "probability",
  )
  for field in parts:
    yield field, 0 <= getattr(config, field) <= 1, "a part between 0 and 1"
  adaptive = config.time_size > 0
  yield (
    "freq_width",
    config.freq_masks == 0 or config.freq_width > 0,
    f"at least 1 with freq_masks {config.freq_masks}",
  )
  yield (
    "time_width",
    config.time_masks == 0 or config.time_width > 0 or adaptive,
    f"at least 1 with time_masks {config.time_masks} and no time_size",
  )
  yield (
    "time_width",
    config.time_width == 0 or not adaptive,
    f"0, because the width follows time_size ({config.time_size:g})",
  )
  yield (
    "time_ratio",
    config.time_ratio >= config.time_size,
    f"at least time_size ({config.time_size:g})",
  )
  yield (
    "time_masks",
    config.time_masks > 0 or not (adaptive or config.time_multiplicity > 0),
    "at least 1 with adaptive time masks (the cap of their number)",
  )


def _language_model(config: LanguageModelConfig) -> Iterator[Told]:
  yield (
    "heads",
    config.kind == "lstm" or config.width % (2 * config.heads) == 0,
    f"a divisor of half the width ({config.width // 2})",
  )


RULES: Table = {
  AdapterConfig: _adapter,
  BackboneConfig: _backbone,
  ConformerConfig: _conformer,
  DecoderConfig: _decoder,
  FrontendConfig: _frontend,
  LanguageModelConfig: _language_model,
  SpecAugmentConfig: _specaugment,
}
