"""The hook by which an adapter reaches inside a layer."""

from collections.abc import Callable

import jax

Tap = Callable[[str, jax.Array, jax.Array], jax.Array]
"""`tap(site, input_TD, output_TD) -> output_TD`; sites are parameter paths."""


def no_tap(site: str, inputs: jax.Array, outputs: jax.Array) -> jax.Array:
  """Leaves every output as it is."""
  del site, inputs
  return outputs
