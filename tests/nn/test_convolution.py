"""Convolutions against XLA's own; what may influence what; lengths."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hra.nn.convolution import (
  ConvolutionModule,
  DepthwiseConvolution,
  Subsampling,
  subsampled,
)
from hra.nn.types import Types

FLOAT32 = Types(dtype=jnp.dtype("float32"), param_dtype=jnp.dtype("float32"))
WIDTH, FRAMES, MELS = 4, 9, 3


def _random(build, seed=0):
  """The module with every parameter random, biases included."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype),
    jax.eval_shape(build),
  )


def _filter(kind, *, kernel, causal):
  return _random(
    lambda: kind(
      WIDTH, kernel=kernel, causal=causal, types=FLOAT32, rngs=nnx.Rngs(0)
    )
  )


def _subsampling(causal):
  return _random(
    lambda: Subsampling(
      MELS,
      channels=8,
      width=WIDTH,
      causal=causal,
      types=FLOAT32,
      rngs=nnx.Rngs(0),
    )
  )


def _frames(frames, width=WIDTH, seed=1):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((frames, width)).astype(np.float32)


@pytest.mark.parametrize("kernel", [1, 4, 5])
@pytest.mark.parametrize("causal", [False, True])
def test_depthwise_equals_grouped_convolution_and_its_gradients(kernel, causal):
  layer = _filter(DepthwiseConvolution, kernel=kernel, causal=causal)
  hidden_TD, weight_TD = _frames(FRAMES), _frames(FRAMES, seed=2)
  before = kernel - 1 if causal else (kernel - 1) // 2

  def grouped(taps_KD, hidden_TD):
    return jax.lax.conv_general_dilated(
      hidden_TD[None],
      taps_KD[:, None, :],
      window_strides=(1,),
      padding=[(before, kernel - 1 - before)],
      dimension_numbers=("NWC", "WIO", "NWC"),
      feature_group_count=WIDTH,
    )[0]

  def ours(taps_KD, hidden_TD):
    return jax.tree.map(lambda _: taps_KD, layer)(hidden_TD)

  taps_KD = layer.kernel[...]
  for each in (ours, jax.vmap(ours, in_axes=(None, 1), out_axes=1)):
    several = each is not ours
    given = hidden_TD[:, None] if several else hidden_TD
    found, pullback = jax.vjp(each, taps_KD, given)
    expected, expected_pullback = jax.vjp(grouped, taps_KD, hidden_TD)
    gradients = pullback(weight_TD[:, None] if several else weight_TD)
    for one, other in zip(
      (found, *gradients),
      (expected, *expected_pullback(weight_TD)),
      strict=True,
    ):
      np.testing.assert_allclose(
        np.reshape(one, other.shape), other, rtol=1e-5, atol=1e-5
      )


@jax.jit
def _influence(module, hidden_TD, valid_T):
  """[output frame, input frame] norms of the derivative."""
  derivative = jax.jacrev(lambda x: module(x, valid_T))(hidden_TD)
  return jnp.abs(derivative).sum(axis=(1, 3))


@pytest.mark.parametrize("kernel", [4, 5])
@pytest.mark.parametrize("causal", [False, True])
def test_module_hears_its_window_and_no_padding(kernel, causal):
  module = _filter(ConvolutionModule, kernel=kernel, causal=causal)
  length = FRAMES - 2
  valid_T = np.arange(FRAMES) < length
  influence = _influence(module, _frames(FRAMES), valid_T)
  before = kernel - 1 if causal else (kernel - 1) // 2
  for out in range(FRAMES):
    heard = np.flatnonzero(influence[out]).tolist()
    window = range(out - before, out - before + kernel)
    assert heard == [t for t in window if 0 <= t < length]


def test_module_is_the_same_for_any_padding():
  module = _filter(ConvolutionModule, kernel=5, causal=False)
  apply = jax.jit(module.__call__)
  valid_T = np.arange(FRAMES) < 6
  clean_TD = _frames(FRAMES)
  dirty_TD = np.where(valid_T[:, None], clean_TD, np.float32(1e4))
  np.testing.assert_array_equal(
    apply(clean_TD, valid_T)[:6], apply(dirty_TD, valid_T)[:6]
  )


def test_subsampled_is_a_quarter_rounded_up_twice():
  module = _subsampling(causal=False)
  for frames in range(1, 14):
    halved = -(-frames // 2)
    expected = -(-halved // 2)
    assert subsampled(frames) == expected
    shape = jax.ShapeDtypeStruct((frames, MELS), jnp.float32)
    hidden_TD, _ = jax.eval_shape(module, shape, jnp.array(frames))
    assert hidden_TD.shape == (expected, WIDTH)


@pytest.fixture(scope="module")
def subsample():
  """mel_TF, length, causal -> hidden_TD, length; one program per shape."""
  modules = [_subsampling(causal) for causal in (False, True)]

  @functools.partial(jax.jit, static_argnums=2)
  def apply(mel_TF, length, causal=False):
    return modules[causal](mel_TF, length)

  return apply


def test_lengths_are_those_of_the_shapes(subsample):
  mel_TF = _frames(13, MELS)
  for length in range(14):
    assert int(subsample(mel_TF, length)[1]) == subsampled(length)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [1, 6, 7, 8, 9])
def test_subsampling_is_independent_of_padding(subsample, causal, length):
  mel_TF = _frames(13, MELS)
  alone, _ = subsample(mel_TF[:length], length, causal)
  padded_TF = mel_TF.copy()
  padded_TF[length:] = 1e4
  padded, valid = subsample(padded_TF, length, causal)
  assert len(alone) == int(valid)
  np.testing.assert_allclose(alone, padded[: len(alone)], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  ("causal", "before", "after"), [(False, 3, 3), (True, 6, 0)]
)
def test_receptive_field_of_subsampling(subsample, causal, before, after):
  """Two convolutions of 3 at stride 2 see 7 frames; causal ones none later."""
  mel_TF = _frames(13, MELS)
  derivative = jax.jacrev(lambda x: subsample(x, 13, causal)[0])(mel_TF)
  influence = np.abs(derivative).sum(axis=(1, 3))
  for out in range(len(influence)):
    heard = np.flatnonzero(influence[out])
    assert heard.min() == max(0, 4 * out - before)
    assert heard.max() == min(12, 4 * out + after)
