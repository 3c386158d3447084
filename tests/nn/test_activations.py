"""Activations against closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hra.nn.activations import ACTIVATIONS

GELU = ACTIVATIONS["gelu"]
POINTS = np.linspace(-6, 6, 241)


def _phi(x: np.ndarray) -> np.ndarray:
  return np.array([0.5 * math.erfc(-each / math.sqrt(2)) for each in x])


@pytest.mark.parametrize(
  ("dtype", "apart"), [("float32", 1e-6), ("float64", 1e-15)]
)
def test_gelu_is_what_a_gaussian_lets_through(dtype, apart):
  with jax.enable_x64(dtype == "float64"):
    x = jnp.asarray(POINTS, dtype)
    given = np.asarray(x, np.float64)
    density = np.exp(-(given**2) / 2) / math.sqrt(2 * math.pi)
    value, slope = jax.vmap(jax.value_and_grad(GELU))(x)
    assert value.dtype == x.dtype
    np.testing.assert_allclose(value, given * _phi(given), rtol=0, atol=apart)
    np.testing.assert_allclose(
      slope, _phi(given) + given * density, rtol=0, atol=2 * apart
    )


def test_of_few_bits_it_is_as_near_as_they_allow():
  """1 + erf(x) would lose in them what is left of it below zero."""
  x = jnp.asarray(POINTS[np.abs(POINTS) < 4], jnp.bfloat16)
  got = GELU(x)
  assert got.dtype == jnp.bfloat16
  given = np.asarray(x, np.float64)
  np.testing.assert_allclose(
    np.asarray(got, np.float64), given * _phi(given), rtol=2**-8, atol=1e-6
  )
