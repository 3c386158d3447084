"""Question (b), first part: what 200 speakers share, for speakers to come.

    hra sweep --config=experiments/study/training_speakers.py \\
      --workdir=runs/study/training_speakers

`embedding` learns the space in which newcomers get an embedding, `hra` the
controller that their heads stand on, `shared-only` is the control that knows no
speaker. `small` and `large` have other generators, `varied` twice as many and more
unlike speakers for as many recordings and joint steps; `offset` learns the row that
all share and newcomers differ from, to which `decay` draws them back. No
newcomer's combination of habits stands among these speakers, and no sentence of
theirs in a newcomer's test. Tuned as multi_task.py.
"""

import pathlib
from typing import Any

from hra.commands import configs
from hra.config import Config

_MULTI_TASK = configs.load_module(
  str(pathlib.Path(__file__).with_name("multi_task.py"))
)
_ROWS = {"adapter.family": "residual", "adapter.width": 8}
_OFFSET = {**_ROWS, "space.kind": "offset"}


def _embedding(*, size: int = 16, rank: int = 8) -> dict[str, Any]:
  generator = {"space.size": size, "space.rank": rank}
  return {**_ROWS, "space.kind": "embedding", **generator}


ARMS = {
  "embedding": _embedding(),
  "hra": {"adapter.family": "hra", "adapter.width": 32},
  "shared-only": _MULTI_TASK.ARMS["shared-only"],
  "embedding_small": _embedding(size=4, rank=4),
  "embedding_large": _embedding(size=64, rank=32),
  "embedding_varied": {
    **_embedding(),
    "synthetic.speakers": 400,
    "synthetic.train_utterances": 20,
    "synthetic.severity_spread": 0.4,
    "train.steps": 8,
  },
  "offset": _OFFSET,
  "offset_decay": {**_OFFSET, "train.rows.weight_decay": 5.0},
}


def get_config() -> Config:
  config: Config = _MULTI_TASK.get_config()
  config.name = "study_training_speakers"
  config.synthetic.combinations = "training"
  config.synthetic.speakers = 200
  config.synthetic.train_utterances = 40
  config.synthetic.dev_utterances = 5
  config.synthetic.test_utterances = 1
  config.train.steps = 16
  return config


def sweep() -> dict[str, dict[str, Any]]:
  return _MULTI_TASK.tuned(ARMS)
