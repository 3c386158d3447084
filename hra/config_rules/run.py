"""Rules of data, training, evaluation, and of the groups among one another."""

import math
from collections.abc import Iterator

from hra.config import (
  ChunksConfig,
  Config,
  DataConfig,
  EvalConfig,
  OptimizerConfig,
  SearchConfig,
  SentencesConfig,
  SyntheticConfig,
  TrainConfig,
)
from hra.config_rules import model
from hra.config_rules.interface import Minima, Table, Told
from hra.config_rules.sound import snr

MINIMA: Minima = {
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
    "stall_seconds": 0,
    "profile_steps": 1,
  },
  Config: {"seed": 0},
  SentencesConfig: {"sentences_per_batch": 1, "buckets": 1, "max_labels": 1},
  ChunksConfig: {"seconds": 0, "overlap": 0, "batch": 1},
  SearchConfig: {"beam": 0, "language_model_weight": 0},
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
}


def _config(config: Config) -> Iterator[Told]:
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
  yield (
    "backbone.weights",
    config.backbone.weights == "float"
    or (config.train.mode == "adapt" and family != "full"),
    "'float' where the backbone trains",
  )
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
    if config.train.start == "random":
      decoder, fields = config.backbone.decoder, model.DECODER_FIELDS
      for rule in model.unused(decoder, "kind", fields):
        yield rule._replace(field=f"backbone.decoder.{rule.field}")


def _data(config: DataConfig) -> Iterator[Told]:
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


_SEVERITIES = {"training": (0.0, 1.0), "held_out": (0.35, 1.0)}
"""Of pools of combinations of habits."""


def _optimizer(config: OptimizerConfig) -> Iterator[Told]:
  for field in ("b1", "b2"):
    yield field, 0 <= getattr(config, field) < 1, "at least 0 and less than 1"


def _synthetic(config: SyntheticConfig) -> Iterator[Told]:
  yield snr(config)
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


def _train(config: TrainConfig) -> Iterator[Told]:
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
  yield (
    "rows_from",
    config.mode == "adapt" or not config.rows_from,
    "nothing where tasks own no rows (train.mode 'adapt' has them)",
  )
  if config.mode == "pretrain":
    for field in ("eval_every", "keep_best"):
      yield (
        field,
        config.select == "last" or getattr(config, field) > 0,
        f"at least 1 with select {config.select!r} when pretraining",
      )


def _chunks(config: ChunksConfig) -> Iterator[Told]:
  most = config.seconds / 2
  yield (
    "overlap",
    not config.seconds or config.overlap <= most,
    f"half of the piece at most ({most:g} s)",
  )


def _search(config: SearchConfig) -> Iterator[Told]:
  for field in (
    "language_model",
    "length_bonus",
    "length_normalization",
    "coverage",
  ):
    yield (
      field,
      config.beam > 0 or not getattr(config, field),
      "nothing with beam 0, which is greedy search",
    )


def _evaluate(config: EvalConfig) -> Iterator[Told]:
  yield "confidence", 0 < config.confidence < 1, "a number between 0 and 1"


RULES: Table = {
  ChunksConfig: _chunks,
  Config: _config,
  DataConfig: _data,
  EvalConfig: _evaluate,
  OptimizerConfig: _optimizer,
  SearchConfig: _search,
  SyntheticConfig: _synthetic,
  TrainConfig: _train,
}
