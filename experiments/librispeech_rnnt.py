"""A Conformer transducer on LibriSpeech 960 h: Conformer (M) of Gulati et al. 2020.

    hra prepare --source=LibriSpeech --out=data/librispeech \\
      --tokenizer_kind=bpe --max_seconds=40
    hra train --config=experiments/librispeech_rnnt.py --workdir=runs/rnnt
    hra evaluate --workdir=runs/rnnt --beam=8 --json=runs/rnnt/test_clean.json
    hra evaluate --workdir=runs/rnnt --beam=8 --split=test_other \\
      --json=runs/rnnt/test_other.json

Data and splits are those of experiments/librispeech_las.py. 16 layers of width
256, one LSTM of 640 predicts (arXiv 2005.08100, table 1); masks of that paper (section
3.1), filled with noise, since frames that are all alike make gradients of norms explode
(arXiv 1912.05533).

Published, test-clean / test-other: 2.3 / 5.0 without a language model, with a feed-forward
of 4 x width, kernels of 32, BatchNorm, variational noise and a rate that falls with the
root of the step; here kernels of 31, LayerNorm and a cosine. Not reached here yet. The same
at a small size, on synthetic speech: experiments/tiny_rnnt.py.
"""

from hra.config import (
  AdapterConfig,
  BackboneConfig,
  Config,
  DataConfig,
  DecoderConfig,
  OptimizerConfig,
  TrainConfig,
)
from hra.features import specaugment
from hra.features.frontend import PRESETS

WIDTH = 256


def get_config() -> Config:
  augment = specaugment.preset("Conformer")
  augment.fill = "noise"
  return Config(
    name="librispeech_rnnt",
    features=PRESETS["default"],
    augment=augment,
    backbone=BackboneConfig(
      width=WIDTH,
      layers=16,
      heads=4,
      feed_forward=4 * WIDTH,
      kernel=31,
      position="relative",
      subsampling_channels=WIDTH,
      dtype="bfloat16",
      remat="dots",
      decoder=DecoderConfig(kind="rnnt", width=640, embedding=640, joint=640),
    ),
    adapter=AdapterConfig(family="none"),
    data=DataConfig(
      path="data/librispeech",
      grouping="pooled",
      tasks_per_batch=1,
      utterances_per_task=256,
      max_seconds=40.0,
      buckets=8,
    ),
    train=TrainConfig(
      mode="pretrain",
      steps=200_000,
      log_every=100,
      eval_every=5_000,
      select="best",
      save_seconds=600.0,
      shared=OptimizerConfig(
        learning_rate=2e-3,
        schedule="cosine",
        warmup_steps=10_000,
        weight_decay=1e-6,
        b2=0.98,
      ),
    ),
  )
