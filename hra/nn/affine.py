"""Affine maps whose parameters come as plain arrays, as adapters hold them."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """x kernel: multiplied in x's type, summed in at least float32."""
  return jnp.dot(
    x,
    kernel.astype(x.dtype),
    preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
  )


def affine(x: jax.Array, layer: Mapping[str, jax.Array]) -> jax.Array:
  """x kernel + bias, in at least float32."""
  summed = product(x, layer["kernel"])
  return summed + layer["bias"].astype(summed.dtype)
