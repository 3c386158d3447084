"""The speller: loss in closed form, attention, greedy search against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding import FRAMES, LABELS_U, greedy, hidden, inclined, losses, make

KINDS = ("las", "las, one layer")


@jax.jit
def _logits(decoder, hidden_TD, length, labels_U):
  return decoder.logits(hidden_TD, length, labels_U)


@pytest.mark.parametrize("name", KINDS)
def test_loss_is_the_cross_entropy_of_labels_and_end(name):
  decoder = make(name)
  length, label_length = 7, 3
  found, *_ = losses(
    decoder, hidden()[None], [length], LABELS_U[None], [label_length]
  )
  logits_PV = np.float64(_logits(decoder, hidden(), length, LABELS_U))
  logs_PV = logits_PV - np.log(np.exp(logits_PV).sum(axis=1, keepdims=True))
  e = 0.1 if name == "las, one layer" else 0.0
  assert decoder.smoothing == e
  expected = -sum(
    (1 - e) * logs_V[label] + e * logs_V.mean()
    for label, logs_V in zip([3, 1, 1, 0], logs_PV[:4], strict=True)
  )
  np.testing.assert_allclose(found.total[0], expected, rtol=1e-5)
  assert found.weight[0] == label_length + 1


@pytest.mark.parametrize("name", KINDS)
def test_no_logit_hears_the_label_that_it_predicts(name):
  decoder = make(name)
  before_PV = _logits(decoder, hidden(), FRAMES, LABELS_U)
  other_U = np.array([3, 1, 5, 2], np.int32)
  after_PV = _logits(decoder, hidden(), FRAMES, other_U)
  np.testing.assert_array_equal(before_PV[:3], after_PV[:3])
  assert (np.abs(before_PV[3:] - after_PV[3:]) > 1e-6).any(axis=1).all()


def test_steps_are_what_training_hears():
  decoder = make("las")
  memory = decoder.attention.memory(hidden(), 6)
  expected_PV = _logits(decoder, hidden(), 6, LABELS_U)
  state = decoder.start(memory)
  for place, label in enumerate([0, *LABELS_U.tolist()]):
    state, logits_V = decoder.step(memory, state, jnp.asarray(label))
    np.testing.assert_allclose(logits_V, expected_PV[place], atol=1e-4)
    # One unit of attention a step and head, none of it on padding.
    so_far_AT = np.asarray(state.so_far_AT)
    np.testing.assert_allclose(so_far_AT.sum(axis=1), place + 1, rtol=1e-5)
    assert (so_far_AT[:, 6:] == 0).all()


def test_attention_knows_where_it_was():
  """But for that, what it reads depends on the query and the frames alone."""
  aware, unaware = make("las").attention, make("las, one layer").attention
  query_H = np.ones(8, np.float32)
  for attention, differs in ((aware, True), (unaware, False)):
    memory = attention.memory(hidden(), FRAMES)
    zeros_AT = np.zeros((attention.heads, FRAMES), np.float32)
    spent_AT = zeros_AT + np.float32(np.arange(FRAMES) < 3)
    fresh, later = (
      attention(memory, query_H, so_far).weights_AT
      for so_far in (zeros_AT, spent_AT)
    )
    assert (np.abs(fresh - later).max() > 1e-3) == differs


def _loop(decoder, hidden_TD, length):
  """Greedy search as one would write it on the host."""
  labels = []
  while len(labels) < length:
    labels_U = np.pad(np.asarray(labels, np.int32), (0, FRAMES - len(labels)))
    logits_PV = _logits(decoder, hidden_TD, length, labels_U)
    label = int(np.argmax(logits_PV[len(labels)]))
    if label == 0:
      break
    labels.append(label)
  return labels


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("end", [-100.0, 3.0, 100.0])
def test_greedy_search_is_the_loop(name, end):
  decoder = inclined(make(name), end)
  lengths_B = np.array([FRAMES, 4, 6])
  hidden_BTD = np.stack([hidden(seed) for seed in range(3)])
  heard = greedy(decoder, hidden_BTD, lengths_B)
  sizes = []
  for labels_U, size, hidden_TD, length in zip(
    *heard, hidden_BTD, lengths_B, strict=True
  ):
    expected = _loop(decoder, hidden_TD, length)
    assert labels_U[:size].tolist() == expected
    sizes.append(len(expected))
  if end == 100.0:
    assert sizes == [0, 0, 0]
  if end == -100.0:
    assert sizes == [FRAMES, 4, 6]
