"""Tiny decoders of every kind, and what they say of a few frames."""

import dataclasses
import functools

import jax
import numpy as np
import tiny
from flax import nnx

from hra.config import DecoderConfig
from hra.decoders.families import DECODERS

FRAMES = 9
SMALL = {"width": 8}
CONFIGS = {
  "ctc": DecoderConfig(),
  "rnnt": DecoderConfig(
    kind="rnnt", joint=8, embedding=6, layers=2, chunk=4, **SMALL
  ),
  "stateless": DecoderConfig(
    kind="rnnt", joint=8, prediction="stateless", context=2, **SMALL
  ),
  "tdt": DecoderConfig(
    kind="tdt", joint=8, embedding=6, durations=(0, 1, 3), **SMALL
  ),
  "las": DecoderConfig(
    kind="las", embedding=6, layers=2, attention=8, heads=2, location=3, **SMALL
  ),
  "las, one layer": DecoderConfig(
    kind="las", embedding=6, attention=8, label_smoothing=0.1, **SMALL
  ),
}


@functools.cache
def make(name):
  decoder = _drawn(name, jax.config.read("jax_enable_x64"))
  # Louder, so that what is heard depends on what is said.
  return jax.tree.map(lambda leaf: 3 * leaf, decoder)


@functools.cache
def _drawn(name, wide):
  del wide
  config = dataclasses.replace(tiny.BACKBONE, decoder=CONFIGS[name])

  @jax.jit
  def init(key):
    return DECODERS[config.decoder.kind](config, rngs=nnx.Rngs(key))

  return init(jax.random.key(0))


def hidden(seed=0, frames=FRAMES):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((frames, 16)).astype(np.float32)


LABELS_U = np.array([3, 1, 1, 2], np.int32)


@functools.cache
def _losses():
  def one(decoder, hidden_TD, length, labels_U, label_length):
    found = decoder.loss(hidden_TD, length, labels_U, label_length)
    return found.total, found

  function = jax.value_and_grad(one, argnums=(0, 1), has_aux=True)
  return jax.jit(jax.vmap(function, (None, 0, 0, 0, 0)))


def losses(decoder, hidden_BTD, lengths_B, labels_BU, label_lengths_B):
  """(Loss of each, gradients of the decoder [B, ...], of hidden_BTD)."""
  (_, found), (of_decoder, of_hidden) = _losses()(
    decoder,
    np.asarray(hidden_BTD),
    np.asarray(lengths_B),
    np.asarray(labels_BU),
    np.asarray(label_lengths_B),
  )
  return found, of_decoder, of_hidden


@jax.jit
def greedy(decoder, hidden_BTD, lengths_B):
  """Labels of each."""
  heard = jax.vmap(lambda *heard: decoder.greedy(*heard))
  return heard(hidden_BTD, lengths_B)


def inclined(decoder, by):
  """More inclined to say nothing, or to end, by the bias of label 0."""
  leaves, tree = jax.tree.flatten(decoder)
  other = jax.tree.unflatten(tree, leaves)
  other.output.bias[...] = other.output.bias[...].at[0].set(by)
  return other
