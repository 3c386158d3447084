"""Noise on the weights that a step's gradients are computed at (Graves 2011).

Enters: the backbone that is being trained. Leaves: the same with Gaussian noise on its
kernels and embeddings, drawn anew each step. The update goes to the weights without
it. LAS on LibriSpeech has 0.075 of it (Park et al. 2019, arXiv 1904.08779).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hra.adapters.interface import Tree
from hra.keys import fold_name
from hra.sharding import path_of


class WeightNoise(NamedTuple):
  """How much, and from when on; traced."""

  deviation: float | jax.Array
  start: int | jax.Array
  """Steps without it."""


_WEIGHTS = ("kernel", "embedding")
"""Last parts of the paths of what gets noise: biases and norms get none."""


def noisy(
  backbone: Tree, noise: WeightNoise, *, key: jax.Array, step: jax.Array
) -> Tree:
  """The backbone that step `step` = 0, 1, ... computes its gradients at.

  Args:
    key: of the job; what is drawn is a function of it, the step and a leaf's path.
  """
  deviation = jnp.where(step < noise.start, 0, noise.deviation)
  own = fold_name(key, "weight noise")
  own = jax.random.fold_in(own, step)

  def one(keys: tuple[object, ...], leaf: jax.Array) -> jax.Array:
    path = path_of(keys)
    if path.split("/")[-1] not in _WEIGHTS:
      return leaf
    drawn = jax.random.normal(fold_name(own, path), leaf.shape, leaf.dtype)
    return leaf + deviation.astype(leaf.dtype) * drawn

  return jax.tree_util.tree_map_with_path(one, backbone)
