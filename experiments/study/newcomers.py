"""Question (b), second part: new speakers with 5, 10, 20 and 40 recordings each.

    hra sweep --config=experiments/study/newcomers.py \\
      --workdir=runs/study/newcomers --split=dev

This sweep trains fresh residual rows; its data are those on which embeddings, warm
rows (which begin as the mean of the embedding run's) and HRA heads are enrolled on the
runs of training_speakers.py (`enrolments`), and on which those runs are heard without
training (`controls`). A budget includes dev: a fifth of it. The smaller budget's
recordings are the first of the larger one's, and all budgets have one test split.
Learning rates are chosen at one budget: of five recordings one is dev, which can't tell
them apart.
"""

import pathlib
from typing import Any

from hra.commands import configs
from hra.config import Config

_HERE = pathlib.Path(__file__)
_MULTI_TASK = configs.load_module(str(_HERE.with_name("multi_task.py")))
_TRAINING = configs.load_module(str(_HERE.with_name("training_speakers.py")))
_BUDGETS = (5, 10, 20, 40)

ENROLLED = {"head": "hra", "embedding": "embedding", "warm_row": "embedding"}
"""What is fitted of a newcomer -> the arm of training_speakers.py it stands on."""
_CONTROLLED = ("head", "embedding")
TUNED_AT = 20
"""The budget at which a method's learning rate is chosen for all."""


def get_config() -> Config:
  config: Config = _MULTI_TASK.get_config()
  config.name = "study_newcomers"
  config.adapter.family = "residual"
  config.adapter.width = 8
  config.train.steps = 40
  config.train.rows.warmup_steps = 4
  config.train.eval_every = 5
  config.train.select = "best"  # few recordings: all methods stop by dev
  config.train.shared_part = 0.0  # so that all of it counts, as in enrolments
  return config


def _recordings(budget: int) -> dict[str, Any]:
  return {
    "synthetic.dev_utterances": budget // 5,
    "synthetic.train_utterances": budget - budget // 5,
  }


def _fitted(method: str) -> dict[str, Any]:
  fields: dict[str, Any] = dict(_TRAINING.ARMS[ENROLLED[method]])
  return fields | ({"space.kind": "table"} if method == "warm_row" else {})


def sweep() -> dict[str, dict[str, Any]]:
  return _MULTI_TASK.tuned(
    {f"row-{budget}": _recordings(budget) for budget in _BUDGETS}
  )


def enrolments() -> dict[str, dict[str, Any]]:
  """What `hra enroll` fits, from the mean of the training speakers on."""
  return _MULTI_TASK.tuned(
    {
      f"{method}-{budget}": {**_fitted(method), **_recordings(budget)}
      for method in ENROLLED
      for budget in _BUDGETS
    }
  )


def controls() -> dict[str, dict[str, Any]]:
  """What a newcomer can get without training; a rate of 0 leaves the start."""
  still = {
    "train.steps": 1,
    "train.eval_every": 1,
    "train.rows.warmup_steps": 0,
    "train.rows.learning_rate": 0.0,
  }
  least = _recordings(min(_BUDGETS))
  return {
    "shared-only": {**_TRAINING.ARMS["shared-only"], **least},
    "mean-embedding": {**_TRAINING.ARMS["embedding"], **least, **still},
    **{
      f"nearest-{method}-{budget}": {
        **_fitted(method),
        **_recordings(budget),
        **still,
      }
      for method in _CONTROLLED
      for budget in _BUDGETS
    },
  }
