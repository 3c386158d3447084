"""BitFit: each task its own biases (Ben Zaken et al. 2021, arXiv 2106.10199).

    y <- y + delta          for every projection and every layer norm of a layer

A row holds differences from the backbone's biases, which start at zero: one number
for each output of each site. Relative attention's two biases, which are part of its
scores and no term of a projection, are left alone.
"""

import dataclasses

import jax
import jax.numpy as jnp

from hra.adapters.interface import Frozen, Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class BitFit(Frozen):
  """Biases of `sites` in each of `layers` layers."""

  layers: int
  sites: tuple[tuple[str, int], ...]
  """(site, outputs)."""
  param_dtype: str = "float32"

  def init_task(self, key: jax.Array) -> Tree:
    del key
    dtype = jnp.dtype(self.param_dtype)
    return {
      "layers": {
        site: {"bias": jnp.zeros((self.layers, outputs), dtype)}
        for site, outputs in self.sites
      }
    }

  def tap(
    self,
    shared: Tree,
    row: Tree,
    layer: jax.Array,
    site: str,
    inputs: jax.Array,
    outputs: jax.Array,
  ) -> jax.Array:
    del shared, layer, inputs
    own = row["layers"].get(site)
    if own is None:
      return outputs
    exact = jnp.promote_types(outputs.dtype, jnp.float32)
    moved = outputs.astype(exact) + own["bias"].astype(exact)
    return moved.astype(outputs.dtype)
