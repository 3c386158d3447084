"""Speech that MedASR was not made for: one HRA head for each speaker.

With google/medasr in the folder `medasr`, and a manifest of
recordings, one JSON object a line:

    {"audio_filepath": "ann/1.wav", "text": "what was said", "speaker": "ann"}

    hra convert --source=medasr --out=backbones/medasr
    hra prepare --source=recordings.jsonl --out=data/mine \\
      --tokenizer=backbones/medasr
    hra train --config=experiments/medasr_hra.py --workdir=runs/medasr \\
      --config.data.path=data/mine
    hra evaluate --workdir=runs/medasr

Fits a GPU of 24 GiB; with more memory, raise `data.utterances_per_task`. Before any
of it, of a thousand speakers,

    hra plan --config=experiments/medasr_hra.py \\
      --backbone=google/medasr --tasks=1000

says:

    exact                      numbers  bytes on a device
    frozen backbone        105,256,704          200.8 MiB
    shared by tasks            131,840          515.0 KiB
      its optimizer            263,681            1.0 MiB
    rows of all tasks       66,048,000          252.0 MiB
      their optimizers     132,097,000          503.9 MiB
    progress of tasks       66,056,001          252.0 MiB
    a batch                 30,768,512          117.4 MiB
    together                                      1.3 GiB
    estimate
    temporaries of a step                         5.0 GiB
    peak                                          6.3 GiB

    FLOPs of a step: 36 TFLOP, on each device 36 TFLOP
"""

from hra.config import (
  AdapterConfig,
  BackboneConfig,
  Config,
  DataConfig,
  OptimizerConfig,
  SpecAugmentConfig,
  TrainConfig,
)


def get_config() -> Config:
  return Config(
    name="medasr_hra",
    backbone_path="backbones/medasr",
    augment=SpecAugmentConfig(
      freq_masks=2, freq_width=27, time_masks=5, time_width=100, time_ratio=0.05
    ),
    backbone=BackboneConfig(
      dtype="bfloat16", param_dtype="bfloat16", remat="full"
    ),
    adapter=AdapterConfig(family="hra", width=128, head="linear", heads="both"),
    data=DataConfig(
      tasks_per_batch=16,
      utterances_per_task=4,
      eval_batch=32,
      buckets=4,
      max_seconds=30.0,
      speed_low=0.9,
      speed_high=1.1,
    ),
    train=TrainConfig(
      steps=600,
      eval_every=100,
      select="best",
      rows=OptimizerConfig(learning_rate=2e-3, warmup_steps=20),
      shared=OptimizerConfig(learning_rate=1e-3, warmup_steps=100),
    ),
  )
