"""Speech that Parakeet was not made for: one HRA head for each speaker.

With nvidia/parakeet-ctc-0.6b in the folder `parakeet-ctc-0.6b`, and a manifest of
recordings, one JSON object a line:

    {"audio_filepath": "ann/1.wav", "text": "what was said", "speaker": "ann"}

    hra convert --source=parakeet-ctc-0.6b --out=backbones/parakeet
    hra prepare --source=recordings.jsonl --out=data/mine \\
      --tokenizer=backbones/parakeet
    hra train --config=experiments/parakeet_hra.py --workdir=runs/parakeet \\
      --config.data.path=data/mine
    hra evaluate --workdir=runs/parakeet

Fits a GPU of 24 GiB; with more memory, raise `data.utterances_per_task`. Before any
of it, of a thousand speakers,

    hra plan --config=experiments/parakeet_hra.py \\
      --backbone=nvidia/parakeet-ctc-0.6b --tasks=1000

says:

    exact                      numbers  bytes on a device
    frozen backbone        608,750,593            1.1 GiB
    shared by tasks            263,424            1.0 MiB
      its optimizer            526,849            2.0 MiB
    rows of all tasks      132,096,000          503.9 MiB
      their optimizers     264,193,000         1007.8 MiB
    progress of tasks      132,104,001          503.9 MiB
    a batch                 30,744,448          117.3 MiB
    together                                      3.2 GiB
    estimate
    temporaries of a step                         4.1 GiB
    peak                                          7.3 GiB

    FLOPs of a step: 91.4 TFLOP, on each device 91.4 TFLOP
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
    name="parakeet_hra",
    backbone_path="backbones/parakeet",
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
