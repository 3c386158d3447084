"""The main job at laptop size: many atypical speakers adapt one frozen backbone.

    hra quickstart --workdir=runs/quickstart

Speakers with systematic, conflicting habits of speech, each with a few minutes of
recordings, share one recurrent controller; each owns one small head. The frozen
backbone is the bundled one, which heard typical voices only.
"""

from hra.config import (
  AdapterConfig,
  BackboneConfig,
  Config,
  DataConfig,
  OptimizerConfig,
  SpecAugmentConfig,
  SyntheticConfig,
  TrainConfig,
)


def get_config() -> Config:
  return Config(
    name="quickstart",
    backbone_path="tiny",
    augment=SpecAugmentConfig(
      freq_masks=1, freq_width=5, time_masks=1, time_width=10, time_ratio=0.1
    ),
    backbone=BackboneConfig(remat="full"),
    adapter=AdapterConfig(family="hra", width=256, head="linear", heads="both"),
    synthetic=SyntheticConfig(
      population="atypical",
      speakers=16,
      severity=0.5,
      train_utterances=120,
      dev_utterances=10,
      test_utterances=20,
    ),
    data=DataConfig(
      source="synthetic",
      tasks_per_batch=8,
      utterances_per_task=5,
      buckets=3,
      speed_low=0.87,
      speed_high=1.15,
    ),
    train=TrainConfig(
      mode="adapt",
      steps=260,
      log_every=50,
      rows=OptimizerConfig(learning_rate=5e-3, warmup_steps=10),
      shared=OptimizerConfig(learning_rate=5e-3, warmup_steps=10),
    ),
  )
