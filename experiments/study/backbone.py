"""The study's backbone: twelve narrow layers, since HRA saves by depth.

    hra train --config=experiments/study/backbone.py --workdir=runs/study/backbone
    hra evaluate --workdir=runs/study/backbone

0.49M parameters, trained as experiments/tiny_backbone.py is and on its corpus: 40
typical voices; dev holds other sentences of them, test 8 voices that were never
heard.
"""

import dataclasses
import pathlib

from hra.commands import configs
from hra.config import Config

_TINY = configs.load_module(
  str(pathlib.Path(__file__).parents[1] / "tiny_backbone.py")
)


def get_config() -> Config:
  config: Config = _TINY.get_config()
  config.name = "study_backbone"
  config.backbone = dataclasses.replace(
    config.backbone, width=40, layers=12, feed_forward=160
  )
  return config
