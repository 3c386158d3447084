"""Full fine-tuning, each task its own: the baseline that all adapters save.

A row is a difference from the backbone, of as many numbers as the backbone has; it
starts at zero and is added before the layers run. Every task in a batch then
computes with weights of its own, so it stays outside task spaces, mixed batches and
the laws of cost.
"""

import dataclasses

import jax
import jax.numpy as jnp

from hra.adapters.interface import Frozen, Tree
from hra.backbone.network import Backbone
from hra.config import BackboneConfig
from hra.sharding import named_leaves, nested, path_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Full(Frozen):
  """All weights of the backbone of `config` that hears `mels` bins."""

  config: BackboneConfig
  mels: int
  param_dtype: str = "float32"

  def init_task(self, key: jax.Array) -> Tree:
    shapes = jax.eval_shape(
      lambda key: Backbone(self.config, mels=self.mels, key=key), key
    )
    dtype = jnp.dtype(self.param_dtype)
    zeros = {
      path: jnp.zeros(leaf.shape, dtype) for path, leaf in named_leaves(shapes)
    }
    return {"backbone": nested(zeros)}

  def merge(self, row: Tree, backbone: Backbone) -> Backbone:
    """Sums in the wider type, so that bfloat16 weights lose no small step."""
    deltas = dict(named_leaves(row["backbone"]))
    return jax.tree_util.tree_map_with_path(
      lambda keys, leaf: leaf + deltas[path_of(keys)], backbone
    )
