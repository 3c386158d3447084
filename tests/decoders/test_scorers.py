"""Transducers and attention decoders in the search, against every sentence."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sentences

from hra.decoders import transducer
from hra.decoders.beam import Weights, search
from hra.decoders.scorers import AttentionScorer, TransducerScorer

FRAMES, LABELS, VOCABULARY, WIDTH = 3, 3, 4, 3
EVERY = 48
"""More than there are sentences of up to 3 labels."""
ALL = [*sentences.every(VOCABULARY, LABELS)]
LANGUAGE = sentences.Bigrams(VOCABULARY, seed=1)
FUSED = Weights(language_model=0.6, length=0.5, normalization=0.4)


def _searched(scorer, *, beam, weights, labels=LABELS):
  return search(
    scorer,
    labels=labels,
    beam=beam,
    weights=weights,
    language_model=LANGUAGE,
  )


class Transducer:
  """The prediction net remembers two labels; the joint is an additive one."""

  def __init__(self, seed=0):
    rng = np.random.default_rng(seed)
    self.before = rng.standard_normal((VOCABULARY, VOCABULARY, WIDTH))
    self.weights = 1.5 * rng.standard_normal((WIDTH, VOCABULARY))
    self.encoded = rng.standard_normal((FRAMES, WIDTH))

  def predict(self, state, label):
    return label, jnp.asarray(self.before)[state, label]

  def joint(self, encoded_D, predicted_D):
    return jnp.tanh(encoded_D + predicted_D) @ self.weights

  def likelihoods(self, length):
    """{sentence: log-probability}, by the loss that it is trained with."""
    blanks, labels, sizes = [], [], [len(sentence) for sentence in ALL]
    for sentence in ALL:
      sentence = (*sentence, *[0] * (LABELS - len(sentence)))
      pairs = zip((0, 0, *sentence), (0, *sentence), strict=False)
      predicted = np.stack([self.before[pair] for pair in pairs])
      logits = np.tanh(self.encoded[:, None] + predicted) @ self.weights
      log = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
      blanks.append(log[..., 0])
      labels.append(log[:, np.arange(LABELS), list(sentence)])
    likelihoods = jax.jit(jax.vmap(transducer.log_likelihood, (0, 0, None, 0)))
    found = likelihoods(*map(np.array, (blanks, labels, length, sizes)))
    return dict(zip(ALL, found.tolist(), strict=True))


@functools.cache
def _transducer(beam):
  def one(encoded_TD, length, weights):
    model = Transducer()
    scorer = TransducerScorer(
      encoded_TD=encoded_TD,
      length=length,
      predict=model.predict,
      joint=model.joint,
      begin=jnp.array(0),
    )
    return _searched(scorer, beam=beam, weights=weights)

  return jax.jit(jax.vmap(one, (0, 0, None)))


def _rows(found):
  found = jax.device_get(found)
  for b in range(len(found.total_W)):
    yield jax.tree.map(lambda leaf, b=b: leaf[b], found)


@pytest.mark.parametrize("weights", [Weights(), FUSED])
def test_unpruned_a_transducer_is_its_likelihood(float64, weights):
  model, lengths = Transducer(), np.arange(FRAMES + 1)
  encoded = np.broadcast_to(model.encoded, (len(lengths), FRAMES, WIDTH))
  weights = jax.tree.map(np.float64, weights)
  found = [*_rows(_transducer(EVERY)(encoded, lengths, weights))]
  for length, each in zip(lengths[1:], found[1:], strict=True):
    expected = sentences.ranked(
      model.likelihoods(length), language=LANGUAGE, weights=weights
    )
    sentences.check(each, expected, rtol=1e-10)
  # Without frames nothing is said, for certain.
  assert found[0].length_W[0] == found[0].model_W[0] == 0
  assert np.isneginf(found[0].total_W[1:]).all()


def test_a_pruned_transducer_finds_what_is_there():
  """In float32, with padding that is no number."""
  model = Transducer()
  encoded = np.full((2, FRAMES, WIDTH), np.nan, np.float32)
  encoded[0], encoded[1, :2] = model.encoded, model.encoded[:2]
  weights = jax.tree.map(np.float32, Weights())
  found = [*_rows(_transducer(4)(encoded, np.array([FRAMES, 2]), weights))]
  for length, each in zip((FRAMES, 2), found, strict=True):
    every = model.likelihoods(length)
    assert np.isfinite(each.total_W).all()
    assert (np.diff(each.total_W) <= 0).all()
    for y, n, total in zip(
      each.labels_WU, each.length_W, each.total_W, strict=True
    ):
      assert total <= every[tuple(y[:n])] + 1e-5
    assert each.total_W[0] >= max(every.values()) - 0.5


class Attention:
  """Logits and attention of the last two labels."""

  def __init__(self, seed=0, *, first=0, end=0):
    rng = np.random.default_rng(seed)
    pairs = (VOCABULARY, VOCABULARY)
    self.logits = 2.0 * rng.standard_normal((*pairs, VOCABULARY))
    attention = rng.exponential(size=(*pairs, FRAMES))
    self.attention = attention / attention.sum(-1, keepdims=True)
    self.first, self.end = first, end

  def decode(self, state, label):
    logits, attention = map(jnp.asarray, (self.logits, self.attention))
    return label, logits[state, label], attention[state, label]

  def sentences(self):
    """({sentence: log-probability}, {sentence: frames attended to})."""
    found, covered = {}, {}
    labels = {*range(VOCABULARY)} - {self.first, self.end}
    for sentence in itertools.chain.from_iterable(
      itertools.product(labels, repeat=size) for size in range(LABELS + 1)
    ):
      log, attended = 0.0, np.zeros(FRAMES)
      state, last = 0, self.first
      for label in (*sentence, self.end):
        logits = self.logits[state, last]
        log += logits[label] - np.logaddexp.reduce(logits)
        attended += self.attention[state, last]
        state, last = last, label
      found[sentence] = log
      covered[sentence] = float((attended > 0.5).sum())
    return found, covered


@functools.cache
def _attention(beam, first, end):
  model = Attention(first=first, end=end)

  def one(weights):
    scorer = AttentionScorer(
      decode=model.decode,
      begin=jnp.array(0),
      length=jnp.array(FRAMES),
      first=first,
      end=end,
    )
    return _searched(scorer, beam=beam, weights=weights)

  return model, jax.jit(one)


COVERING = FUSED._replace(coverage=0.8)


@pytest.mark.parametrize("weights", [Weights(), FUSED, COVERING])
@pytest.mark.parametrize(("first", "end"), [(0, 0), (2, 3)])
def test_unpruned_attention_is_every_sentence(float64, weights, first, end):
  model, function = _attention(EVERY, first, end)
  found = jax.device_get(function(jax.tree.map(np.float64, weights)))
  log, coverage = model.sentences()
  expected = sentences.ranked(
    log, language=LANGUAGE, weights=weights, coverage=coverage
  )
  assert len(expected) == (40 if end == 0 else 15)
  sentences.check(found, expected, rtol=1e-10)


def test_terms_choose_another_sentence(float64):
  """Each of them, or it would not be tested."""
  model, _ = _attention(EVERY, 0, 0)
  log, coverage = model.sentences()
  orders = set()
  for weights in (
    Weights(),
    Weights(language_model=0.6),
    Weights(length=0.5),
    Weights(normalization=0.9),
    Weights(coverage=0.8),
  ):
    expected = sentences.ranked(
      log, language=LANGUAGE, weights=weights, coverage=coverage
    )
    orders.add(tuple(each[1] for each in expected[:10]))
  assert len(orders) == 5


def test_it_stops_early_without_changing_the_answer(float64):
  """When nothing that is longer can be better: of 3 labels at most as of 20."""
  steps, model = [], Attention()

  class Counted(AttentionScorer):
    def score(self, state, prefix, step):
      jax.debug.callback(lambda step: steps.append(int(step)), step)
      return super().score(state, prefix, step)

  scorer = Counted(
    decode=model.decode, begin=jnp.array(0), length=jnp.array(FRAMES)
  )

  @functools.partial(jax.jit, static_argnums=0)
  def function(labels, weights):
    return _searched(scorer, beam=2, weights=weights, labels=labels)

  def found(labels, **weights):
    steps.clear()
    every = Weights(language_model=1.0, **weights)
    found = jax.device_get(function(labels, jax.tree.map(np.float64, every)))
    jax.effects_barrier()
    return found, max(steps)

  short, _ = found(LABELS, length=-9.0)
  long, last = found(20, length=-9.0)
  assert last < LABELS
  np.testing.assert_allclose(short.total_W, long.total_W, rtol=1e-12)
  np.testing.assert_array_equal(short.length_W, long.length_W)
  # Longer ones are better here, and it doesn't stop.
  long, last = found(20, length=9.0)
  assert last == 20
  assert long.length_W.tolist() == [20, 20]


# The end first, or a label, which is less likely, and nine that are certain.
CHANCES = np.full((11, VOCABULARY), 1e-6)
CHANCES[0] = 0.3, 0.25, 0.23, 0.22
CHANCES[1:10, 1] = CHANCES[10, 0] = 1.0


@pytest.mark.parametrize(
  "weights",
  [Weights(length=0.5), Weights(coverage=0.5), Weights(normalization=1.0)],
)
def test_it_goes_on_where_longer_ones_can_be_better(float64, weights):
  logits, attention = np.log(CHANCES), np.eye(11)

  def decode(count, label):
    return count + 1, jnp.asarray(logits)[count], jnp.asarray(attention)[count]

  @jax.jit
  def searched(weights):
    scorer = AttentionScorer(
      decode=decode, begin=jnp.array(0), length=jnp.array(11)
    )
    return search(scorer, labels=10, beam=1, weights=weights)

  found = searched(Weights())
  assert (found.length_W[0], found.coverage_W[0]) == (0, 1)
  np.testing.assert_allclose(found.total_W[0], np.log(0.3))
  found = searched(weights)
  assert (found.length_W[0], found.coverage_W[0]) == (10, 11)


def test_what_ends_leaves_its_place_on_the_beam(float64):
  """In the last frame of a transducer, of which there is one here."""

  @jax.jit
  def searched(weights):
    scorer = TransducerScorer(
      encoded_TD=jnp.zeros((1, 1)),
      length=jnp.array(1),
      predict=lambda count, label: (
        count + 1,
        jnp.log(jnp.asarray(CHANCES))[count],
      ),
      joint=lambda encoded_D, predicted_D: predicted_D,
      begin=jnp.array(0),
    )
    return search(scorer, labels=10, beam=1, weights=weights)

  assert searched(Weights()).length_W[0] == 0
  assert searched(Weights(length=0.1)).length_W[0] == 10
