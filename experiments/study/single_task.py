"""Question (e): (a) as a single task, atypical speech as one domain, one row for everybody.

    hra sweep --config=experiments/study/single_task.py \\
      --workdir=runs/study/single_task --split=dev

The speakers, recordings, tuning and arms of multi_task.py, fewer sizes: what is
asked here is how far one row goes for all.
"""

import pathlib
from typing import Any

from hra.commands import configs
from hra.config import Config

_MULTI_TASK = configs.load_module(
  str(pathlib.Path(__file__).with_name("multi_task.py"))
)
_ARMS = (
  *("hra-8", "hra-32"),
  *("residual-2", "residual-8"),
  *("lora-4", "bitfit", "full"),
)


def get_config() -> Config:
  config: Config = _MULTI_TASK.get_config()
  config.name = "study_single_task"
  config.data.grouping = "pooled"
  config.data.tasks_per_batch = 1
  config.data.utterances_per_task = 16
  config.train.steps = 160  # as many utterances as multi-task: 8 x 64 x 5
  return config


def sweep() -> dict[str, dict[str, Any]]:
  return _MULTI_TASK.tuned({name: _MULTI_TASK.ARMS[name] for name in _ARMS})
