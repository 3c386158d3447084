"""Arms of the study whose word errors are made up, for its figures and its page."""

import numpy as np
import study_figures as figures
import study_statistics as statistics
from study_arms import Arm

from hra.config import EvalConfig

CONFIG = EvalConfig(bootstrap=200)
SPEAKERS, UTTERANCES, WORDS = 12, 6, 10


def scores(wer, *, spread=0):
  """About `wer` of all words wrong; `spread` more or fewer in an utterance."""
  rng = np.random.default_rng(0)
  noise = rng.integers(-spread, spread + 1, SPEAKERS * UTTERANCES)
  names = [f"{i % 2}/s{i:02d}" for i in range(SPEAKERS)]
  return statistics.scores(
    np.repeat(names, UTTERANCES),
    utterances=[f"u{i}" for i in range(UTTERANCES)] * SPEAKERS,
    errors=np.clip(round(wer * WORDS) + noise, 0, WORDS),
    words=np.full(SPEAKERS * UTTERANCES, WORDS),
  )


def heard(
  experiment, name, wer, *, parameters=100, shared=0, label="low", spread=0
):
  arm = scores(wer, spread=spread)
  rates = {
    label: {"train.rows.learning_rate": rate}
    for label, rate in (("low", 0.1), ("middle", 0.2), ("high", 0.4))
  }
  speakers = sorted(set(arm.speakers))
  return figures.Heard(
    arm=Arm(experiment, name, rates),
    label=label,
    scores=arm,
    frozen=scores(0.8),
    served=arm,
    seeds={speaker: speaker[0] for speaker in speakers},
    severity={speaker: i for i, speaker in enumerate(speakers)},
    parameters={"backbone": 1, "shared": shared, "per_task": parameters},
    cpu_seconds=10.0,
  )


def arms(experiment, sizes):
  """(experiment, name) -> arm, of {name: (parameters, wer)}."""
  return {
    (experiment, name): heard(experiment, name, wer, parameters=parameters)
    for name, (parameters, wer) in sizes.items()
  }


RESIDUAL = {
  "residual-1": (1000, 0.6),
  "residual-8": (8000, 0.4),
  "residual-32": (32000, 0.4),
}
