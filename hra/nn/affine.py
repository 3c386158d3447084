"""Affine maps whose parameters come as plain arrays, as adapters hold them."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """x kernel: multiplied in x's type, summed in at least float32."""
  return _product(x, kernel.astype(x.dtype))


@jax.custom_vjp
def _product(x: jax.Array, kernel_IO: jax.Array) -> jax.Array:
  return _contracted(x, kernel_IO, (x.ndim - 1,), (0,))


def _product_forward(
  x: jax.Array, kernel_IO: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _product(x, kernel_IO), (x, kernel_IO)


def _product_backward(
  kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """JAX's gradients, of which the kernel's has its shorter side first.

  As K small products [K, I, T] [K, T, O], XLA's CPU backend takes three times as long
  for I rows as for O, and left to itself turns what is long: of LoRA's step, a fifth.
  """
  x, kernel_IO = kept
  inputs, outputs = kernel_IO.shape
  frames = tuple(range(x.ndim - 1))
  if inputs <= outputs:
    by_kernel = _contracted(x, gradient, frames, frames)
  else:
    turned = _contracted(gradient, x, frames, frames)
    # Else XLA would see through it, and compute it the other way.
    by_kernel = jax.lax.optimization_barrier(turned).T
  by_x = _contracted(gradient, kernel_IO, (x.ndim - 1,), (1,))
  return by_x.astype(x.dtype), by_kernel.astype(kernel_IO.dtype)


def _contracted(
  a: jax.Array, b: jax.Array, a_axes: Sequence[int], b_axes: Sequence[int]
) -> jax.Array:
  return jax.lax.dot_general(
    a,
    b,
    ((a_axes, b_axes), ((), ())),
    preferred_element_type=jnp.promote_types(a.dtype, jnp.float32),
  )


_product.defvjp(_product_forward, _product_backward)


def affine(x: jax.Array, layer: Mapping[str, jax.Array]) -> jax.Array:
  """x kernel + bias, in at least float32."""
  summed = product(x, layer["kernel"])
  return summed + layer["bias"].astype(summed.dtype)
