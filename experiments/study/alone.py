"""Question (c): Submodels of all speakers trained in one job, and one by one.

    hra sweep --config=experiments/study/alone.py --workdir=runs/study/alone

Residual adapters share nothing, so a speaker's Submodel should be the same to
rounding; what differs is the time. The 9 runs differ in who takes part, and so in the places of a batch;
`--config.train.rows.learning_rate` takes the rate tuned for residual-8.
"""

import pathlib
from typing import Any

from hra.commands import configs
from hra.config import Config
from hra.data.synthetic import corpus

_MULTI_TASK = configs.load_module(
  str(pathlib.Path(__file__).with_name("multi_task.py"))
)


def get_config() -> Config:
  config: Config = _MULTI_TASK.get_config()
  config.name = "study_alone"
  config.adapter.family = "residual"
  config.adapter.width = 8
  return config


def sweep() -> dict[str, dict[str, Any]]:
  alone = {
    name: {"data.tasks": (name,), "data.tasks_per_batch": 1}
    for name in corpus.cast(get_config().synthetic)
  }
  return {"joint": {"data.tasks": ()}, **alone}
