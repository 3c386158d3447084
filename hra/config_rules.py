"""What fields of the configuration say of one another, as a table of rules.

Enters: one node of the tree of `hra.config`. Leaves: each of its rules, and
whether it holds; `hra.config_tree.validate` asks for all of them.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from hra.config import (
  AdapterConfig,
  BackboneConfig,
  Config,
  DataConfig,
  DecoderConfig,
  EvalConfig,
  FrontendConfig,
  OptimizerConfig,
  SpaceConfig,
  SpecAugmentConfig,
  SyntheticConfig,
  TrainConfig,
)
from hra.config_language import LanguageModelConfig, SentencesConfig
from hra.config_sound import (
  WALL,
  MultistyleConfig,
  RoomsConfig,
  most_distant,
)
from hra.dims import SAMPLE_RATE

FAMILY_FIELDS: dict[str, frozenset[str]] = {
  "hra": frozenset(
    {"width", "controller", "controllers", "head", "head_width", "heads"}
  ),
  "residual": frozenset({"width", "norm"}),
  "lora": frozenset({"width", "alpha", "sites"}),
}
"""Fields of the adapter that a family uses; all others use none."""

_SPELLING = {"layers", "width", "embedding"}
DECODER_FIELDS: dict[str, frozenset[str]] = {
  "rnnt": frozenset({"prediction", "context", "joint", "chunk", *_SPELLING}),
  "las": frozenset(
    {"attention", "heads", "location", "label_smoothing", *_SPELLING}
  ),
}
"""Fields that a kind of decoder uses; CTC uses none."""


class Rule(NamedTuple):
  """What has to be true of a field."""

  field: str
  """Its path from the node, such as `space.kind`."""
  holds: bool
  expected: str
  fix: str = ""


def rules(config: Any) -> Iterator[Rule]:
  """The rules of one node of the tree; those of its groups are their own."""
  own = _RULES.get(type(config), lambda _: ())
  for each in itertools.chain(_minima(config), own(config)):
    yield Rule(*each)


_Told = tuple[str, bool, str] | Rule

_AT_LEAST: dict[type, dict[str, float]] = {
  BackboneConfig: {"width": 4, "layers": 1, "heads": 1, "kernel": 1},
  AdapterConfig: {"width": 1, "head_width": 1, "alpha": 0},
  DecoderConfig: {
    "context": 1,
    "layers": 1,
    "width": 1,
    "embedding": 1,
    "joint": 1,
    "chunk": 1,
    "attention": 1,
    "heads": 1,
    "location": 0,
  },
  SpaceConfig: {"size": 1, "rank": 1},
  OptimizerConfig: {
    "learning_rate": 0,
    "warmup_steps": 0,
    "hold_steps": 0,
    "weight_decay": 0,
    "clip_norm": 0,
  },
  DataConfig: {
    "tasks_per_batch": 1,
    "utterances_per_task": 1,
    "eval_batch": 1,
    "buckets": 1,
    "max_task_utterances": 0,
    "max_task_seconds": 0,
    "reference_utterances": 1,
    "speed_low": 0.5,
    "prefetch": 0,
    "threads": 1,
  },
  MultistyleConfig: {"noises": 1, "snr_deviation": 0.1},
  RoomsConfig: {"count": 1, "rt60_low": 0.05, "distance_low": 0.1, "seed": 0},
  TrainConfig: {
    "steps": 0,
    "log_every": 1,
    "eval_every": 0,
    "patience": 0,
    "max_bad_steps": 1,
    "save_seconds": 0,
    "keep": 1,
    "keep_best": 0,
    "weight_noise": 0,
    "weight_noise_start": 0,
  },
  Config: {"seed": 0},
  LanguageModelConfig: {
    "vocabulary": 0,
    "width": 1,
    "layers": 1,
    "embedding": 0,
    "heads": 1,
    "feed_forward": 1,
    "context": 2,
  },
  SentencesConfig: {"sentences_per_batch": 1, "buckets": 1, "max_labels": 1},
  EvalConfig: {"bootstrap": 100, "seed": 0, "guard_words": 1},
  SyntheticConfig: {
    "speakers": 1,
    "train_utterances": 1,
    "dev_utterances": 1,
    "test_utterances": 1,
    "unseen_speakers": 1,
    "severity": 0,
    "severity_spread": 0,
    "seed": 0,
  },
  FrontendConfig: {
    "frame_length": 2,
    "hop_length": 1,
    "num_mels": 1,
    "pad_to": 0,
    "floor": 0,
    "stack": 1,
  },
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


def _minima(config: Any) -> Iterator[_Told]:
  for field, low in _AT_LEAST.get(type(config), {}).items():
    yield field, getattr(config, field) >= low, f"at least {low:g}"


def _config(config: Config) -> Iterator[_Told]:
  family = config.adapter.family
  shared = family == "hra" and config.adapter.heads == "shared"
  owned = "a whole backbone" if family == "full" else "nothing"
  yield (
    "space.kind",
    config.space.kind == "table" or not (family in ("full", "none") or shared),
    f"'table' for an adapter whose tasks own {owned}",
  )
  if config.train.mode == "language_model":
    patience = config.train.patience
    yield "train.patience", not patience, "0 for a language model"
  if config.train.mode == "pretrain":
    # Of what trains, the backbone alone is exported.
    why = "with train.mode 'pretrain'"
    yield "adapter.family", family == "none", f"'none' {why}"
    grouping = config.data.grouping
    yield "data.grouping", grouping == "pooled", f"'pooled' {why}"
    # Steps of a usual learning rate are too small for bfloat16 to take.
    kept = config.backbone.param_dtype
    yield (
      "backbone.param_dtype",
      kept != "bfloat16",
      f"'float32' {why} (backbone.dtype='bfloat16' computes in that)",
    )


def _adapter(config: AdapterConfig) -> Iterator[Rule]:
  return _unused(config, "family", FAMILY_FIELDS)


def _unused(
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


def _backbone(config: BackboneConfig) -> Iterator[_Told]:
  if config.encoder == "conformer":
    yield (
      "heads",
      config.width % (2 * config.heads) == 0,
      f"a divisor of half the width ({config.width // 2})",
    )
    return
  yield (
    "width",
    config.causal or config.width % 2 == 0,
    "an even number: half of it in either direction",
  )
  for field in dataclasses.fields(config):
    if field.name in _OF_CONFORMERS:
      yield (
        field.name,
        getattr(config, field.name) == field.default,
        f"its default, {field.default!r}, with encoder {config.encoder!r}",
      )


_OF_CONFORMERS = ("heads", "feed_forward", "kernel", "position", "left_context")


def _decoder(config: DecoderConfig) -> Iterator[_Told]:
  yield from _unused(config, "kind", DECODER_FIELDS)
  if config.kind == "rnnt":
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
  yield (
    "heads",
    config.attention % config.heads == 0,
    f"a divisor of the attention's width ({config.attention})",
  )
  yield (
    "label_smoothing",
    0 <= config.label_smoothing < 1,
    "at least 0 and less than 1",
  )


def _data(config: DataConfig) -> Iterator[_Told]:
  yield (
    "speed_low",
    config.speed_low <= config.speed_high,
    f"at most speed_high ({config.speed_high:g})",
  )
  yield (
    "temperature",
    config.temperature == 0 or config.temperature >= 1,
    "0 (none), or 1 and more",
  )
  yield "balance", 0 <= config.balance <= 1, "a number between 0 and 1"
  pooled = config.grouping == "pooled"
  instead = "with data.grouping 'pooled' (data.temperature balances a pool)"
  yield "task_weights", not (pooled and config.task_weights), f"none {instead}"
  yield "balance", not (pooled and config.balance), f"0 {instead}"
  shares = config.task_shares
  yield (
    "task_shares",
    pooled or not shares,
    "none with data.grouping 'task' (data.temperature and train.task_settings set "
    "own steps)",
  )
  yield (
    "temperature",
    config.temperature == 0 or not shares,
    "0 with task_shares, which say the shares themselves",
  )


def _multistyle(config: MultistyleConfig) -> Iterator[_Told]:
  for field in ("part", "reverb_probability"):
    yield field, 0 <= getattr(config, field) <= 1, "a part between 0 and 1"
  yield _snr(config)
  yield (
    "snr_mean",
    config.snr != "gaussian"
    or config.snr_low <= config.snr_mean <= config.snr_high,
    f"between snr_low ({config.snr_low:g}) and snr_high ({config.snr_high:g})",
  )
  for field, user, needed in (
    ("noise_files", "noise", config.noise in ("files", "either")),
    ("responses", "reverb", config.reverb == "files"),
  ):
    yield (
      field,
      bool(getattr(config, field)) == needed,
      f"{'a folder or a manifest' if needed else 'nothing'} with {user} "
      f"{getattr(config, user)!r}",
    )
  yield (
    "reverb_probability",
    config.reverb_probability == 1 or config.noise != "none",
    "1 with noise 'none' (part says how many utterances are in a room)",
  )
  yield (
    "parts",
    config.active or not config.parts,
    "nothing without noise and reverb",
  )


_SABINE = 0.1611
"""24 ln 10 / (343 m/s)."""


def _rooms(config: RoomsConfig) -> Iterator[_Told]:
  low, high = config.size_low, config.size_high
  for field in ("size_low", "size_high"):
    size = getattr(config, field)
    yield (
      field,
      len(size) == 3 and min(size) >= 3 * WALL,
      f"three lengths of at least {3 * WALL:g} m",
    )
  yield (
    "size_low",
    all(a <= b for a, b in zip(low, high, strict=True)),
    f"at most size_high ({', '.join(f'{edge:g}' for edge in high)})",
  )
  for name in ("rt60", "distance"):
    first, last = (getattr(config, f"{name}_{end}") for end in ("low", "high"))
    yield f"{name}_low", first <= last, f"at most {name}_high ({last:g})"
  # Walls that take in all sound: no room of that size is quieter.
  volume, (x, y, z) = math.prod(high), high
  shortest = _SABINE * volume / (2 * (x * y + y * z + x * z))
  yield (
    "rt60_low",
    config.rt60_low > shortest,
    f"more than the {shortest:.2f} s that the largest room has at least",
  )
  farthest = most_distant(low)
  yield (
    "distance_low",
    config.distance_low <= farthest,
    f"at most the {farthest:.2f} m that fit in the smallest room",
  )


_SEVERITIES = {"training": (0.0, 1.0), "held_out": (0.35, 1.0)}
"""Of pools of combinations of habits."""


def _snr(config: MultistyleConfig | SyntheticConfig) -> _Told:
  return (
    "snr_low",
    config.snr_low <= config.snr_high,
    f"at most snr_high ({config.snr_high:g})",
  )


def _optimizer(config: OptimizerConfig) -> Iterator[_Told]:
  for field in ("b1", "b2"):
    yield field, 0 <= getattr(config, field) < 1, "at least 0 and less than 1"


def _synthetic(config: SyntheticConfig) -> Iterator[_Told]:
  yield _snr(config)
  yield (
    "severity_spread",
    config.severity_spread <= config.severity,
    f"at most severity ({config.severity:g})",
  )
  # A held-out speaker needs two habits; with more than seven, some sets of
  # habits have no combination that a training speaker may have.
  lowest, highest = _SEVERITIES.get(config.combinations, (0.0, math.inf))
  yield (
    "severity",
    lowest <= config.severity - config.severity_spread
    and config.severity + config.severity_spread <= highest,
    f"what keeps every speaker's between {lowest:g} and {highest:g} with "
    f"combinations {config.combinations!r} and severity_spread "
    f"{config.severity_spread:g}",
  )


def _train(config: TrainConfig) -> Iterator[_Told]:
  yield "shared_part", 0 <= config.shared_part <= 1, "a part between 0 and 1"
  yield (
    "select",
    config.select == "best" or not config.patience,
    f"'best' with patience {config.patience}",
  )
  yield (
    "start",
    config.mode == "pretrain" or config.start == "random",
    "'random' where the backbone is frozen (train.mode 'adapt')",
  )
  yield (
    "weight_noise",
    config.mode == "pretrain" or config.weight_noise == 0,
    "0 where the backbone is frozen (train.mode 'adapt')",
  )
  if config.mode == "pretrain":
    for field in ("eval_every", "keep_best"):
      yield (
        field,
        config.select == "last" or getattr(config, field) > 0,
        f"at least 1 with select {config.select!r} when pretraining",
      )


def _evaluate(config: EvalConfig) -> Iterator[_Told]:
  yield "confidence", 0 < config.confidence < 1, "a number between 0 and 1"


def _frontend(config: FrontendConfig) -> Iterator[_Told]:
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


def _specaugment(config: SpecAugmentConfig) -> Iterator[_Told]:
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


def _language_model(config: LanguageModelConfig) -> Iterator[_Told]:
  yield (
    "heads",
    config.kind == "lstm" or config.width % (2 * config.heads) == 0,
    f"a divisor of half the width ({config.width // 2})",
  )


_RULES: dict[type, Callable[[Any], Iterable[_Told]]] = {
  AdapterConfig: _adapter,
  BackboneConfig: _backbone,
  Config: _config,
  DataConfig: _data,
  DecoderConfig: _decoder,
  EvalConfig: _evaluate,
  FrontendConfig: _frontend,
  LanguageModelConfig: _language_model,
  MultistyleConfig: _multistyle,
  OptimizerConfig: _optimizer,
  RoomsConfig: _rooms,
  SpecAugmentConfig: _specaugment,
  SyntheticConfig: _synthetic,
  TrainConfig: _train,
}
