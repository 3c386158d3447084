"""What a machine can do at best, measured by JAX: products and copies."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Rates(NamedTuple):
  flops: float
  """A second, of the fastest product."""
  size: int
  """Of its square matrices."""
  bytes: float
  """A second, read and written, of the fastest copy."""


def measured(
  dtype: str, *, sizes: tuple[int, ...], mebibytes: int, repeats: int = 5
) -> Rates:
  """The best of several, by all threads that XLA takes.

  Args:
    dtype: of the products.
    sizes: of square matrices.
    mebibytes: of the array that is copied: far more than caches hold.
  """
  product = jax.jit(lambda a, b: a @ b)
  found = []
  for size in sizes:
    keys = jax.random.split(jax.random.key(size))
    a, b = (
      jax.random.normal(key, (size, size), jnp.dtype(dtype)) for key in keys
    )
    seconds = _best(lambda a=a, b=b: product(a, b), repeats)
    found.append((2 * size**3 / seconds, size))
  x = jnp.ones((mebibytes, 2**18), jnp.float32)
  copy = jax.jit(lambda x: -x)
  return Rates(*max(found), 2 * x.nbytes / _best(lambda: copy(x), repeats))


def _best(run: Callable[[], Any], repeats: int) -> float:
  jax.block_until_ready(run())
  seconds = []
  for _ in range(repeats):
    began = time.perf_counter()
    jax.block_until_ready(run())
    seconds.append(time.perf_counter() - began)
  return min(seconds)
