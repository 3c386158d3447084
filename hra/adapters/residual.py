"""Residual adapters: a bottleneck after each layer, each task its own.

    x_l <- x_l + up(relu(down(norm(x_l))))

Houlsby et al. 2019 (arXiv 1902.00751); behind each encoder layer, as in Bapna and
Firat 2019 (arXiv 1909.08478, section 2) and, for speech, Tomanek et al. 2021
(arXiv 2109.06952) and Submodels (Biadsy et al. 2022, arXiv 2203.12559, section 2).
`up` starts at zero, so a fresh row is the backbone. Of D residual channels, L
layers and a bottleneck of r, a row has L (2 D r + r + D) numbers; a norm of the
task's own adds 2 L D.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from hra.adapters.interface import Frozen, Tree
from hra.nn.affine import affine
from hra.nn.norm import standardized

_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Residual(Frozen):
  """Bottlenecks of `bottleneck` on `layers` layers of a stream of `width`.

  The norm standardises each frame; `per_task` then scales and shifts it by
  parameters of the row, which start at 1 and 0.
  """

  width: int
  layers: int
  bottleneck: int
  norm: Literal["frozen", "per_task"] = "frozen"
  param_dtype: str = "float32"

  def init_task(self, key: jax.Array) -> Tree:
    """down ~ N(0, 2/D) (He et al. 2015, for relu), all else at the identity."""
    dtype, depth = jnp.dtype(self.param_dtype), self.layers
    size = (depth, self.width, self.bottleneck)
    scale = (2 / self.width) ** 0.5
    row = {
      "down": {
        "kernel": scale * jax.random.normal(key, size, dtype),
        "bias": jnp.zeros((depth, self.bottleneck), dtype),
      },
      "up": {
        "kernel": jnp.zeros((depth, self.bottleneck, self.width), dtype),
        "bias": jnp.zeros((depth, self.width), dtype),
      },
    }
    if self.norm == "per_task":
      row["norm"] = {
        "scale": jnp.ones((depth, self.width), dtype),
        "bias": jnp.zeros((depth, self.width), dtype),
      }
    return {"layers": row}

  def after_layer(
    self,
    shared: Tree,
    row: Tree,
    layer: jax.Array,
    carry: Tree,
    hidden_TD: jax.Array,
  ) -> tuple[Tree, jax.Array]:
    del shared, layer
    own, dtype = row["layers"], hidden_TD.dtype
    normed_TD = standardized(hidden_TD, _EPSILON)
    if "norm" in own:
      scale_D, bias_D = (
        own["norm"][name].astype(normed_TD.dtype) for name in ("scale", "bias")
      )
      normed_TD = normed_TD * scale_D + bias_D
    inner_TI = jax.nn.relu(affine(normed_TD.astype(dtype), own["down"]))
    update_TD = affine(inner_TI.astype(dtype), own["up"])
    return carry, hidden_TD + update_TD.astype(dtype)
