"""Labels with times between them -> segments, and back."""

import itertools

import numpy as np
import pytest

from hra.config import DecoderConfig
from hra.evaluate import stitching
from hra.evaluate.segments import Span, joined, spans, timed

CONFIG = DecoderConfig(kind="transformer", texts=9, first_time=20)


def _spans(labels, seconds=10.0):
  return spans(labels, CONFIG, seconds=seconds)


def test_times_begin_and_end_what_stands_between_them():
  labels = [20, 1, 2, 45, 45, 3, 70]
  assert _spans(labels) == [Span(0.0, 0.5, (1, 2)), Span(0.5, 1.0, (3,))]


def test_what_no_time_ends_lasts_as_long_as_the_audio():
  assert _spans([30, 4, 5], seconds=2.0) == [Span(0.2, 2.0, (4, 5))]
  assert _spans([4, 5], seconds=2.0) == [Span(0.0, 2.0, (4, 5))]
  assert _spans([], seconds=2.0) == []
  assert _spans([20, 45], seconds=2.0) == []


def test_no_segment_ends_after_the_audio():
  assert _spans([20, 1, 1400], seconds=1.5) == [Span(0.0, 1.5, (1,))]


@pytest.mark.parametrize("seed", range(5))
def test_there_and_back(seed):
  rng = np.random.default_rng(seed)
  steps = np.sort(rng.choice(400, 8, replace=False)).reshape(4, 2) * 0.02
  found = [
    Span(float(a), float(b), tuple(rng.integers(1, 10, 3).tolist()))
    for a, b in steps
  ]
  labels = [label for span in found for label in timed(span, CONFIG)]
  for ours, theirs in zip(_spans(labels), found, strict=True):
    assert ours.labels == theirs.labels
    assert ours[:2] == pytest.approx(theirs[:2])


def _heard(*bounds):
  """Segments in which each second is said as a label of its own."""
  return [Span(a, b, tuple(range(a, b))) for a, b in bounds]


@pytest.mark.parametrize(
  ("first", "second"),
  [
    ([(18, 25), (25, 30)], [(24, 27), (27, 33)]),
    ([(10, 18), (18, 30)], [(24, 34)]),
    ([(18, 24), (24, 30)], [(24, 30), (30, 40)]),
    ([(20, 30)], [(24, 26), (26, 28), (28, 40)]),
  ],
)
def test_however_pieces_are_cut_each_second_is_said_once(first, second):
  pieces = [_heard(*first), _heard(*second)]
  said = [[label for span in own for label in span.labels] for own in pieces]
  found = joined(pieces, stitching.kept(said, [0.3]))
  labels = [label for span in found for label in span.labels]
  assert labels == list(range(first[0][0], second[-1][1]))
  for before, after in itertools.pairwise(found):
    assert before.start <= before.end <= after.start
  for span in found:
    assert span.start <= span.labels[0]
    assert span.labels[-1] < span.end
