"""The two number types of a layer, handed on together."""

from typing import TypedDict

import jax.numpy as jnp
from jax.typing import DTypeLike

from hra.config import BackboneConfig


class Types(TypedDict):
  """In what a layer computes, and in what it keeps its parameters."""

  dtype: DTypeLike
  param_dtype: DTypeLike


def types_of(config: BackboneConfig) -> Types:
  """Those of a backbone, its decoder included."""
  return Types(
    dtype=jnp.dtype(config.dtype), param_dtype=jnp.dtype(config.param_dtype)
  )
