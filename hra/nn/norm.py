"""Layer norms (Ba et al. 2016), and the standardising that they begin with."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from hra.config import ConformerConfig
from hra.nn.sums import channel_mean
from hra.nn.types import Types

EPSILON = 1e-5
"""Where nothing else is said."""


class LayerNorm(nnx.LayerNorm):
  """Flax's parameters and types, by `standardized`."""

  def __call__(
    self, hidden: jax.Array, *, mask: jax.Array | None = None
  ) -> jax.Array:
    """hidden [..., D], whose channels all count."""
    assert mask is None
    x = standardized(hidden, self.epsilon)
    if self.scale is not None:
      x = x * self.scale[...].astype(x.dtype)
    if self.bias is not None:
      x = x + self.bias[...].astype(x.dtype)
    return x.astype(self.dtype or hidden.dtype)


def standardized(hidden: jax.Array, epsilon: float) -> jax.Array:
  """[..., D] with mean 0 and variance 1 of each frame, in at least float32."""
  exact = jnp.promote_types(hidden.dtype, jnp.float32)
  return _standardized(hidden.astype(exact), epsilon)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _standardized(x: jax.Array, epsilon: float) -> jax.Array:
  return _standardized_forward(x, epsilon)[0]


def _standardized_forward(
  x: jax.Array, epsilon: float
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  centered = x - channel_mean(x)
  rate = jax.lax.rsqrt(channel_mean(jnp.square(centered)) + epsilon)
  normed = centered * rate
  return normed, (normed, rate)


def _standardized_backward(
  epsilon: float, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array]:
  """Two sums, where JAX finds five by itself."""
  del epsilon
  normed, rate = kept
  along = channel_mean(gradient * normed)
  return (rate * (gradient - channel_mean(gradient) - normed * along),)


_standardized.defvjp(_standardized_forward, _standardized_backward)


def layer_norm(
  width: int, *, parts: ConformerConfig, types: Types, rngs: nnx.Rngs
) -> LayerNorm:
  """A norm over the channels of each frame."""
  return LayerNorm(
    width,
    epsilon=parts.norm_epsilon,
    use_bias=parts.norm_bias,
    rngs=rngs,
    **types,
  )
