"""What was heard in overlapping pieces of a recording -> what was said in all of it.

By frames, for decoders that know at which frame they say something: each moment of
the recording is heard in one piece alone, and seams lie where both pieces of an
overlap have least to say. By labels, for those that don't: seams lie in the middle of
what both pieces say.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
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


def by_frames(said: Sequence[Said], overlaps: Sequence[Overlap]) -> Said:
  """What is said, blanks and all; where pieces agree, it is as if in one piece."""
  parts = settled_by_frames(said, overlaps)
  return Said(*map(np.concatenate, zip(*parts, strict=True)))


def settled_by_frames(
  said: Iterable[Said], overlaps: Sequence[Overlap]
) -> Iterator[Said]:
  """`by_frames` piece by piece: what each makes certain that was not before.

  That is the rest of the piece before it, up to their seam, and its own up to where
  the next seam may lie at the earliest.

  Args:
    overlaps: of each piece but the last with the next one.
  """
  before, told, seam = None, -math.inf, -math.inf
  for place, each in enumerate(said):
    parts = []
    if before is not None:
      # The last two overlaps may have much in common: seams never go back.
      seam = max(seam, _seam(before, each, overlaps[place - 1]))
      parts.append(_between(before, told, seam))
    told = math.inf
    if place < len(overlaps):
      told = max(seam, _places(overlaps[place])[0])
    parts.append(_between(each, seam, told))
    yield Said(*map(np.concatenate, zip(*parts, strict=True)))
    before = each


def _between(said: Said, low: float, high: float) -> Said:
  own = (low <= said.frames) & (said.frames < high)
  return Said(said.labels[own], said.frames[own])


def collapsed(path: Sequence[int], *, after: int = BLANK) -> list[int]:
  """CTC's labels of a path of frames: repeats merged, blanks dropped.

  Args:
    after: what stands before it.
  """
  before = [after, *path]
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
  low, high = _places(overlap)
  places = np.arange(low, high + 1)
  frames = np.concatenate(
    [each.frames[each.labels != BLANK] for each in (first, second)]
  )
  # A seam lies before its frame: half a frame from that and from the one before.
  gaps = np.abs(places[:, None] - 0.5 - frames)
  quiet = gaps.min(axis=1, initial=len(places))
  off = np.abs(places - (low + high) / 2)
  return int(places[np.lexsort((off, -quiet))[0]])


def _places(overlap: Overlap) -> tuple[int, int]:
  """The first and the last place of a seam."""
  margin = (overlap.stop - overlap.start) // 4
  return overlap.start + margin, overlap.stop - margin


def by_labels(
  said: Sequence[Sequence[int]], shared: Sequence[float]
) -> list[int]:
  """What pieces say, each label of it once (`kept`)."""
  return [*itertools.chain.from_iterable(settled_by_labels(said, shared))]


def settled_by_labels(
  said: Iterable[Sequence[int]], shared: Sequence[float]
) -> Iterator[list[int]]:
  """`by_labels` piece by piece: what each makes certain that was not before."""
  before: Sequence[int] = ()
  for piece, rest, own in _aligned(said, shared):
    yield [*before[rest], *piece[own]]
    before = piece


def kept(said: Sequence[Sequence[int]], shared: Sequence[float]) -> list[slice]:
  """Of each piece the labels that are its own to say.

  The end of one is aligned with the beginning of the next; they meet in the middle of
  the labels that are equal. Where little is, as in a pause, both stay whole: then
  what little was heard twice is said twice, and nothing is lost.

  Args:
    shared: part of each piece but the last that it has in common with the next.
  """
  parts: list[slice] = []
  for _, rest, own in _aligned(said, shared):
    if parts:
      parts[-1] = slice(parts[-1].start, rest.stop)
    parts.append(own)
  return parts


class _Aligned(NamedTuple):
  """A piece and what it makes certain."""

  piece: Sequence[int]
  rest: slice
  """Of the piece before."""
  own: slice


def _aligned(
  said: Iterable[Sequence[int]], shared: Sequence[float]
) -> Iterator[_Aligned]:
  before: Sequence[int] = ()
  reached = 0
  """Of the piece before, the labels that no overlap reaches."""
  for place, piece in enumerate(said):
    end, begin = 0, 0
    if place:
      head = piece[: _reach(len(piece), shared[place - 1])]
      end, begin = _met(before[reached:], head)
    rest = slice(reached, reached + end)
    before, reached = piece, len(piece)
    if place < len(shared):
      reached = max(reached - _reach(len(piece), shared[place]), begin)
    yield _Aligned(piece, rest, slice(begin, reached))


_SLACK = 2
"""Speech is not even: this many times the labels that evenly belong to an overlap."""
_LEAST = 2
"""By which equal labels have to outnumber the others of an alignment."""


def _reach(labels: int, part: float) -> int:
  """Labels of a piece among which an overlap is sought."""
  return min(labels, math.ceil(_SLACK * part * labels))


def _met(first: Sequence[int], second: Sequence[int]) -> tuple[int, int]:
  """(labels of `first` that stay, labels of `second` that go).

  The best alignment of an end of `first` with a beginning of `second`: an equal label
  counts 1, another or one too many -1.
  """
  scores = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
  scores[0] = [-j for j in range(len(second) + 1)]
  for i, label in enumerate(first):
    for j, other in enumerate(second):
      scores[i + 1][j + 1] = max(
        scores[i][j] + (1 if label == other else -1),
        scores[i][j + 1] - 1,
        scores[i + 1][j] - 1,
      )
  best = max(scores[-1])
  if best < _LEAST:
    return len(first), 0
  equal = []
  i, j = len(first), scores[-1].index(best)
  while j:
    alike = i > 0 and first[i - 1] == second[j - 1]
    if i and scores[i][j] == scores[i - 1][j - 1] + (1 if alike else -1):
      i, j = i - 1, j - 1
      equal += [(i + 1, j + 1)] if alike else []
    elif i and scores[i][j] == scores[i - 1][j] - 1:
      i -= 1
    else:
      j -= 1
  return equal[len(equal) // 2]
