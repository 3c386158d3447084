"""The transducer's parts against one another, and greedy search against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding import FRAMES, LABELS_U, greedy, hidden, inclined, losses, make

from hra.config import DecoderConfig
from hra.decoders import transducer

KINDS = ("rnnt", "stateless")
VOCABULARY = 8
MOST = DecoderConfig().frame_labels


@pytest.mark.parametrize("name", KINDS)
def test_the_chunked_loss_is_that_of_all_logits(name):
  decoder = make(name)
  lengths_B, label_lengths_B = np.array([FRAMES, 5]), np.array([4, 2])
  hidden_BTD = np.stack([hidden(0), hidden(1)])
  labels_BU = np.stack([LABELS_U, LABELS_U[::-1]])
  found, *_ = losses(decoder, hidden_BTD, lengths_B, labels_BU, label_lengths_B)
  logits_BTPV = jax.vmap(decoder.logits)(hidden_BTD, lengths_B, labels_BU)
  expected_B = transducer.loss(
    logits_BTPV, labels_BU, lengths_B, label_lengths_B
  )
  np.testing.assert_allclose(found.total, expected_B, rtol=1e-5)
  np.testing.assert_array_equal(found.weight, label_lengths_B)


@pytest.mark.parametrize("name", KINDS)
def test_prediction_nets_go_label_by_label(name):
  prediction = make(name).prediction
  whole_PD = prediction(LABELS_U)
  state = prediction.advance(prediction.start(), jnp.asarray(0))
  np.testing.assert_allclose(
    prediction.predicted(state), whole_PD[0], atol=1e-6
  )
  for label, expected_D in zip(LABELS_U, whole_PD[1:], strict=True):
    state = prediction.advance(state, jnp.asarray(label))
    np.testing.assert_allclose(
      prediction.predicted(state), expected_D, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("name", "remembers"), [("rnnt", 5), ("stateless", 2)])
def test_how_far_back_a_prediction_net_sees(name, remembers):
  prediction = make(name).prediction
  labels_U = np.array([3, 1, 4, 2, 5])
  last_D = prediction(labels_U)[-1]
  for back in range(1, 6):
    other_U = labels_U.copy()
    other_U[-back] = 7
    same = np.allclose(prediction(other_U)[-1], last_D, atol=1e-7)
    assert same == (back > remembers)


def _loop(decoder, hidden_TD, length):
  """Greedy search as one would write it on the host: labels and their frames."""
  labels, frames, frame, in_frame = [], [], 0, 0
  while frame < length and len(labels) < length:
    logits = _logits(decoder, hidden_TD, _padded(labels, length))
    logits = logits[frame, len(labels)]
    label, lasts = int(np.argmax(logits[:VOCABULARY])), 0
    if decoder.durations:
      lasts = decoder.durations[int(np.argmax(logits[VOCABULARY:]))]
    if label:
      labels, frames = [*labels, label], [*frames, frame]
      in_frame += 1
    if not label or in_frame == MOST:
      lasts = max(lasts, 1)
    frame, in_frame = frame + lasts, 0 if lasts else in_frame
  return labels, frames


def _padded(labels, size):
  return np.pad(np.asarray(labels, np.int32), (0, size - len(labels)))


@jax.jit
def _logits(decoder, hidden_TD, labels_U):
  return decoder.logits(hidden_TD, FRAMES, labels_U)


@jax.jit
def _emissions(decoder, hidden_BTD, lengths_B):
  return jax.vmap(lambda *given: decoder.emissions(*given))(
    hidden_BTD, lengths_B
  )


@pytest.mark.parametrize("name", [*KINDS, "tdt"])
@pytest.mark.parametrize("blank", [-100.0, 0.0, 4.0])
def test_greedy_search_is_the_loop(name, blank):
  decoder = inclined(make(name), blank)
  lengths_B = np.array([FRAMES, 4, 6])
  hidden_BTD = np.stack([hidden(seed) for seed in range(3)])
  heard = _emissions(decoder, hidden_BTD, lengths_B)
  sizes = set()
  for labels_U, frame_U, size, hidden_TD, length in zip(
    *heard, hidden_BTD, lengths_B, strict=True
  ):
    expected, frames = _loop(decoder, hidden_TD, length)
    assert labels_U[:size].tolist() == expected
    assert frame_U[:size].tolist() == frames
    sizes.add(len(expected))
  if blank == -100.0 and name != "tdt":  # as much as there is room for
    assert sizes == {FRAMES, 4, 6}
  else:
    assert sizes != {0}


def test_a_frame_says_so_much_and_no_more():
  decoder = inclined(make("stateless"), -100.0)
  frames = 2 * MOST
  other_TD = hidden(frames=frames)
  heard = [greedy(decoder, other_TD[None], np.array([frames])).labels_U[0]]
  assert heard[0].tolist() == _loop(decoder, other_TD, frames)[0]
  other_TD[1] *= -1  # the second frame says the second half
  heard.append(greedy(decoder, other_TD[None], np.array([frames])).labels_U[0])
  same = np.equal(*heard)
  assert same[:MOST].all()
  assert not same[MOST:].all()
