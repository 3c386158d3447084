"""A small Listen, Attend and Spell: LSTMs on the corpus of experiments/tiny_backbone.py.

    hra train --config=experiments/tiny_las.py --workdir=runs/tiny_las
    hra evaluate --workdir=runs/tiny_las

Three bidirectional layers, attention that knows where it was, one LSTM that spells; ramp,
hold and decay of the learning rate, label smoothing and weight noise as in SpecAugment
(Park et al. 2019, arXiv 1904.08779), at a small size. 30 minutes on two shared cores: WER
0.15% on dev (voices that it heard, sentences that it did not) and 0.4% (95% interval
0.1-0.6; 2,166 words) on test, 8 voices and sentences that it never heard. Adapted as any
other backbone:

    hra train --config=experiments/quickstart.py --workdir=runs/las_speakers \\
      --config.backbone_path=runs/tiny_las/backbone

The quickstart's 16 speakers: 36.8% WER frozen, 14.4% (11.5-17.3) with HRA, greedily; with
beams and a language model docs/decoding.md.
"""

import pathlib

from hra.commands import configs
from hra.config import BackboneConfig, Config, DecoderConfig, OptimizerConfig

_TINY = configs.load_module(
  str(pathlib.Path(__file__).parent / "tiny_backbone.py")
)


def get_config() -> Config:
  config: Config = _TINY.get_config()
  config.name = "tiny_las"
  config.backbone = BackboneConfig(
    encoder="lstm",
    width=128,
    layers=3,
    subsampling_channels=64,
    decoder=DecoderConfig(
      kind="las",
      width=128,
      embedding=32,
      attention=64,
      location=8,
      label_smoothing=0.1,
    ),
  )
  config.train.steps = 2000
  config.train.eval_every = 500
  config.train.weight_noise = 0.01
  config.train.weight_noise_start = 1000
  config.train.shared = OptimizerConfig(
    learning_rate=3e-3,
    schedule="exponential",
    warmup_steps=100,
    hold_steps=900,
    weight_decay=1e-4,
  )
  return config
