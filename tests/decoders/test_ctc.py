"""CTC against the enumeration of every path, in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hra.decoders import ctc

FRAMES, LABELS, VOCABULARY = 5, 3, 4
PADDED_FRAMES, PADDED_LABELS = 7, 5


def _collapsed(path):
  return tuple(k for k, _ in itertools.groupby(path) if k != ctc.BLANK)


def _enumerated(logits_TV, length):
  """{labels: (probability, expected counts [T, V])} over all paths."""
  probabilities = np.exp(logits_TV)
  probabilities /= probabilities.sum(axis=1, keepdims=True)
  found = {}
  index = np.arange(length)
  for path in itertools.product(range(VOCABULARY), repeat=length):
    mass = probabilities[index, list(path)].prod()
    total, counts = found.setdefault(
      _collapsed(path), (np.zeros(()), np.zeros_like(logits_TV))
    )
    total += mass
    counts[index, list(path)] += mass
  return found, probabilities


@pytest.fixture(scope="module")
def compiled():
  """(logits_NTV, lengths_N, labels_NU, label_lengths_N) -> loss and gradient."""

  def one(logits_TV, length, labels_U, label_length):
    loss = ctc.loss(logits_TV, length, labels_U, label_length)
    return loss.total, loss

  gradient = jax.vmap(jax.grad(one, has_aux=True))
  return jax.jit(gradient)


@pytest.fixture(scope="module")
def every_case():
  """Every transcript of 0 to 3 labels, at every length of 1 to 5 frames."""
  transcripts = [
    labels
    for size in range(LABELS + 1)
    for labels in itertools.product(range(1, VOCABULARY), repeat=size)
  ]
  return list(itertools.product(range(1, FRAMES + 1), transcripts))


def _batch(cases, logits_TV, *, junk):
  """The cases, padded with junk: numbers, and a repeat of the last label."""
  size = len(cases)
  logits = np.full((size, PADDED_FRAMES, VOCABULARY), junk, np.float64)
  logits += np.random.default_rng(1).standard_normal(logits.shape)
  labels = np.zeros((size, PADDED_LABELS), np.int32)
  for n, (length, transcript) in enumerate(cases):
    logits[n, :length] = logits_TV[:length]
    labels[n] = transcript[-1] if transcript else 1
    labels[n, : len(transcript)] = transcript
  lengths = np.array([length for length, _ in cases])
  label_lengths = np.array([len(transcript) for _, transcript in cases])
  return logits, lengths, labels, label_lengths


def test_equals_enumeration_in_value_and_gradient(
  float64, compiled, every_case
):
  logits_TV = 1.5 * np.random.default_rng(0).standard_normal(
    (FRAMES, VOCABULARY)
  )
  batch = _batch(every_case, logits_TV, junk=0.0)
  gradients, losses = compiled(*batch)
  paths = {n: _enumerated(logits_TV, n) for n in range(1, FRAMES + 1)}
  impossible = 0
  for n, (length, transcript) in enumerate(every_case):
    found, probabilities = paths[length]
    expected = np.zeros((PADDED_FRAMES, VOCABULARY))
    if transcript and transcript in found:
      mass, counts = found[transcript]
      expected[:length] = (probabilities - counts / mass)[:length]
      assert losses.weight[n] == len(transcript)
      np.testing.assert_allclose(losses.total[n], -np.log(mass), rtol=1e-9)
    else:
      impossible += bool(transcript)
      assert losses.weight[n] == 0
      assert losses.total[n] == 0
    np.testing.assert_allclose(gradients[n], expected, atol=1e-9)
  assert impossible > 50


def test_padding_changes_nothing(float64, compiled, every_case):
  logits_TV = np.random.default_rng(2).standard_normal((FRAMES, VOCABULARY))
  first, one = compiled(*_batch(every_case, logits_TV, junk=0.0))
  second, other = compiled(*_batch(every_case, logits_TV, junk=300.0))
  np.testing.assert_allclose(one.total, other.total, rtol=1e-12)
  np.testing.assert_allclose(first, second, atol=1e-12)


def test_float32_at_extremes_is_finite(compiled, every_case):
  """Near-certain wrong labels: large losses, finite ones, finite gradients."""
  logits_TV = np.zeros((FRAMES, VOCABULARY))
  logits_TV[:, 0] = 1e3
  batch = _batch(every_case, logits_TV, junk=0.0)
  logits, *rest = batch
  gradients, losses = compiled(logits.astype(np.float32), *rest)
  assert losses.total.dtype == jnp.float32
  assert np.isfinite(losses.total).all()
  assert np.isfinite(gradients).all()
  assert losses.total.max() > 1e3


@functools.cache
def _collapse():
  return jax.jit(ctc.collapse)


@settings(deadline=None)  # the first one compiles
@given(st.lists(st.integers(0, 3), max_size=12))
def test_collapse_is_groupby_without_blanks(path):
  padded = np.zeros(12, np.int32)
  padded[: len(path)] = path
  heard = _collapse()(padded)
  expected = list(_collapsed(path))
  assert heard.labels_U.tolist() == expected + [0] * (12 - len(expected))
  assert heard.length == len(expected)


def test_best_path_is_the_largest_and_blank_in_padding():
  logits_TV = np.random.default_rng(0).standard_normal((6, VOCABULARY))
  logits_TV[4:, 2] = 50.0
  path_T = ctc.best_path(jnp.asarray(logits_TV), jnp.array(4))
  expected = [max(range(VOCABULARY), key=row.__getitem__) for row in logits_TV]
  assert any(expected[:4])
  assert path_T.tolist() == [*expected[:4], 0, 0]
