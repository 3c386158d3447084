"""One recogniser for many domains: masks on raw recordings, noise on every fifth.

    hra prepare --source=domains.jsonl --task_field=domain --out=data/domains \\
      --tokenizer_kind=bpe --max_seconds=40
    hra train --config=experiments/multidomain_mix.py --workdir=runs/domains
    hra evaluate --workdir=runs/domains --beam=8
    hra sweep --config=experiments/multidomain_mix.py --workdir=runs/mixes

A line of the manifest: {"audio_filepath": "calls/1.wav", "text": "what was said", "domain":
"telephone", "split": "train"}; what no line names of dev and test is held out of train by
sentence. The third command prints the WER of each domain. Rooms are simulated by the extra
`rooms`: pip install 'hra[rooms]'.

"SpecAugment on large scale datasets" (Park et al. 2019, arXiv 1912.05533): masks on raw
recordings, mixed about 8:2 with noise-perturbed ones, never both on one; noise fills the
masks of the transducer. Here they are adaptive, which gained on LibriSpeech there. The
sweep trains what that paper compares.

Whose domain needs another part of noise says so by --config.data.multistyle.parts, and
--config.data.task_shares gives each its share of the pool, whatever its hours. The paper's
error rates are on data that nobody else has; experiments/augmentation.py has these arms at
a small size, on synthetic speech.
"""

import pathlib

from hra.commands import configs
from hra.config import Config, MultistyleConfig

_RNNT = configs.load_module(
  str(pathlib.Path(__file__).parent / "librispeech_rnnt.py")
)


def get_config() -> Config:
  config: Config = _RNNT.get_config()
  config.name = "multidomain_mix"
  config.data.path = "data/domains"
  config.augment.time_masks = 20
  config.augment.time_multiplicity = 0.04
  config.augment.time_size = 0.04
  config.data.multistyle = MultistyleConfig(
    part=0.2, mix="instead", noise="coloured", reverb="rooms", snr_low=0.0
  )
  return config


def sweep() -> dict[str, dict[str, object]]:
  """Raw alone, masks alone, noise alone, masks on noise, and the mix."""
  raw = {"augment.freq_masks": 0, "augment.time_masks": 0} | {
    "augment.time_multiplicity": 0.0,
    "augment.time_size": 0.0,
    "augment.time_width": 100,
  }
  noisy = {"data.multistyle.part": 1.0}
  return {
    "none": {**raw, "data.multistyle.part": 0.0},
    "specaugment": {"data.multistyle.part": 0.0},
    "mtr": {**raw, **noisy},
    "both": {**noisy, "data.multistyle.mix": "both"},
    "mix": {},
  }
