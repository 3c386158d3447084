"""What every decoder promises, whatever it is made of."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from decoding import CONFIGS, FRAMES, LABELS_U, greedy, hidden, losses, make
from flax import nnx

from hra.decoders.beam import search
from hra.decoders.families import DECODERS
from hra.sharding import named_leaves


@pytest.fixture(params=CONFIGS)
def decoder(request):
  return make(request.param)


def test_padding_changes_nothing(decoder):
  """Of frames and of labels, be it anything."""
  clean_TD, soiled_TD = hidden(), hidden(seed=1)
  soiled_TD[:6] = clean_TD[:6]
  labels_BU = np.stack([LABELS_U, np.array([3, 1, 6, 7], np.int32)])
  found, of_decoder, of_hidden = losses(
    decoder, [clean_TD, soiled_TD], [6, 6], labels_BU, [2, 2]
  )
  for leaf in jax.tree.leaves((found, of_decoder)):
    np.testing.assert_allclose(leaf[0], leaf[1], rtol=1e-5, atol=1e-6)
  assert (np.asarray(of_hidden)[:, 6:] == 0).all()
  heard = greedy(decoder, np.stack([clean_TD, soiled_TD]), np.array([6, 6]))
  for leaf in heard:
    np.testing.assert_array_equal(leaf[0], leaf[1])


@pytest.mark.parametrize(("length", "label_length"), [(0, 2), (3, 0), (0, 0)])
def test_without_frames_or_labels_an_utterance_weighs_nothing(
  decoder, length, label_length
):
  found, *gradients = losses(
    decoder, hidden()[None], [length], LABELS_U[None], [label_length]
  )
  assert (found.total[0], found.weight[0]) == (0, 0)
  for leaf in jax.tree.leaves(gradients):
    np.testing.assert_array_equal(leaf, 0)


def test_gradients_reach_every_parameter(decoder):
  found, of_decoder, of_hidden = losses(
    decoder, [hidden()] * 2, [FRAMES] * 2, [LABELS_U, LABELS_U[::-1]], [4, 3]
  )
  assert (np.asarray(found.weight) > 0).all()
  assert (np.asarray(of_hidden)[0] != 0).all()
  for path, leaf in named_leaves(of_decoder):
    largest = np.abs(leaf).max()
    assert largest > 1e-6, f"{path}: {largest}"


def test_no_more_is_heard_than_there_are_frames(decoder):
  heard = greedy(
    decoder, np.stack([hidden(seed) for seed in range(6)]), np.arange(6)
  )
  labels_BU, lengths_B = map(np.asarray, heard)
  assert labels_BU.shape == (6, FRAMES)
  assert (lengths_B <= np.arange(6)).all()
  for labels_U, length in zip(labels_BU, lengths_B, strict=True):
    assert (labels_U[:length] > 0).all()
    assert (labels_U[length:] == 0).all()


def test_logits_are_float32_though_the_decoder_is_not():
  for name, decoder in CONFIGS.items():
    config = dataclasses.replace(
      tiny.BACKBONE, decoder=decoder, dtype="bfloat16"
    )
    shapes = jax.eval_shape(
      lambda key, config=config: DECODERS[config.decoder.kind](
        config, rngs=nnx.Rngs(key)
      ).logits(jnp.zeros((FRAMES, 16), jnp.bfloat16), FRAMES, LABELS_U),
      jax.random.key(0),
    )
    assert shapes.dtype == jnp.float32, name


@functools.partial(jax.jit, static_argnames="beam")
def _search(decoder, hidden_TD, length, *, beam):
  scorer = decoder.scorer(hidden_TD, length)
  return search(scorer, labels=len(LABELS_U), beam=beam)


@pytest.mark.parametrize("name", ["ctc", "rnnt", "stateless", "las"])
def test_beam_search_totals_are_the_decoders_losses(name):
  """What is pruned may take from a sentence's mass, but nothing adds to it."""
  decoder = make(name)
  found = _search(decoder, hidden(), 6, beam=12)
  there = np.asarray(found.total_W) > -np.inf
  there &= np.asarray(found.length_W) > 0  # an empty transcript has no loss
  count = there.sum()
  assert count > 5
  losses_B, *_ = losses(
    decoder,
    [hidden()] * count,
    [6] * count,
    found.labels_WU[there],
    found.length_W[there],
  )
  expected = -np.asarray(losses_B.total)
  got = np.asarray(found.total_W[there])
  if name == "las":
    np.testing.assert_allclose(got, expected, rtol=1e-4)
  assert (got <= expected + 1e-3).all()
  np.testing.assert_allclose(got[0], expected[0], rtol=1e-2)
