"""Speakers whom Whisper misunderstands: an HRA head for each, in encoder and decoder.

With openai/whisper-small in the folder `whisper-small`, and a manifest of recordings of
30 s at most, one JSON object a line:

    {"audio_filepath": "ann/1.wav", "text": "What was said.", "speaker": "ann"}

    hra convert --source=whisper-small --out=backbones/whisper
    hra prepare --source=recordings.jsonl --out=data/mine \\
      --tokenizer=backbones/whisper
    hra train --config=experiments/whisper_hra.py --workdir=runs/whisper \\
      --config.data.path=data/mine
    hra evaluate --workdir=runs/whisper
    hra transcribe --workdir=runs/whisper --task=ann ann/*.wav

Another language than English is `--config.backbone.decoder.language=de`. Adapters on the
encoder or the decoder alone are `--config.adapter.stacks=encoder` or `=decoder`. Whisper
hears 30 s however short an utterance is, so that a batch costs as much with one word as
with many.

Fits a GPU of 24 GiB; with more memory, raise `data.tasks_per_batch`. Before any of it, of
a thousand speakers,

    hra plan --config=experiments/whisper_hra.py \\
      --backbone=openai/whisper-small --tasks=1000

says:

    exact                      numbers  bytes on a device
    frozen backbone        241,734,912          461.1 MiB
    shared by tasks            395,264            1.5 MiB
      its optimizer            790,529            3.0 MiB
    rows of all tasks      198,144,000          755.9 MiB
      their optimizers     396,289,000            1.5 GiB
    progress of tasks      198,152,001          755.9 MiB
    a batch                  5,763,564           22.0 MiB
    together                                      3.4 GiB
    estimate
    temporaries of a step                         3.8 GiB
    peak                                          7.2 GiB

    FLOPs of a step: 20.9 TFLOP, on each device 20.9 TFLOP
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
    name="whisper_hra",
    backbone_path="backbones/whisper",
    augment=SpecAugmentConfig(
      freq_masks=2, freq_width=15, time_masks=2, time_width=70, time_ratio=0.1
    ),
    backbone=BackboneConfig(
      dtype="bfloat16", param_dtype="bfloat16", remat="full"
    ),
    adapter=AdapterConfig(
      family="hra", stacks="both", width=128, head="linear", heads="both"
    ),
    data=DataConfig(
      tasks_per_batch=6,
      utterances_per_task=2,
      eval_batch=32,
      buckets=1,
      max_seconds=29.99,  # what lasts a little longer can't be heard whole
    ),
    train=TrainConfig(
      steps=600,
      eval_every=100,
      select="best",
      rows=OptimizerConfig(learning_rate=2e-3, warmup_steps=20),
      shared=OptimizerConfig(learning_rate=1e-3, warmup_steps=100),
    ),
  )
