"""At most a tenth of what is computed is padding, with at most 12 shapes."""

import lengths
import numpy as np
import pytest

MOST = 0.10


def _pooled():
  return [lengths.drawn("train-clean-100", 28_539, np.random.default_rng(0))]


def _by_speaker():
  rng = np.random.default_rng(0)
  return lengths.speakers("train-clean-100", 251, mean=113.7, rng=rng)


def test_the_lengths_are_those_of_the_corpus():
  seconds = _pooled()[0] / 16_000
  assert seconds.mean() == pytest.approx(12.8, abs=0.2)
  assert seconds.std() == pytest.approx(3.8, abs=0.2)


@pytest.mark.parametrize(
  ("tasks", "buckets", "places", "utterances"),
  [(_pooled, 12, 1, 64), (_by_speaker, 10, 16, 4)],
  ids=["pooled", "by speaker"],
)
def test_little_is_padding(tasks, buckets, places, utterances):
  found = lengths.measured(
    tasks(), buckets=buckets, places=places, utterances=utterances, epochs=2
  )
  assert found.shapes <= 12
  assert found.waste <= MOST


def test_one_shape_would_pad_far_more():
  found = lengths.measured(
    _pooled(), buckets=1, places=1, utterances=64, epochs=1
  )
  assert found.waste > 4 * MOST
