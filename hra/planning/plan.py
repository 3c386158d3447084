"""A configuration and a number of devices -> what a run of it would take.

Parameters and the bytes of what is kept are exact: shapes of what the run itself
would make, divided by the table of `hra.sharding`. FLOPs are those of the traced
step (`hra.planning.cost`). The peak is an estimate:

    peak = what is kept + batch + temporaries of a device's part of the batch
           + one layer of the backbone, whole, where `fsdp` divides it

Of `tensor`, which divides inner widths, the temporaries know nothing: they are
smaller then.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax

from hra.adapters import table
from hra.adapters.interface import Tree
from hra.backbone import store
from hra.backbone.network import Backbone
from hra.config import Config
from hra.data.batching import Batch
from hra.errors import InputError
from hra.features import specaugment
from hra.planning import cost, scale
from hra.planning.outlines import Outline
from hra.planning.parts import Parts, batch_of, terms_of
from hra.planning.scale import Scale
from hra.sharding import (
  BATCH,
  abstract_mesh,
  device_bytes,
  named_leaves,
  placed_shapes,
)
from hra.train.placement import laid_out
from hra.train.step import make_step


class Group(NamedTuple):
  """Something that a run keeps on its devices."""

  numbers: int
  """In all."""
  device_bytes: int
  """On each device."""


class Estimates(NamedTuple):
  """Of the largest batch."""

  temporaries: int
  """Bytes on a device."""
  gathered: int
  """Bytes on a device of a layer that `fsdp` divides, while it is used."""
  peak: int
  """Bytes on a device, with all that is kept."""
  flops: int
  """Of a step, all devices together."""


class Plan(NamedTuple):
  """What a run would take."""

  outline: Outline
  mesh: dict[str, int]
  """Devices along each axis."""
  scale: Scale
  parameters: int
  """Of the backbone: as many in floats as in 8 bits, whose scales are no such."""
  per_task: int
  """Numbers that a task owns."""
  kept: dict[str, Group]
  """By name: exact."""
  leaves: list[tuple[str, jax.ShapeDtypeStruct]]
  """All of it but the batch, by path, with shardings."""
  estimates: Estimates

  @property
  def devices(self) -> int:
    return math.prod(self.mesh.values())

  @property
  def kept_bytes(self) -> int:
    """On each device."""
    return sum(group.device_bytes for group in self.kept.values())


def plan(
  config: Config,
  outline: Outline,
  *,
  devices: int,
  tasks: int | None = None,
  seconds: float | None = None,
  compiles: bool = False,
) -> Plan:
  """Plans a run; no array is made.

  Args:
    tasks: how many there are, in place of the data's.
    seconds: end of the longest length bucket, in place of the data's.
    compiles: take temporaries from the step as XLA compiles it here for one
      device's part of the batch, which takes seconds to minutes.

  Raises:
    InputError: a language model's run; devices don't divide the batch or a
      parameter.
  """
  _check_is_of_speech(config)
  mesh = abstract_mesh(config.mesh, devices=devices)
  parts = math.prod(mesh.shape[axis] for axis in BATCH)
  sizes = scale.of_config(
    config, outline, batch_parts=parts, tasks=tasks, seconds=seconds
  )
  made = Parts(config, outline, sizes)
  batch = batch_of(sizes, parts=parts)
  step = _traced(made, batch)
  temporaries = _temporaries(step, compiles=compiles)
  trees = _kept(made, mesh)
  kept = {name: _group(tree) for name, tree in trees.items()}
  kept["batch"] = Group(
    parts * table.count(batch), sum(map(_bytes, jax.tree.leaves(batch)))
  )
  held = sum(group.device_bytes for group in kept.values())
  gathered = _gathered(made.module, mesh)
  return Plan(
    outline=outline,
    mesh=dict(mesh.shape),
    scale=sizes,
    parameters=_parameters(outline),
    per_task=table.count(
      jax.eval_shape(made.space.init_task, jax.random.key(0))
    ),
    kept=kept,
    leaves=[
      (path, leaf)
      for tree in trees.values()
      for path, leaf in named_leaves(tree)
    ],
    estimates=Estimates(
      temporaries=temporaries,
      gathered=gathered,
      peak=held + temporaries + gathered,
      flops=parts * cost.flops(step.jaxpr.jaxpr),
    ),
  )


def _check_is_of_speech(config: Config) -> None:
  if config.train.mode == "language_model":
    raise InputError(
      "config.train.mode",
      expected="a run that trains speech recognition",
      got="'language_model', which isn't planned",
    )


def _temporaries(step: Any, *, compiles: bool) -> int:
  if not compiles:
    return cost.temporaries(step.jaxpr.jaxpr, donated=True)
  return step.lower().compile().memory_analysis().temp_size_in_bytes


def _parameters(outline: Outline) -> int:
  config = dataclasses.replace(outline.config, weights="float")
  return table.count(store.abstract(config, outline.frontend))


def _kept(
  parts: Parts, mesh: jax.sharding.AbstractMesh
) -> dict[str, dict[str, Tree]]:
  """Everything but the batch, by name, as shapes on the mesh."""
  fresh = laid_out(parts.state, mesh, shard_rows=parts.config.mesh.shard_rows)
  shared = {
    name: tree for name, tree in fresh.shared.items() if name != "backbone"
  }
  return {
    "backbone": placed_shapes({"backbone": parts.module}, mesh),
    "shared": {"shared": shared},
    "shared optimizer": {"shared_optimizer": fresh.shared_optimizer},
    "rows": {"rows": fresh.rows},
    "rows optimizer": {"rows_optimizer": fresh.rows_optimizer},
    "progress": {
      "progress": fresh.progress,
      "step": fresh.step,
      "skipped_N": fresh.skipped_N,
    },
  }


def _group(trees: dict[str, Tree]) -> Group:
  leaves = jax.tree.leaves(trees)
  return Group(table.count(trees), sum(map(device_bytes, leaves)))


def _gathered(module: Backbone, mesh: jax.sharding.AbstractMesh) -> int:
  """Bytes of one layer, `tensor` apart; 0 where each device has all of it."""
  if mesh.shape["fsdp"] == 1:
    return 0
  leaves = jax.tree.leaves(module.layers)
  whole = sum(_bytes(leaf) // leaf.shape[0] for leaf in leaves)
  return whole // mesh.shape["tensor"]


def _traced(made: Parts, batch: Batch) -> Any:
  """The training step on a device's part of a batch."""
  config = made.config
  step = make_step(
    made.model,
    made.space,
    made.optimizers,
    policy=specaugment.chosen(config.augment),
  )
  return jax.jit(step, donate_argnums=0).trace(
    made.state, made.frozen, batch, terms_of(made)
  )


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
  return math.prod(leaf.shape) * leaf.dtype.itemsize
