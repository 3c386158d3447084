"""The search with CTC against the enumeration of every alignment."""

import functools
import itertools

import jax
import numpy as np
import pytest
import sentences

from hra.decoders import ctc
from hra.decoders.beam import Weights, search
from hra.decoders.scorers import CtcScorer

FRAMES, VOCABULARY = 4, 3
EVERY = 32
"""More than there are sentences of up to 4 labels."""
LANGUAGE = sentences.Bigrams(VOCABULARY)
FUSED = Weights(language_model=0.7, length=0.4, normalization=0.3)


@functools.cache
def _searched(beam, labels, fused):
  """(logits_BTV, lengths_B, weights) -> hypotheses."""

  def one(logits_TV, length, weights):
    return search(
      CtcScorer(logits_TV=logits_TV, length=length),
      labels=labels,
      beam=beam,
      weights=weights,
      language_model=LANGUAGE if fused else None,
    )

  return jax.jit(jax.vmap(one, (0, 0, None)))


def _search(logits, lengths, *, beam, labels=FRAMES, weights=None):
  """One utterance of each length with the same logits, as NumPy."""
  function = _searched(beam, labels, weights is not None)
  lengths = np.array(lengths)
  logits = np.broadcast_to(logits, (len(lengths), *np.shape(logits)))
  found = jax.device_get(function(logits, lengths, weights or Weights()))
  return [
    jax.tree.map(lambda leaf, b=b: leaf[b], found) for b in range(len(lengths))
  ]


def _logits(seed=0, scale=2.0, frames=FRAMES):
  shape = (frames, VOCABULARY)
  return scale * np.random.default_rng(seed).standard_normal(shape)


def _enumerated(logits_TV, length):
  """{sentence: log-probability}, over all paths."""
  log_TV = np.array(jax.nn.log_softmax(logits_TV))[:length]
  found = {}
  for path in itertools.product(range(VOCABULARY), repeat=length):
    log = sum(log_TV[np.arange(length), list(path)])
    names = tuple(k for k, _ in itertools.groupby(path) if k)
    found[names] = np.logaddexp(found.get(names, -np.inf), log)
  return found


@pytest.mark.parametrize("seed", range(3))
def test_unpruned_it_is_the_enumeration(float64, seed):
  lengths = range(FRAMES + 1)
  found = _search(_logits(seed), lengths, beam=EVERY)
  for length, each in zip(lengths, found, strict=True):
    paths = _enumerated(_logits(seed), length)
    expected = sentences.ranked(paths, weights=Weights())
    sentences.check(each, expected, rtol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_a_language_model_and_lengths_are_fused(float64, seed):
  lengths = range(FRAMES + 1)
  found = _search(_logits(seed), lengths, beam=EVERY, weights=FUSED)
  changed = 0
  for length, each in zip(lengths, found, strict=True):
    paths = _enumerated(_logits(seed), length)
    expected = sentences.ranked(paths, language=LANGUAGE, weights=FUSED)
    sentences.check(each, expected, rtol=1e-10)
    changed += expected[0][1] != max(paths, key=paths.get)
  assert changed or seed, "weights that change nothing test nothing"


def test_in_float32():
  (found,) = _search(
    _logits(4).astype(np.float32), [FRAMES], beam=EVERY, weights=FUSED
  )
  assert found.total_W.dtype == np.float32
  expected = sentences.ranked(
    _enumerated(_logits(4), FRAMES), language=LANGUAGE, weights=FUSED
  )
  sentences.check(found, expected, rtol=1e-5)


@pytest.mark.parametrize("beam", [1, 4])
def test_pruned_it_finds_no_more_than_there_is(beam):
  """No probability is counted twice; and ways to the best path are summed."""
  for seed in range(4):
    logits = _logits(seed, scale=1.0)
    paths = _enumerated(logits, FRAMES)
    (found,) = _search(logits.astype(np.float32), [FRAMES], beam=beam)
    sizes = found.length_W
    names = [tuple(y[:n]) for y, n in zip(found.labels_WU, sizes, strict=True)]
    assert len(set(names)) == beam
    assert (np.diff(found.total_W) <= 0).all()
    for name, total in zip(names, found.total_W, strict=True):
      assert total <= paths[name] + 1e-5
    best = np.array(jax.nn.log_softmax(logits)).max(-1).sum()
    assert found.total_W[0] >= best - 1e-5


def test_one_hypothesis_of_certain_frames_is_the_best_path():
  logits = 20.0 * np.eye(VOCABULARY, dtype=np.float32)[[1, 0, 1, 2]]
  (found,) = _search(logits, [FRAMES], beam=1)
  path = ctc.collapse(np.argmax(logits, -1))
  np.testing.assert_array_equal(found.labels_WU[0], path.labels_U)
  assert found.labels_WU[0].tolist() == [1, 1, 2, 0]
  assert found.length_W[0] == path.length
  assert -1e-3 < found.total_W[0] <= 0


def test_no_sentence_is_longer_than_allowed(float64):
  for most in (0, 2):
    (found,) = _search(_logits(), [FRAMES], beam=EVERY, labels=most)
    paths = {
      sentence: log
      for sentence, log in _enumerated(_logits(), FRAMES).items()
      if len(sentence) <= most
    }
    sentences.check(
      found, sentences.ranked(paths, weights=Weights()), rtol=1e-10
    )


def test_padding_is_not_heard():
  logits = _logits(frames=FRAMES + 2).astype(np.float32)
  clean = _search(logits, [FRAMES], beam=4)
  logits[FRAMES:] = np.nan
  soiled = _search(logits, [FRAMES], beam=4)
  jax.tree.map(np.testing.assert_array_equal, clean, soiled)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_what_says_nothing_gets_no_sentence(bad):
  logits = np.full((FRAMES, VOCABULARY), bad, np.float32)
  found, empty = _search(logits, [FRAMES, 0], beam=4, weights=FUSED)
  assert np.isneginf(found.total_W).all()
  assert not found.labels_WU.any()
  assert not found.length_W.any()
  # Without frames nothing is said, for certain.
  assert np.isfinite(empty.total_W[0])
  assert empty.length_W[0] == 0
  assert np.isneginf(empty.total_W[1:]).all()


def test_what_is_impossible_never_wins():
  """A label without probability, whatever its length is worth."""
  logits = _logits().astype(np.float32)
  logits[:, 1] = -np.inf
  (found,) = _search(logits, [FRAMES], beam=EVERY)
  there = found.total_W > -np.inf
  assert there.sum() == 3  # nothing, 2 and 2 2
  assert not (found.labels_WU[there] == 1).any()
  weights = FUSED._replace(length=1e4)
  (found,) = _search(logits, [FRAMES], beam=EVERY, weights=weights)
  assert (found.total_W > -np.inf).sum() == 3
  assert found.length_W[0] == 2


@pytest.mark.parametrize("said", [np.nan, -np.inf])
def test_a_language_model_may_forbid_a_label(float64, said):
  """Its place on the beam goes to others; without weight it is not asked."""
  language = sentences.Bigrams(VOCABULARY)
  language.log_VV[:, 1] = said

  @jax.jit
  def searched(logits_TV, weights):
    return search(
      CtcScorer(logits_TV=logits_TV, length=FRAMES),
      labels=FRAMES,
      beam=4,
      weights=weights,
      language_model=language,
    )

  logits = _logits()
  logits[:, 1] = 9.0
  found = searched(logits, Weights(language_model=1.0))
  there = found.total_W > -np.inf
  assert there.sum() == 3  # nothing, 2 and 2 2
  assert not (found.labels_WU == 1).any()
  assert not np.isnan(found.language_W).any()
  if not np.isnan(said):
    found = searched(logits, Weights(language_model=0.0))
    assert (found.labels_WU[0] == 1).any()


def test_weights_compile_nothing():
  function = _searched(4, FRAMES, True)
  _search(_logits().astype(np.float32), [1, 2], beam=4, weights=FUSED)
  compiled = function._cache_size()
  other = FUSED._replace(language_model=0.1, length=-1.0)
  _search(_logits().astype(np.float32), [1, 2], beam=4, weights=other)
  assert function._cache_size() == compiled
