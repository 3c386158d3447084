"""Question (a), multi-task: every adapter at several sizes, all speakers in one job.

    hra sweep --config=experiments/study/multi_task.py \\
      --workdir=runs/study/multi_task --split=dev

The sweep is the tuning: each arm with some learning rates on the speakers of seed 0, of
which the one of the lowest dev WER counts, then runs with seeds 1 and 2
(`--config.seed` and `--config.synthetic.seed`). The study tries the outermost rates
where the best of the others stands beside them. The frozen backbone is in every run's
results.
"""

import pathlib
from typing import Any

from hra.config import (
  BackboneConfig,
  Config,
  DataConfig,
  OptimizerConfig,
  SpecAugmentConfig,
  SyntheticConfig,
  TrainConfig,
)

RATES = {
  "lowest": 1.28e-3,
  "low": 3.2e-3,
  "middle": 8e-3,
  "high": 2e-2,
  "highest": 5e-2,
}
_FULL = 0.1
"""Factor of the rates where every weight moves."""
_EMBEDDING = 10.0
"""Factor of the rows' rates where they are embeddings: those begin with variance 1."""

ARMS: dict[str, dict[str, Any]] = {
  **{
    f"hra-{width}": {"adapter.family": "hra", "adapter.width": width}
    for width in (4, 8, 16, 32, 64)
  },
  **{
    f"hra_both-{width}": {
      "adapter.family": "hra",
      "adapter.width": width,
      "adapter.heads": "both",
    }
    for width in (8, 32)
  },
  **{
    f"hra_layers-{width}": {
      "adapter.family": "hra",
      "adapter.width": width,
      "adapter.controllers": "per_layer",
    }
    for width in (8, 16)
  },
  **{
    f"residual-{width}": {"adapter.family": "residual", "adapter.width": width}
    for width in (1, 2, 4, 8, 16)
  },
  **{
    f"residual_both-{width}": {
      "adapter.family": "residual",
      "adapter.width": width,
      "space.kind": "offset",
    }
    for width in (4,)
  },
  **{
    f"lora-{width}": {
      "adapter.family": "lora",
      "adapter.width": width,
      "adapter.sites": ("attention.query", "attention.value"),
    }
    for width in (1, 4)
  },
  "bitfit": {"adapter.family": "bitfit"},
  "full": {"adapter.family": "full"},
  "shared-only": {
    "adapter.family": "hra",
    "adapter.width": 64,
    "adapter.heads": "shared",
  },
}
"""Arm -> what it changes."""


def get_config() -> Config:
  return Config(
    name="study_multi_task",
    backbone_path=str(pathlib.Path(__file__).with_name("conformer12x40")),
    augment=SpecAugmentConfig(
      freq_masks=1, freq_width=5, time_masks=1, time_width=10, time_ratio=0.1
    ),
    backbone=BackboneConfig(remat="dots"),
    synthetic=SyntheticConfig(
      speakers=8,
      severity=0.6,
      severity_spread=0.2,
      combinations="held_out",
      train_utterances=60,
      dev_utterances=10,
      test_utterances=20,
    ),
    data=DataConfig(
      source="synthetic",
      tasks_per_batch=4,
      utterances_per_task=5,
      # Named, so that a speaker has the same minibatches alone and in the job.
      bucket_seconds=(3.2, 7.0),
      speed_low=0.9,
      speed_high=1.1,
    ),
    train=TrainConfig(
      steps=64,
      # To the end, as the rows; then the last of them, since a row could be chosen
      # by dev only once what is shared is frozen.
      shared_part=1.0,
      log_every=50,
      rows=OptimizerConfig(learning_rate=RATES["middle"], warmup_steps=8),
      shared=OptimizerConfig(learning_rate=RATES["middle"], warmup_steps=8),
    ),
  )


def tuned(arms: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
  """Each arm at each of the learning rates, by `ARM-RATE`."""
  runs = {}
  for arm, changes in arms.items():
    whole = _FULL if changes.get("adapter.family") == "full" else 1.0
    rows = _EMBEDDING if changes.get("space.kind") == "embedding" else whole
    for label, rate in RATES.items():
      runs[f"{arm}-{label}"] = {
        **changes,
        "train.rows.learning_rate": rate * rows,
        "train.shared.learning_rate": rate * whole,
      }
  return runs


def sweep() -> dict[str, dict[str, Any]]:
  return tuned(ARMS)
