"""Frozen projections whose weights are kept in 8 bits, by qwix.

A kernel becomes whole numbers from -128 to 127, exact in bfloat16 too, and a float32
scale for each output of each layer. qwix makes them when a backbone is loaded; what
is compiled is plain JAX.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from hra.errors import InputError


class Quantised(NamedTuple):
  """A kernel in 8 bits."""

  kernel: jax.Array
  scale: jax.Array


def quantised(kernel: jax.Array) -> Quantised:
  """Of a kernel [..., inputs, outputs].

  Raises:
    InputError: qwix isn't installed.
  """
  outputs = [axis for axis in range(kernel.ndim) if axis != kernel.ndim - 2]
  made = _qwix().quantize(
    jnp.asarray(kernel, jnp.float32), jnp.int8, channelwise_axes=outputs
  )
  return Quantised(made.qvalue, made.scale)


class Int8Linear(nnx.Module):
  """What an `nnx.Linear` computes, of a kernel in 8 bits."""

  def __init__(self, linear: nnx.Linear):
    """Quantises a projection, or a stack of them.

    Raises:
      InputError: qwix isn't installed.
    """
    made = quantised(linear.kernel[...])
    self.kernel = nnx.Param(made.kernel)
    self.scale = nnx.Param(made.scale)
    self.bias = linear.bias
    self.dtype = linear.dtype

  def __call__(self, inputs: jax.Array) -> jax.Array:
    # Outputs are scaled, not weights: those would be kept for the backward pass,
    # layer after layer a copy of the whole backbone.
    outputs = inputs.astype(self.dtype) @ self.kernel[...].astype(self.dtype)
    scale = self.scale[...].reshape(-1)
    outputs = (outputs * scale).astype(self.dtype)
    if self.bias is None:
      return outputs
    return outputs + self.bias[...].astype(self.dtype)


def quantise(module: nnx.Module) -> None:
  """Makes every projection below a module an `Int8Linear`, in place."""
  for name, child in list(vars(module).items()):
    if type(child) is nnx.Linear:
      setattr(module, name, Int8Linear(child))
    elif isinstance(child, nnx.Module):
      quantise(child)


def _qwix() -> Any:
  try:
    import qwix  # a leaf: an extra, and slow to import
  except ImportError as error:
    raise InputError(
      "config.backbone.weights",
      expected="'float', where qwix isn't installed",
      got="'int8'",
      fix="pip install 'hra[int8]'",
    ) from error
  return qwix
