"""Language models label by label, and all at once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hra.config import LanguageModelConfig
from hra.decoders import beam, language_model
from hra.decoders.scorers import CtcScorer

LSTM = LanguageModelConfig(
  kind="lstm",
  vocabulary=5,
  width=8,
  layers=2,
  embedding=6,
  heads=2,
  feed_forward=16,
  context=4,
)
TRANSFORMER = dataclasses.replace(LSTM, kind="transformer")
TIED = {
  "lstm": dataclasses.replace(LSTM, output="tied"),
  "transformer": dataclasses.replace(TRANSFORMER, output="tied", embedding=0),
}
EACH = {"lstm": LSTM, "transformer": TRANSFORMER}
LABELS = np.array([3, 1, 1, 4, 2, 3, 4], np.int32)
"""More than a transformer's context."""


@functools.cache
def _model(config):
  build = functools.partial(language_model.build, config)
  return jax.jit(lambda key: build(key=key))(jax.random.key(0))


@jax.jit
def _by_label(model, labels_U):
  """[P, V], by the search's way of asking."""

  def step(state, label):
    return model.advance(state, label)

  _, log_PV = jax.lax.scan(step, model.start(), jnp.pad(labels_U, (1, 0)))
  return log_PV


@jax.jit
def _losses(model, labels_BU, lengths_B):
  return jax.vmap(functools.partial(language_model.loss, model))(
    labels_BU, lengths_B
  )


@pytest.mark.parametrize(
  "config", [*EACH.values(), *TIED.values()], ids=lambda c: c.kind + c.output
)
def test_label_by_label_is_all_at_once(config):
  model = _model(config)
  log_PV = _by_label(model, LABELS)
  np.testing.assert_allclose(np.exp(log_PV).sum(-1), 1, rtol=1e-5)
  # Of different sentences, other things are said.
  other = _by_label(model, LABELS[::-1])
  assert np.abs(log_PV[2:] - other[2:]).max() > 1e-3
  at_once = jax.jit(lambda model, labels: model.log_probabilities(labels))
  np.testing.assert_allclose(
    at_once(model, LABELS), log_PV, rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize("kind", EACH)
def test_in_bfloat16(kind):
  """Losses stay in float32, and say the same label by label."""
  config = dataclasses.replace(EACH[kind], dtype="bfloat16")
  model = _model(config)
  log_PV = _by_label(model, LABELS)
  (found,) = _losses(model, LABELS[None], np.array([7])).total
  assert log_PV.dtype == found.dtype == jnp.float32
  expected = -np.asarray(log_PV)[np.arange(8), [*LABELS, 0]].sum()
  np.testing.assert_allclose(found, expected, rtol=2e-2)


def test_a_transformer_sees_its_context_and_no_further():
  """One layer: the label that left the ring is forgotten, the next is not."""
  model = _model(dataclasses.replace(TRANSFORMER, layers=1))
  log_PV = _by_label(model, LABELS)
  for place, change in ((0, 0), (1, 1)):
    # Label u is heard at position u + 1; the last position is 7, which sees 4.
    changed = LABELS.copy()
    changed[2 + place] = 2
    difference = np.abs(_by_label(model, changed)[7] - log_PV[7]).max()
    assert (difference > 1e-4) == change


@pytest.mark.parametrize("kind", EACH)
def test_the_loss_is_the_sum_of_what_is_said(kind):
  """Of every length, whatever stands beyond it; and gives no weight to nothing."""
  model = _model(EACH[kind])
  lengths = np.arange(len(LABELS) + 1)
  labels = np.broadcast_to(LABELS, (len(lengths), len(LABELS)))
  found = _losses(model, labels, lengths)
  log_PV = np.asarray(_by_label(model, LABELS))
  assert found.total[0] == found.weight[0] == 0
  for length in lengths[1:]:
    sentence = [*LABELS[:length], 0]
    expected = -log_PV[np.arange(length + 1), sentence].sum()
    np.testing.assert_allclose(found.total[length], expected, rtol=1e-5)
    assert found.weight[length] == length + 1


@pytest.mark.parametrize("kind", EACH)
def test_it_learns_what_it_reads(kind):
  """One sentence, by heart: perplexity comes down to 1."""
  model = _model(EACH[kind])
  labels, lengths = np.array([[1, 2, 3, 4, 1, 2, 3]]), np.array([7])
  optimizer = optax.adam(0.03)

  @jax.jit
  def train(model):
    def step(carried, _):
      model, state = carried

      def mean(model):
        found = _losses(model, labels, lengths)
        return found.total.sum() / found.weight.sum()

      loss, gradient = jax.value_and_grad(mean)(model)
      updates, state = optimizer.update(gradient, state)
      return (optax.apply_updates(model, updates), state), loss

    carried = (model, optimizer.init(model))
    return jax.lax.scan(step, carried, length=60)[1]

  losses = train(model)
  assert losses[0] > 1.2
  assert losses[-1] < 0.05


@pytest.mark.parametrize("kind", EACH)
def test_a_search_is_fused_with_it(kind):
  """States follow their hypotheses: each sentence's log-probability is its own."""
  model = _model(EACH[kind])
  logits = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)

  @jax.jit
  def search(model, logits_TV):
    return beam.search(
      CtcScorer(logits_TV=logits_TV, length=jnp.array(6)),
      labels=6,
      beam=8,
      weights=beam.Weights(language_model=1.0, length=1.0),
      language_model=model,
    )

  found = search(model, logits)
  expected = _losses(model, found.labels_WU, found.length_W)
  assert (found.length_W > 0).all()
  np.testing.assert_allclose(
    found.language_W, -expected.total, rtol=1e-5, atol=1e-5
  )
  fused = found.model_W + found.language_W + found.length_W
  np.testing.assert_allclose(found.total_W, fused, rtol=1e-5)
