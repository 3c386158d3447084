"""Question (d): what the recurrence over depth is worth.

    hra sweep --config=experiments/study/recurrence.py \\
      --workdir=runs/study/recurrence --split=dev

Variants of multi_task.py's hra-32, with its speakers and tuning. All but the
feed-forward head cost a speaker the same 1,320 numbers; what is shared differs.
"""

import pathlib
from typing import Any

from hra.commands import configs
from hra.config import Config

_MULTI_TASK = configs.load_module(
  str(pathlib.Path(__file__).with_name("multi_task.py"))
)
_ARMS = {
  "gru": {"adapter.controller": "gru"},
  "no-recurrence": {"adapter.controller": "none"},
  "per-layer": {"adapter.controllers": "per_layer"},
  "feed-forward-head": {
    "adapter.head": "feed_forward",
    "adapter.head_width": 16,
  },
}


def get_config() -> Config:
  config: Config = _MULTI_TASK.get_config()
  config.name = "study_recurrence"
  config.adapter.family = "hra"
  config.adapter.width = 32
  return config


def sweep() -> dict[str, dict[str, Any]]:
  return _MULTI_TASK.tuned(_ARMS)
