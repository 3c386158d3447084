"""Recordings of LibriSpeech's lengths -> what of their batches is padding.

Lengths are drawn from the quantiles that icefall's recipe publishes of LibriSpeech's
parts (egs/librispeech/ASR/local/display_manifest_statistics.py), linear between them;
those of training are of recordings at three speeds.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hra.data.batching import JointPlan, TaskStream, bucket_bounds
from hra.dims import SAMPLE_RATE

_PERCENT = (0, 0.1, 0.5, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100)
SECONDS = {
  "train-clean-100": (
    *(1.3, 1.9, 2.2, 2.5, 4.2, 6.4, 11.4, 13.8, 15.3, 16.7, 17.3, 18.1),
    *(18.4, 18.8, 27.2),
  ),
  "train-other-500": (
    *(0.8, 1.7, 2.1, 2.3, 3.5, 5.0, 9.8, 13.4, 15.1, 16.5, 17.2, 18.1),
    *(18.4, 18.9, 31.0),
  ),
  "test-clean": (
    *(1.3, 1.6, 1.8, 2.0, 2.3, 2.7, 3.7, 5.8, 9.6, 14.6, 17.8, 25.5),
    *(28.4, 32.8, 35.0),
  ),
}


class Padding(NamedTuple):
  """Of all batches of a job."""

  waste: float
  """Part of the samples that devices compute and nobody said: padding, and
  places that stay empty."""
  padding: float
  """Of places that are filled."""
  fill: float
  """Places that are filled."""
  shapes: int
  """That a step is compiled for."""
  steps: int


def drawn(part: str, count: int, rng: np.random.Generator) -> np.ndarray:
  """Lengths in samples."""
  seconds = np.interp(rng.uniform(0, 100, count), _PERCENT, SECONDS[part])
  return (seconds * SAMPLE_RATE).astype(np.int64)


def speakers(
  part: str, count: int, *, mean: float, rng: np.random.Generator
) -> list[np.ndarray]:
  """Lengths of each speaker, who has about `mean` recordings."""
  sizes = np.clip(rng.normal(mean, 0.15 * mean, count), 10, None).astype(int)
  return [drawn(part, size, rng) for size in sizes]


def measured(
  tasks: Sequence[np.ndarray],
  *,
  buckets: int,
  places: int,
  utterances: int,
  epochs: int,
) -> Padding:
  """Padding of a job, by the program's own bounds and plan."""
  bounds = bucket_bounds(np.concatenate(tasks), count=buckets)
  streams = [
    TaskStream(
      f"speaker-{number}",
      samples=samples,
      bounds=bounds,
      utterances_per_batch=utterances,
      seed=0,
    )
    for number, samples in enumerate(tasks)
  ]
  places = min(places, len(tasks))
  plan = JointPlan(
    streams,
    steps_per_task=[epochs * each.minibatches_per_epoch for each in streams],
    tasks_per_batch=places,
  )
  steps = [plan[position] for position in range(len(plan))]
  filled = sum(
    len(step.places) * utterances * bounds[step.bucket] for step in steps
  )
  computed = sum(places * utterances * bounds[step.bucket] for step in steps)
  said = epochs * sum(int(samples.sum()) for samples in tasks)
  return Padding(
    waste=1 - said / computed,
    padding=1 - said / filled,
    fill=plan.fill(),
    shapes=len({step.bucket for step in steps}),
    steps=len(steps),
  )
