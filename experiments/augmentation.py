"""What each augmentation is worth when speech is scarce, on clean and on noisy test speech.

    hra sweep --config=experiments/augmentation.py --workdir=runs/augmentation --jobs=2
    python benchmarks/augmentation.py --sweep=runs/augmentation

The arms of "SpecAugment on large scale datasets" (Park et al. 2019, arXiv 1912.05533)
on synthetic speech: 24 voices with 40 clean sentences each train a small CTC Conformer from
scratch, with three seeds (of voices, sentences, weights and draws). Test is 8 voices and
sentences that no training heard; the second command makes its noisy copies. WER, clean
and disturbed: none 14.1 and 74.7, fixed masks 9.1 and 42.3, adaptive ones 8.3 and 38.2, MTR
9.8 and 19.3, masks on MTR 13.1 and 19.3, the mix 7.8 and 23.0 (docs/augmentation.md).
"""

import pathlib

from hra.commands import configs
from hra.config import Config, MultistyleConfig, SpecAugmentConfig

SEEDS = 0, 1, 2
_TINY = configs.load_module(
  str(pathlib.Path(__file__).parent / "tiny_backbone.py")
)


def get_config() -> Config:
  """The mix; `sweep` has the other arms."""
  config: Config = _TINY.get_config()
  config.name = "augmentation"
  config.synthetic.speakers = 24
  config.synthetic.train_utterances = 40
  config.synthetic.snr_low, config.synthetic.snr_high = 30.0, 45.0
  config.data.utterances_per_task = 16
  config.data.speed_low = config.data.speed_high = 1.0
  # Published widths (LibriFullAdapt) of half as many mel bins.
  config.augment = SpecAugmentConfig(
    freq_masks=2,
    freq_width=14,
    time_masks=20,
    time_width=0,
    time_multiplicity=0.04,
    time_size=0.04,
  )
  config.data.multistyle = MultistyleConfig(
    part=0.2,
    mix="instead",
    noise="coloured",
    reverb="rooms",
    reverb_probability=0.5,
    snr_low=0.0,
    snr_high=30.0,
  )
  config.train.steps = 1500
  config.train.eval_every = 500
  return config


def sweep() -> dict[str, dict[str, object]]:
  """Each arm with each seed, named ARM-SEED."""
  raw = {
    "augment.freq_masks": 0,
    "augment.time_masks": 0,
    "augment.time_multiplicity": 0.0,
    "augment.time_size": 0.0,
    "augment.time_width": 100,
  }
  fixed = {
    "augment.time_masks": 2,
    "augment.time_multiplicity": 0.0,
    "augment.time_size": 0.0,
    "augment.time_width": 25,
    "augment.time_ratio": 0.15,
  }
  clean = {"data.multistyle.part": 0.0}
  noisy = {"data.multistyle.part": 1.0}
  arms: dict[str, dict[str, object]] = {
    "none": {**raw, **clean},
    "fixed": {**fixed, **clean},
    "adaptive": {**clean},
    "mtr": {**raw, **noisy},
    "both": {**noisy, "data.multistyle.mix": "both"},
    "mix": {},
  }
  return {
    f"{arm}-{seed}": {**fields, "seed": seed, "synthetic.seed": seed}
    for seed in SEEDS
    for arm, fields in arms.items()
  }
