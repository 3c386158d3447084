"""Question (b), second part: new speakers with 5, 10, 20 and 40 recordings each.

    hra sweep --config=experiments/study/newcomers.py --workdir=runs/study/newcomers

This sweep trains fresh residual rows; its data are those on which embeddings and
HRA heads are enrolled on the runs of training_speakers.py. A budget includes dev: a
fifth of it. The smaller budget's recordings are the first of the larger one's,
and all budgets have one test split.
"""

import pathlib
from typing import Any

from hra.commands import configs
from hra.config import Config

_MULTI_TASK = configs.load_module(
  str(pathlib.Path(__file__).with_name("multi_task.py"))
)
_BUDGETS = (5, 10, 20, 40)


def get_config() -> Config:
  config: Config = _MULTI_TASK.get_config()
  config.name = "study_newcomers"
  config.adapter.family = "residual"
  config.adapter.width = 8
  config.synthetic.speakers = 12
  config.train.steps = 60
  config.train.eval_every = 15
  return config


def sweep() -> dict[str, dict[str, Any]]:
  arms = {
    f"row-{budget}": {
      "synthetic.dev_utterances": budget // 5,
      "synthetic.train_utterances": budget - budget // 5,
    }
    for budget in _BUDGETS
  }
  return _MULTI_TASK.tuned(arms)
