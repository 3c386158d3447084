"""What was heard in overlapping pieces of a recording -> what was said in all of it.

By frames, for decoders that know at which frame they say something: each moment of
the recording is heard in one piece alone, and seams lie where both pieces of an
overlap have least to say.
"""

import itertools
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
