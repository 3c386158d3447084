"""The two number types of a layer, handed on together."""

from typing import TypedDict

from jax.typing import DTypeLike


class Types(TypedDict):
  """In what a layer computes, and in what it keeps its parameters."""

  dtype: DTypeLike
  param_dtype: DTypeLike
