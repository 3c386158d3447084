"""A compiled step on known chips -> how fast a step could be at best.

Of that and of what a step took, `mfu` in a run's metrics is made. FLOPs are those of
the model: what rematerialisation computes again is none of them.
"""

import dataclasses
import functools
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from hra import hardware
from hra.backbone.network import Backbone
from hra.planning import cost
from hra.train.observer import Ideal


def ideal(step: functools.partial, mesh: Mesh) -> Ideal | None:
  """Seconds of a step, all chips at their peak; None for chips nobody knows.

  Args:
    step: of `hra.train.placement.jit_step`.
  """
  chip = hardware.of_kind(mesh.devices.flat[0].device_kind)
  if chip is None:
    return None
  speed = chip.bf16_flops_per_s * mesh.size

  def seconds(state: Any, frozen: Any, batch: Any) -> float:
    return flops(step, state, frozen, batch) / speed

  return seconds


def flops(step: functools.partial, state: Any, frozen: Any, batch: Any) -> int:
  """Of the model in a step, all devices together."""
  compiled: Any = step.func
  given: Any = (state, frozen)
  if any(map(_computes_again, _backbones(given))):
    given = jax.tree.map(_once, given, is_leaf=_is_backbone)
    # Its results are sharded as the state is, which is another one now.
    compiled = jax.jit(compiled.__wrapped__)
  traced = compiled.trace(*given, batch, **step.keywords)
  return cost.flops(traced.jaxpr.jaxpr)


def _is_backbone(node: Any) -> bool:
  return isinstance(node, Backbone)


def _backbones(tree: Any) -> list[Backbone]:
  return [
    node
    for node in jax.tree.leaves(tree, is_leaf=_is_backbone)
    if _is_backbone(node)
  ]


def _computes_again(backbone: Backbone) -> bool:
  return backbone.config.remat != "none"


def _once(node: Any) -> Any:
  """A backbone that keeps what it computes."""
  if not _is_backbone(node):
    return node
  kept = jax.tree.map(lambda leaf: leaf, node)
  kept.config = nnx.static(dataclasses.replace(node.config, remat="none"))
  return kept
