"""Every short sentence, and what it is worth: the oracle of the search."""

import itertools

import jax.numpy as jnp
import numpy as np


def every(vocabulary, most):
  """All label sequences of up to `most` labels; 0 is no label."""
  for size in range(most + 1):
    yield from itertools.product(range(1, vocabulary), repeat=size)


class Bigrams:
  """A language model whose next label depends on the last one only."""

  def __init__(self, vocabulary, *, seed=0):
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.standard_normal((vocabulary, vocabulary))
    self.log_VV = logits - np.logaddexp.reduce(logits, axis=1)[:, None]

  def start(self):
    return ()

  def advance(self, state, label):
    return state, jnp.asarray(self.log_VV, jnp.result_type(float))[label]

  def __call__(self, sentence):
    """log P(sentence, end)."""
    pairs = itertools.pairwise((0, *sentence, 0))
    return sum(self.log_VV[pair] for pair in pairs)


def ranked(model, *, language=None, weights, coverage=None):
  """[(total, sentence, model, language, coverage)], best first.

  Args:
    model: {sentence: log-probability}.
    coverage: {sentence: frames}.
  """
  found = []
  for sentence, log in model.items():
    spoken = language(sentence) if language else 0.0
    covered = coverage[sentence] if coverage else 0.0
    size = len(sentence)
    fused = log + weights.language_model * spoken
    total = fused / ((5 + size) / 6) ** weights.normalization
    total += weights.length * size + weights.coverage * covered
    found.append((total, sentence, log, spoken, covered))
  return sorted(found, reverse=True)


def check(found, expected, *, rtol):
  """The hypotheses are the best of those expected, and nothing else is there."""
  expected = [each for each in expected if each[0] > -np.inf]
  beam = len(found.total_W)
  for w, (total, sentence, *terms) in enumerate(expected[:beam]):
    size = int(found.length_W[w])
    assert tuple(found.labels_WU[w, :size].tolist()) == sentence
    assert not found.labels_WU[w, size:].any()
    np.testing.assert_allclose(found.total_W[w], total, rtol=rtol, atol=rtol)
    ours = found.model_W[w], found.language_W[w], found.coverage_W[w]
    np.testing.assert_allclose(ours, terms, rtol=rtol, atol=rtol)
  rest = found.total_W[len(expected) :]
  assert np.isneginf(rest).all()
  assert not found.labels_WU[len(expected) :].any()
