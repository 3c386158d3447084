"""Question (b), first part: what 200 speakers share, for speakers to come.

    hra sweep --config=experiments/study/training_speakers.py \\
      --workdir=runs/study/training_speakers --split=dev

`embedding` learns the space in which newcomers get an embedding, `hra` the
controller that their heads stand on, `shared-only` is the control that knows no
speaker. No newcomer's combination of habits stands among these speakers, and no
sentence of theirs in a newcomer's test. Tuned as multi_task.py.
"""

import pathlib
from typing import Any

from hra.commands import configs
from hra.config import Config

_MULTI_TASK = configs.load_module(
  str(pathlib.Path(__file__).with_name("multi_task.py"))
)
ARMS = {
  "embedding": {
    "adapter.family": "residual",
    "adapter.width": 8,
    "space.kind": "embedding",
    "space.size": 16,
    "space.rank": 8,
  },
  "hra": {"adapter.family": "hra", "adapter.width": 32},
  "shared-only": _MULTI_TASK.ARMS["shared-only"],
}


def get_config() -> Config:
  config: Config = _MULTI_TASK.get_config()
  config.name = "study_training_speakers"
  config.synthetic.combinations = "training"
  config.synthetic.speakers = 200
  config.synthetic.train_utterances = 40
  config.synthetic.dev_utterances = 5
  config.synthetic.test_utterances = 1
  config.data.bucket_seconds = ()  # cut from these speakers' recordings
  config.train.steps = 24
  config.train.rows.warmup_steps = 4
  return config


def sweep() -> dict[str, dict[str, Any]]:
  return _MULTI_TASK.tuned(ARMS)
