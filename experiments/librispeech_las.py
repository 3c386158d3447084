"""LAS-6-1280 on LibriSpeech 960 h with adaptive masks, and shallow fusion.

    hra prepare --source=LibriSpeech --out=data/librispeech \\
      --tokenizer_kind=bpe --max_seconds=40
    hra train --config=experiments/librispeech_las.py --workdir=runs/las
    hra train --config=experiments/librispeech_lm.py --workdir=runs/lm
    hra evaluate --workdir=runs/las --beam=8 --language_model=runs/lm/lm \\
      --language_model_weight=0.35 --coverage=0.05 --json=runs/las/test_clean.json
    hra evaluate --workdir=runs/las --beam=8 --language_model=runs/lm/lm \\
      --language_model_weight=0.35 --coverage=0.05 --split=test_other \\
      --json=runs/las/test_other.json

LibriSpeech is the folder with train-clean-100 to test-other, as it is unpacked; a folder
with its archives will do, or tfds:librispeech. All train-* are the split train, dev-clean
is dev, by which the checkpoint is chosen, and test-clean is test; --split=dev_other is left
for tuning the search. Without beam and what follows it, the same without the language model.

Six bidirectional
LSTM layers of 1,280 cells a direction, two of 1,280 that spell, word pieces; policy
LibriFullAdapt; label smoothing 0.1, weight noise 0.075 from step 20,000; the rate rises
for 1,000 steps, is held until 140,000 and falls to a hundredth by 320,000 (Park et al.
2019, arXiv 1904.08779; adaptive masks: arXiv 1912.05533).

Published, test-clean / test-other: 2.6 / 6.0 without and 2.2 / 5.2 with the language
model. Not reached here yet: that takes accelerators for days. The same at a small size,
on synthetic speech: experiments/tiny_las.py.
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

CELLS = 1280


def get_config() -> Config:
  return Config(
    name="librispeech_las",
    features=PRESETS["default"],
    augment=specaugment.preset("LibriFullAdapt"),
    backbone=BackboneConfig(
      encoder="lstm",
      width=2 * CELLS,
      layers=6,
      subsampling_channels=512,
      dtype="bfloat16",
      decoder=DecoderConfig(
        kind="las",
        layers=2,
        width=CELLS,
        embedding=512,
        attention=CELLS,
        heads=4,
        label_smoothing=0.1,
      ),
    ),
    adapter=AdapterConfig(family="none"),
    data=DataConfig(
      path="data/librispeech",
      grouping="pooled",
      tasks_per_batch=1,
      utterances_per_task=512,
      max_seconds=40.0,
      buckets=8,
    ),
    train=TrainConfig(
      mode="pretrain",
      steps=320_000,
      log_every=100,
      eval_every=5_000,
      select="best",
      save_seconds=600.0,
      weight_noise=0.075,
      weight_noise_start=20_000,
      shared=OptimizerConfig(
        learning_rate=1e-3,
        schedule="exponential",
        warmup_steps=1_000,
        hold_steps=139_000,
      ),
    ),
  )
