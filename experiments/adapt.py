"""Your own recordings: every speaker of a manifest adapts the bundled backbone.

    hra prepare --source=recordings.jsonl --out=data/mine
    hra train --config=experiments/adapt.py --workdir=runs/mine \\
      --config.data.path=data/mine
    hra evaluate --workdir=runs/mine

`--config.backbone_path=FOLDER` takes another backbone.
"""

from hra.config import (
  AdapterConfig,
  Config,
  DataConfig,
  OptimizerConfig,
  SpecAugmentConfig,
  TrainConfig,
)


def get_config() -> Config:
  return Config(
    name="adapt",
    augment=SpecAugmentConfig(
      freq_masks=1, freq_width=5, time_masks=1, time_width=10, time_ratio=0.1
    ),
    adapter=AdapterConfig(family="hra", width=256, head="linear", heads="both"),
    data=DataConfig(
      tasks_per_batch=8,
      utterances_per_task=5,
      buckets=3,
      speed_low=0.9,
      speed_high=1.1,
    ),
    train=TrainConfig(
      steps=300,
      rows=OptimizerConfig(learning_rate=5e-3, warmup_steps=10),
      shared=OptimizerConfig(learning_rate=5e-3, warmup_steps=10),
    ),
  )
