"""The convolution module against XLA's own; what may influence what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hra.config import ConformerConfig
from hra.nn.convolution import (
  ConvolutionModule,
  DepthwiseConvolution,
)
from hra.nn.types import Types

FLOAT32 = Types(dtype=jnp.dtype("float32"), param_dtype=jnp.dtype("float32"))
WIDTH, FRAMES = 4, 9


def _random(build, seed=0):
  """The module with every parameter random, biases included."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype),
    jax.eval_shape(build),
  )


def _filter(kind, *, kernel, causal, **others):
  return _random(
    lambda: kind(
      WIDTH,
      kernel=kernel,
      causal=causal,
      types=FLOAT32,
      rngs=nnx.Rngs(0),
      **others,
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
  module = _filter(
    ConvolutionModule, kernel=kernel, causal=causal, parts=ConformerConfig()
  )
  length = FRAMES - 2
  valid_T = np.arange(FRAMES) < length
  influence = _influence(module, _frames(FRAMES), valid_T)
  before = kernel - 1 if causal else (kernel - 1) // 2
  for out in range(FRAMES):
    heard = np.flatnonzero(influence[out]).tolist()
    window = range(out - before, out - before + kernel)
    assert heard == [t for t in window if 0 <= t < length]


def test_module_is_the_same_for_any_padding():
  module = _filter(
    ConvolutionModule, kernel=5, causal=False, parts=ConformerConfig()
  )
  apply = jax.jit(module.__call__)
  valid_T = np.arange(FRAMES) < 6
  clean_TD = _frames(FRAMES)
  dirty_TD = np.where(valid_T[:, None], clean_TD, np.float32(1e4))
  np.testing.assert_array_equal(
    apply(clean_TD, valid_T)[:6], apply(dirty_TD, valid_T)[:6]
  )


def test_a_folded_batch_norm_is_the_batch_norm():
  """Its scale and shift are the filter's, in place of a norm."""
  parts = ConformerConfig(convolution_norm="folded")
  module = _filter(ConvolutionModule, kernel=5, causal=False, parts=parts)
  hidden_TD, valid_T = _frames(FRAMES), np.arange(FRAMES) < 7
  heard = {}

  def tap(site, inputs, outputs):
    heard[site] = (inputs, outputs)
    return outputs

  module(hidden_TD, valid_T, tap=tap)
  assert list(heard) == [
    "convolution.gate",
    "convolution.depthwise",
    "convolution.output",
  ]
  inputs_TD, outputs_TD = heard["convolution.depthwise"]
  padded_TD = np.pad(inputs_TD, ((2, 2), (0, 0)))
  taps_KD = np.asarray(module.depthwise.kernel[...])
  expected_TD = module.depthwise.bias[...] + sum(
    taps_KD[k] * padded_TD[k : k + FRAMES] for k in range(5)
  )
  np.testing.assert_allclose(outputs_TD, expected_TD, rtol=1e-5, atol=1e-6)
