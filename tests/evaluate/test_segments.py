"""Labels with times between them -> segments, and back."""

import numpy as np
import pytest

from hra.config import DecoderConfig
from hra.evaluate.segments import Span, spans, timed

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
