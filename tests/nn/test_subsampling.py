"""Subsampling: lengths, what hears of what, and padding, for each kind."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hra.config import BackboneConfig
from hra.nn.subsampling import SUBSAMPLINGS, subsampled

WIDTH, MELS = 4, 5
KINDS = {
  "ours": BackboneConfig(width=WIDTH),
  "ours, causal": BackboneConfig(width=WIDTH, causal=True),
  "dense": BackboneConfig(
    width=WIDTH, subsampling="dense_convolution", subsampling_kernel=5
  ),
  "separable": BackboneConfig(
    width=WIDTH, subsampling="separable", subsampling_halvings=3
  ),
  "separable, even": BackboneConfig(
    width=WIDTH,
    subsampling="separable",
    subsampling_halvings=2,
    subsampling_kernel=4,
  ),
  "projection": BackboneConfig(
    width=WIDTH, subsampling="projection", subsampling_halvings=0
  ),
}
FRAMES = 21


@functools.cache
def _module(kind):
  """Every parameter random, biases included."""
  config = KINDS[kind]
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape).astype(leaf.dtype),
    jax.eval_shape(
      lambda: SUBSAMPLINGS[config.subsampling](
        config, mels=MELS, rngs=nnx.Rngs(0)
      )
    ),
  )


@functools.partial(jax.jit, static_argnums=0)
def _subsample(kind, mel_TF, length):
  return _module(kind)(mel_TF, length)


def _frames(frames, seed=1):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((frames, MELS)).astype(np.float32)


@pytest.fixture(params=KINDS)
def kind(request):
  return request.param


def test_lengths_are_those_of_the_shapes(kind):
  """Of one frame at least, so that every clip has a shape."""
  for frames in range(1, 30):
    shape = jax.ShapeDtypeStruct((frames, MELS), jnp.float32)
    hidden_TD, length = jax.eval_shape(
      _module(kind), shape, jax.ShapeDtypeStruct((), jnp.int32)
    )
    expected = subsampled(frames, KINDS[kind])
    assert hidden_TD.shape == (max(expected, 1), WIDTH)
    assert length.shape == ()
  lengths = np.arange(FRAMES + 1)
  traced = jax.vmap(lambda length: _module(kind)(_frames(FRAMES), length)[1])
  expected = [subsampled(int(length), KINDS[kind]) for length in lengths]
  np.testing.assert_array_equal(jax.jit(traced)(lengths), expected)
  np.testing.assert_array_equal(subsampled(lengths, KINDS[kind]), expected)


def test_ours_is_a_quarter_rounded_up_twice():
  for frames in range(40):
    half = (frames + 1) // 2
    assert subsampled(frames, KINDS["ours"]) == (half + 1) // 2


@pytest.mark.parametrize("length", [1, 14, 15, 17])
def test_independent_of_padding(kind, length):
  mel_TF = _frames(FRAMES)
  alone, valid = _subsample(kind, mel_TF[:length], length)
  padded_TF = mel_TF.copy()
  padded_TF[length:] = 1e4
  padded, padded_valid = _subsample(kind, padded_TF, length)
  count = int(valid)
  assert count == int(padded_valid)
  np.testing.assert_allclose(
    alone[:count], padded[:count], rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize(
  ("kind", "before", "after", "factor"),
  [
    ("ours", 3, 3, 4),
    ("ours, causal", 6, 0, 4),
    ("dense", 0, 12, 4),
    ("separable", 7, 7, 8),
    ("separable, even", 3, 6, 4),
    ("projection", 0, 0, 1),
  ],
)
def test_receptive_field(kind, before, after, factor):
  mel_TF = _frames(FRAMES)
  derivative = jax.jit(
    jax.jacrev(lambda x: _module(kind)(x, jnp.array(FRAMES))[0])
  )(mel_TF)
  influence = np.abs(derivative).sum(axis=(1, 3))
  for out in range(len(influence)):
    heard = np.flatnonzero(influence[out])
    assert heard.min() == max(0, factor * out - before)
    assert heard.max() == min(FRAMES - 1, factor * out + after)
