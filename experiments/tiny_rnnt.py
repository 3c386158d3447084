"""A small transducer: the encoder of experiments/tiny_backbone.py, on its corpus.

    hra train --config=experiments/tiny_rnnt.py --workdir=runs/tiny_rnnt
    hra evaluate --workdir=runs/tiny_rnnt

An LSTM predicts from the labels so far; the joint hears it and the encoder
(Graves 2012). 27 minutes on two shared cores: WER 0.04% on dev (voices that it heard,
sentences that it did not) and 0.4% (95% interval 0.0-0.9; 2,166 words) on test, 8 voices and
sentences that it never heard. The folder `backbone` of the run is adapted as any other:

    hra train --config=experiments/quickstart.py --workdir=runs/rnnt_speakers \\
      --config.backbone_path=runs/tiny_rnnt/backbone

The quickstart's 16 speakers: 54.1% WER frozen, 18.1% (15.4-20.8) with HRA, greedily; with
beams and a language model docs/decoding.md.
"""

import pathlib

from hra.commands import configs
from hra.config import Config, DecoderConfig

_TINY = configs.load_module(
  str(pathlib.Path(__file__).parent / "tiny_backbone.py")
)


def get_config() -> Config:
  config: Config = _TINY.get_config()
  config.name = "tiny_rnnt"
  config.backbone.decoder = DecoderConfig(
    kind="rnnt", width=96, embedding=32, joint=96
  )
  # Masked frames that are all alike make gradients of norms explode (Park et al.
  # 2019, "SpecAugment on large scale datasets").
  config.augment.fill = "noise"
  config.train.steps = 2000
  config.train.eval_every = 500
  return config
