"""Where the state and the batches of a job go, and the step compiled for it."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from hra.data.batching import Batch
from hra.data.settings import Settings
from hra.sharding import (
  BATCH,
  batch_sharding,
  divides_rows,
  is_row,
  path_of,
  placed_shapes,
  replicated,
)
from hra.train.state import TrainState
from hra.train.step import Step, Terms


def laid_out(
  state: TrainState, mesh: Mesh | AbstractMesh, *, shard_rows: str = "never"
) -> TrainState:
  """A state's shapes on a mesh, by the sharding table.

  Tables that lie divided get as many rows of nobody as make devices' parts equal.

  Args:
    state: arrays or shapes, a row for each task.
    shard_rows: as `config.mesh.shard_rows`.
  """
  divided = divides_rows(state, mesh, asked=shard_rows)
  if divided:
    state = jax.eval_shape(functools.partial(_padded, parts=mesh.size), state)
  return placed_shapes({"": state}, mesh, divided_rows=divided)[""]


def place_state(
  state: TrainState, mesh: Mesh, *, shard_rows: str = "never"
) -> TrainState:
  """The state on the mesh, as `laid_out` says."""
  shapes = laid_out(state, mesh, shard_rows=shard_rows)
  if divides_rows(state, mesh, asked=shard_rows):
    state = _padded(state, parts=mesh.size)
  return jax.device_put(state, jax.tree.map(lambda leaf: leaf.sharding, shapes))


def make_state(
  make: Callable[..., TrainState], *given: Any, mesh: Mesh, shard_rows: str
) -> TrainState:
  """What `make` makes of what is given, on the mesh: no device holds a part that
  is another's.
  """
  if mesh.size == 1:
    return place_state(make(*given), mesh)
  fresh = jax.eval_shape(make, *given)
  shapes = laid_out(fresh, mesh, shard_rows=shard_rows)
  divided = divides_rows(fresh, mesh, asked=shard_rows)

  def made(*given: Any) -> TrainState:
    state = make(*given)
    return _padded(state, parts=mesh.size) if divided else state

  placed = jax.tree.map(lambda leaf: leaf.sharding, shapes)
  return jax.jit(made, out_shardings=placed)(*given)


def _padded(state: TrainState, *, parts: int) -> TrainState:
  """A state whose tables have a multiple of `parts` rows, zeros behind the last."""

  def padded(keys: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
    if not is_row(path_of(keys)):
      return leaf
    more = -len(leaf) % parts
    return jnp.pad(leaf, [(0, more)] + [(0, 0)] * (leaf.ndim - 1))

  return jax.tree_util.tree_map_with_path(padded, state)


def jit_step(
  step: Step, terms: Terms, state: TrainState, mesh: Mesh
) -> functools.partial:
  """The compiled step under its terms; it donates the state and leaves it where
  it was.

  Args:
    state: placed, or shapes as of `laid_out`.
  """
  # By a program: keys can't be put on devices of other processes.
  put = jax.jit(lambda terms: terms, out_shardings=replicated(mesh))
  return functools.partial(jitted(step, state, mesh), terms=put(terms))


def jitted(step: Step, state: TrainState, mesh: Mesh) -> Any:
  """`jit_step` under terms that it is given."""
  leaves, tree = jax.tree.flatten(
    jax.tree.map(lambda leaf: leaf.sharding, state)
  )
  return _jitted(step, tree, tuple(leaves), replicated(mesh))


@functools.lru_cache(maxsize=8)
def _jitted(
  step: Step,
  tree: jax.tree_util.PyTreeDef,
  leaves: tuple[NamedSharding, ...],
  everywhere: NamedSharding,
) -> Any:
  """One for equal jobs of a process: the second traces and compiles nothing."""
  placed = jax.tree.unflatten(tree, leaves)
  return jax.jit(step, donate_argnums=0, out_shardings=(placed, everywhere))


def batch_placement(mesh: Mesh, *, axis: int) -> Batch:
  """The sharding of each part of a batch that devices divide along `axis`.

  Args:
    axis: 0 divides the tasks; 1 their utterances, where one task is the pool.
  """
  split = batch_sharding(mesh, axis=axis)
  by_task = split if axis == 0 else replicated(mesh)
  placed: dict[str, Any] = {
    name: split if "B" in name.rpartition("_")[2] else by_task
    for name in Batch._fields
  }
  placed["settings_K"] = Settings(*[by_task] * len(Settings._fields))
  return Batch(**placed)


def own_places(mesh: Mesh, size: int) -> list[int]:
  """Where this process's parts stand on an axis of `size` that devices divide."""
  sharding = batch_sharding(mesh, axis=0)
  here = sharding.addressable_devices_indices_map((size,)).values()
  parts = (index[0] for index in here if index)
  return sorted({place for part in parts for place in range(size)[part]})


def parts_of(mesh: Mesh) -> int:
  """How many processes make different parts of a batch."""
  devices = devices_of(mesh)
  return devices // len(own_places(mesh, devices))


def devices_of(mesh: Mesh) -> int:
  """How many devices divide a batch."""
  return math.prod(mesh.shape[axis] for axis in BATCH)


def place_batch(batch: Batch, placement: Batch) -> Batch:
  """This process's part of a batch -> the global batch on the devices."""
  return jax.tree.map(
    lambda leaf, sharding: jax.make_array_from_process_local_data(
      sharding, leaf
    ),
    batch,
    placement,
  )
