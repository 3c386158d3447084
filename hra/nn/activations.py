"""The registry: an activation's name in a config -> the function."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp


def _gelu(x: jax.Array) -> jax.Array:
  """x Phi(x) (Hendrycks and Gimpel 2016, section 2), in at least float32.

  By erf, as torch has it: `jax.nn.gelu` takes erfc, which costs XLA's CPU backend
  1.7 times as much.
  """
  exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  below = 0.5 * (1 + jax.lax.erf(exact * math.sqrt(0.5)))
  return (exact * below).astype(x.dtype)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "silu": jax.nn.silu,
  "relu": jax.nn.relu,
  "gelu": _gelu,
  "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
  "tanh": jnp.tanh,
}
