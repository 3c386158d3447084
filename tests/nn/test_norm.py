"""Layer norms: Flax's, in values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hra.nn.norm import LayerNorm, standardized
from hra.nn.sums import channel_sum

WIDTH = 16


def _pair(dtype, *, bias=True):
  """Ours and Flax's, with the same parameters."""
  rng = np.random.default_rng(0)
  parameters = rng.standard_normal((2, WIDTH))
  for kind in (LayerNorm, nnx.LayerNorm):
    made = kind(
      WIDTH,
      epsilon=1e-3,
      use_bias=bias,
      dtype=dtype,
      param_dtype=jnp.result_type(float),
      rngs=nnx.Rngs(0),
    )
    made.scale[...] = jnp.asarray(parameters[0])
    if bias:
      made.bias[...] = jnp.asarray(parameters[1])
    yield made


def _hidden(dtype=None):
  rng = np.random.default_rng(1)
  return jnp.asarray(3 + rng.standard_normal((3, 5, WIDTH)), dtype)


@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_flax_ones(bias):
  with jax.enable_x64():
    hidden = _hidden()
    weight = jnp.cos(jnp.arange(hidden.size)).reshape(hidden.shape)

    def loss(norm, hidden):
      return (weight * norm(hidden)).sum()

    found, expected = (
      jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(norm, hidden)
      for norm in _pair(jnp.float64, bias=bias)
    )
    ours, theirs = jax.tree.leaves(found), jax.tree.leaves(expected)
    assert len(ours) == (4 if bias else 3)
    for a, b in zip(ours, theirs, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_16_bits_enter_and_leave_and_float32_is_between():
  """So that one rounding is all that tells them from exact ones."""
  hidden = _hidden(jnp.bfloat16)
  ours = next(_pair(jnp.bfloat16))(hidden)
  _, exact = (norm(hidden.astype(jnp.float32)) for norm in _pair(jnp.float32))
  assert ours.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    ours.astype(jnp.float32), exact, rtol=2**-8, atol=1e-6
  )
  assert standardized(hidden, 1e-3).dtype == jnp.float32


def test_a_frame_of_equal_numbers_is_zero_and_has_a_gradient():
  value, gradient = jax.value_and_grad(
    lambda x: (jnp.arange(WIDTH) * standardized(x, 1e-5)).sum()
  )(jnp.full((2, WIDTH), 7.0))
  assert value == 0
  assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
  ("platform", "multiplies"), [("cpu", True), ("cuda", False), ("tpu", False)]
)
def test_only_cpus_multiply_by_ones(platform, multiplies):
  """Others would round what they multiply."""
  lowered = (
    jax.jit(channel_sum)
    .trace(jnp.ones((3, WIDTH)))
    .lower(lowering_platforms=(platform,))
    .as_text()
  )
  assert ("dot_general" in lowered) == multiplies
  assert ("stablehlo.reduce" in lowered) != multiplies
