"""The bundled backbone: a 0.3M-parameter Conformer on synthetic typical speech.

    hra train --config=experiments/tiny_backbone.py --workdir=runs/tiny_backbone
    hra evaluate --workdir=runs/tiny_backbone

40 voices x 400 sentences; dev: the same voices, other sentences; test: 8 voices
that were never heard, other sentences again. The folder `backbone` of such a run is
what `hra/backbone/bundled/tiny` holds (BUILD.md).
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
from hra.features.frontend import PRESETS


def get_config() -> Config:
  return Config(
    name="tiny_backbone",
    features=PRESETS["tiny"],
    augment=SpecAugmentConfig(
      freq_masks=2,
      freq_width=6,
      time_masks=2,
      time_width=25,
      time_ratio=0.15,
    ),
    backbone=BackboneConfig(
      width=64,
      layers=3,
      heads=4,
      feed_forward=256,
      kernel=15,
      subsampling_channels=64,
    ),
    adapter=AdapterConfig(family="none"),
    synthetic=SyntheticConfig(
      population="typical",
      speakers=40,
      train_utterances=400,
      dev_utterances=10,
      test_utterances=40,
      unseen_speakers=8,
    ),
    data=DataConfig(
      source="synthetic",
      grouping="pooled",
      tasks_per_batch=1,
      utterances_per_task=32,
      buckets=2,
      speed_low=0.9,
      speed_high=1.1,
    ),
    train=TrainConfig(
      mode="pretrain",
      steps=4000,
      log_every=100,
      eval_every=1000,
      shared=OptimizerConfig(
        learning_rate=3e-3,
        schedule="cosine",
        warmup_steps=200,
        weight_decay=1e-3,
        clip_norm=1.0,
      ),
    ),
  )
