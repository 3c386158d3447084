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
import jax.numpy as jnp

from hra import run
from hra.adapters import table
from hra.adapters.interface import Tree
from hra.backbone import store
from hra.backbone.network import Backbone
from hra.config import Config
from hra.data import settings
from hra.data.batching import Batch
from hra.errors import InputError
from hra.features import specaugment
from hra.planning import cost, scale
from hra.planning.outlines import Outline
from hra.planning.scale import Scale
from hra.sharding import (
  BATCH,
  abstract_mesh,
  device_bytes,
  named_leaves,
  placed_shapes,
)
from hra.train import state
from hra.train.noise import WeightNoise
from hra.train.placement import laid_out
from hra.train.step import Terms, make_step


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
  made = _Parts(config, outline, sizes)
  batch = _batch(sizes, parts)
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


class _Parts:
  """What a run is made of, as shapes."""

  def __init__(self, config: Config, outline: Outline, sizes: Scale):
    self.config = config
    self.pretrains = config.train.mode == "pretrain"
    self.module: Backbone = store.abstract(outline.config, outline.frontend)
    self.model, self.space, self.optimizers = run.learner(
      config, outline.config, outline.frontend
    )
    names = [f"task-{place}" for place in range(sizes.tasks)]
    best = config.train.select == "best" and not self.pretrains
    self.state: state.TrainState = jax.eval_shape(
      lambda pretrained: state.init(
        self.space,
        self.optimizers,
        names,
        key=jax.random.key(0),
        pretrained=pretrained,
        keep_best=best,
      ),
      self.module if self.pretrains else None,
    )

  @property
  def frozen(self) -> Backbone | None:
    return None if self.pretrains else self.module


def _kept(
  parts: _Parts, mesh: jax.sharding.AbstractMesh
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


def _traced(parts: _Parts, batch: Batch) -> Any:
  """The training step on a device's part of a batch."""
  config = parts.config
  step = make_step(
    parts.model,
    parts.space,
    parts.optimizers,
    policy=specaugment.chosen(config.augment),
  )
  return jax.jit(step, donate_argnums=0).trace(
    parts.state, parts.frozen, batch, _terms(parts)
  )


def _terms(parts: _Parts) -> Terms:
  train = parts.config.train
  trains = parts.pretrains or train.shared_part > 0
  shares = bool(jax.tree.leaves(parts.state.shared))
  noise = WeightNoise(train.weight_noise, train.weight_noise_start)
  return Terms(
    key=jax.random.key(0),
    shared=settings.settings(train.shared, steps=train.steps)
    if trains and shares
    else None,
    max_bad_steps=train.max_bad_steps,
    weight_noise=noise if train.weight_noise else None,
  )


def _batch(sizes: Scale, parts: int) -> Batch:
  """A device's part, as shapes."""
  size = [sizes.places, sizes.utterances]
  size[scale.split_axis(sizes)] //= parts
  places = size[:1]

  def of(shape: list[int], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)

  example = settings.Settings(
    steps=jnp.int32,
    learning_rate=jnp.float32,
    schedule=jnp.int32,
    warmup_steps=jnp.int32,
    hold_steps=jnp.int32,
    weight_decay=jnp.float32,
    clip_norm=jnp.float32,
  )
  return Batch(
    wave_KBS=of([*size, sizes.samples], jnp.float32),
    lengths_KB=of(size, jnp.int32),
    labels_KBU=of([*size, sizes.labels], jnp.int32),
    label_lengths_KB=of(size, jnp.int32),
    augment_KB=of(size, jnp.bool_),
    task_K=of(places, jnp.int32),
    name_hash_K2=of([*places, 2], jnp.uint32),
    own_step_K=of(places, jnp.int32),
    settings_K=jax.tree.map(lambda dtype: of(places, dtype), example),
    shared_weight_K=of(places, jnp.float32),
  )


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
  return math.prod(leaf.shape) * leaf.dtype.itemsize
