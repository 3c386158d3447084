"""What was heard in overlapping pieces of a recording -> what was said in all of it.

By frames, for decoders that know at which frame they say something: each moment of
the recording is heard in one piece alone, and seams lie where both pieces of an
overlap have least to say. By labels, for those that don't: seams lie in the middle of
what both pieces say.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hra.decoders.interface import BLANK


class Said(NamedTuple):
  """In a piece, in order; blanks may be among it."""

  labels: np.ndarray
  frames: np.ndarray
  """Of the recording, never falling."""


class Overlap(NamedTuple):
  """Frames [start, stop) that a piece and the next one have in common."""

  start: int
  stop: int


def by_frames(said: Sequence[Said], overlaps: Sequence[Overlap]) -> list[int]:
  """What is said, blanks and all; where pieces agree, it is as if in one piece."""
  seams = [
    _seam(first, second, overlap)
    for (first, second), overlap in zip(
      itertools.pairwise(said), overlaps, strict=True
    )
  ]
  # The last two overlaps may have much in common: seams never go back.
  rising = np.maximum.accumulate([-np.inf, *seams, np.inf])
  kept: list[int] = []
  for each, (low, high) in zip(said, itertools.pairwise(rising), strict=True):
    own = (low <= each.frames) & (each.frames < high)
    kept += each.labels[own].tolist()
  return kept


def collapsed(path: Sequence[int]) -> list[int]:
  """CTC's labels of a path of frames: repeats merged, blanks dropped."""
  before = [BLANK, *path]
  return [
    label
    for label, last in zip(path, before, strict=False)
    if label not in (BLANK, last)
  ]


def _seam(first: Said, second: Said, overlap: Overlap) -> int:
  """The frame from which on the second piece is heard.

  In the middle half of the overlap, so that a quarter is left of it as context on
  either side; as far as can be from whatever either piece says; of equally good
  ones the middle, or the earlier one next to it.
  """
  margin = (overlap.stop - overlap.start) // 4
  low, high = overlap.start + margin, overlap.stop - margin
  places = np.arange(low, high + 1)
  frames = np.concatenate(
    [each.frames[each.labels != BLANK] for each in (first, second)]
  )
  # A seam lies before its frame: half a frame from that and from the one before.
  gaps = np.abs(places[:, None] - 0.5 - frames)
  quiet = gaps.min(axis=1, initial=len(places))
  off = np.abs(places - (low + high) / 2)
  return int(places[np.lexsort((off, -quiet))[0]])


def by_labels(
  said: Sequence[Sequence[int]], shared: Sequence[float]
) -> list[int]:
  """Neighbours meet in the middle of the longest run of labels that both say.

  It is sought at the end of one and at the beginning of the next. Without any common
  label both stay whole: nothing is lost, and the overlap may be said twice.

  Args:
    shared: part of each piece that it has in common with the next.
  """
  joined = list(said[0]) if said else []
  for (before, piece), part in zip(
    itertools.pairwise(said), shared, strict=True
  ):
    begun = max(len(joined) - _reach(len(before), part), 0)
    head = piece[: _reach(len(piece), part)]
    run = _common_run(joined[begun:], head)
    if run.size:
      middle = run.size // 2
      del joined[begun + run.first + middle :]
      piece = piece[run.second + middle :]
    joined += piece
  return joined


_SLACK = 2
"""Speech is not even: this many times the labels that evenly belong to an overlap."""


def _reach(labels: int, part: float) -> int:
  """Labels of a piece among which an overlap is sought."""
  return min(labels, math.ceil(_SLACK * part * labels))


class _Run(NamedTuple):
  """Labels that two pieces both say, one after the other."""

  first: int
  second: int
  """Where it begins in either."""
  size: int


def _common_run(first: Sequence[int], second: Sequence[int]) -> _Run:
  """The longest; of equally long ones the last in `first`, then the first in
  `second`, which leave least out."""
  best = _Run(0, 0, 0)
  ending = [0] * (len(second) + 1)  # runs that end at the last label of `first`
  for i, label in enumerate(first):
    before, ending = ending, [0] * (len(second) + 1)
    for j, other in enumerate(second):
      if label == other:
        size = ending[j + 1] = before[j] + 1
        run = _Run(i - size + 1, j - size + 1, size)
        best = max(best, run, key=lambda r: (r.size, r.first, -r.second))
  return best
