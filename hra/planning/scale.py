"""How much a run trains at a time: tasks, and the largest batch, in numbers."""

import math
from typing import NamedTuple

from hra.config import Config
from hra.data.batching import bucket_bounds
from hra.data.dataset import open_split
from hra.data.examples import LABEL_MULTIPLE
from hra.data.loader import check_divides, divide
from hra.dims import SAMPLE_RATE
from hra.features.frontend import num_frames
from hra.nn.subsampling import subsampled
from hra.planning.outlines import Outline


class Scale(NamedTuple):
  """Sizes of a run and of its largest batch."""

  tasks: int
  """Rows of the table."""
  places: int
  """Tasks of a batch."""
  utterances: int
  """Of each place."""
  samples: int
  """Of the longest bucket."""
  labels: int
  """Of a transcript, at most."""


def of_config(
  config: Config,
  outline: Outline,
  *,
  batch_parts: int,
  tasks: int | None = None,
  seconds: float | None = None,
) -> Scale:
  """What the data say, where they are there; else what the configuration does.

  Args:
    batch_parts: how many devices divide a batch.
    tasks: how many there are, in place of the data's.
    seconds: end of the longest bucket, in place of the data's.

  Raises:
    InputError: the data can't be opened; devices don't divide the batch.
  """
  known, samples = _of_data(config)
  tasks = tasks or known or config.data.tasks_per_batch
  if config.data.grouping == "pooled":
    tasks = 1
  if seconds or not samples:
    ends = config.data.bucket_seconds or (config.data.max_seconds,)
    samples = round((seconds or ends[-1]) * SAMPLE_RATE)
  places, _ = divide(config.data, tasks=tasks, processes=1, devices=batch_parts)
  scale = Scale(
    tasks=tasks,
    places=places,
    utterances=config.data.utterances_per_task,
    samples=samples,
    labels=_labels(config, outline, samples),
  )
  size = (scale.places, scale.utterances)
  check_divides(size, axis=split_axis(scale), devices=batch_parts)
  return scale


def split_axis(scale: Scale) -> int:
  """The axis that devices divide: one task's utterances, or tasks."""
  return 1 if scale.tasks == 1 else 0


def _of_data(config: Config) -> tuple[int, int]:
  """(tasks, samples of the longest bucket); 0 is unknown."""
  data = config.data
  if data.source == "synthetic":
    return config.synthetic.speakers, 0
  if not data.path:
    return 0, 0
  split = open_split(data.path, data.train_split)
  chosen = set(split.tasks).intersection(data.tasks or split.tasks)
  if data.bucket_seconds:
    return len(chosen.difference(data.without)), 0
  longest = bucket_bounds(split.samples, count=data.buckets)[-1]
  return len(chosen.difference(data.without)), longest


def _labels(config: Config, outline: Outline, samples: int) -> int:
  """The most that `prepare.labels_per_second` allows, and frames or places do."""
  frames = subsampled(num_frames(samples, outline.frontend), outline.config)
  most = math.ceil(config.prepare.labels_per_second * samples / SAMPLE_RATE)
  decoder = outline.config.decoder
  if decoder.kind == "transformer":
    places = decoder.places - len(decoder.prompt)
    most = min(most or places, places)
  elif decoder.kind == "ctc" or not most:
    most = min(most or frames, frames)
  return -(-max(most, 1) // LABEL_MULTIPLE) * LABEL_MULTIPLE
