"""Projections in 8 bits: how far from the original, and exactly what they compute."""

import builtins

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hra.errors import InputError
from hra.nn.int8 import Int8Linear

qwix = pytest.importorskip("qwix")


def _linear(*, dtype=jnp.float32, bias=True, layers=()):
  def one(key):
    made = nnx.Linear(24, 40, use_bias=bias, dtype=dtype, rngs=nnx.Rngs(key))
    if bias:
      made.bias[...] = jax.random.normal(jax.random.key(3), (40,))
    return made

  key = jax.random.key(0)
  return jax.vmap(one)(jax.random.split(key, *layers)) if layers else one(key)


def _floats(made):
  return np.asarray(made.kernel[...], np.float32) * np.asarray(made.scale[...])


def test_weights_are_wrong_by_half_a_step_at_most():
  linear = _linear(layers=(3,))
  made = Int8Linear(linear)
  assert (made.kernel.shape, made.kernel.dtype) == ((3, 24, 40), jnp.int8)
  assert (made.scale.shape, made.scale.dtype) == ((3, 1, 40), jnp.float32)
  wrong = np.abs(_floats(made) - np.asarray(linear.kernel[...]))
  assert np.all(wrong <= 0.5001 * np.asarray(made.scale[...]))
  assert wrong.max() > 0.4 * np.asarray(made.scale[...]).min()
  # Each output of each layer uses the whole range.
  largest = np.abs(np.asarray(linear.kernel[...])).max(axis=1)
  np.testing.assert_allclose(
    np.asarray(made.scale[...])[:, 0], largest / 127.5, rtol=1e-6
  )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_computes_with_these_weights_as_any_projection(bias, dtype):
  linear = _linear(dtype=dtype, bias=bias)
  made = Int8Linear(linear)
  linear.kernel[...] = jnp.asarray(_floats(made))
  inputs = jax.random.normal(jax.random.key(1), (7, 24), dtype)

  def told(module):
    def loss(inputs):
      return jnp.sin(module(inputs).astype(jnp.float32)).sum()

    return module(inputs), jax.grad(loss)(inputs)

  for ours, theirs in zip(told(made), told(linear), strict=True):
    assert ours.dtype == theirs.dtype == dtype
    most = 1e-5 if dtype == jnp.float32 else 0.03
    np.testing.assert_allclose(
      np.asarray(ours, np.float32),
      np.asarray(theirs, np.float32),
      atol=most * np.abs(np.asarray(theirs, np.float32)).max(),
    )


def test_asks_for_what_it_needs(monkeypatch):
  real = builtins.__import__

  def without(name, *others, **named):
    if name == "qwix":
      raise ImportError(name)
    return real(name, *others, **named)

  linear = _linear()
  monkeypatch.setattr(builtins, "__import__", without)
  with pytest.raises(InputError, match=r"pip install 'hra\[int8\]'"):
    Int8Linear(linear)
