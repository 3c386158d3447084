"""Sums over the last axis."""

import jax
import jax.numpy as jnp


def channel_sum(x: jax.Array) -> jax.Array:
  """x [..., D] -> [..., 1], added in x's type.

  On CPUs as a product with ones: XLA fuses reductions with what they add up and hands
  them to YNNPACK, which took 1 ms for 16 x 97 x 144 inside a training step; the step
  is a tenth faster so. Other backends fuse well, and would round what they multiply.
  """
  return jax.lax.platform_dependent(x, cpu=_multiplied, default=_reduced)


def channel_mean(x: jax.Array) -> jax.Array:
  """x [..., D] -> [..., 1]."""
  return channel_sum(x) / x.shape[-1]


def _multiplied(x: jax.Array) -> jax.Array:
  return jnp.dot(x, jnp.ones((x.shape[-1], 1), x.dtype))


def _reduced(x: jax.Array) -> jax.Array:
  return x.sum(axis=-1, keepdims=True)
