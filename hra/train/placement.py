"""Where the state and the batches of a job go, and the step compiled for it."""

import functools
import math
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from hra.data.batching import Batch
from hra.data.settings import Settings
from hra.sharding import BATCH, batch_sharding, replicated, shardings
from hra.train.state import TrainState
from hra.train.step import Step, Terms


def place_state(state: TrainState, mesh: Mesh) -> TrainState:
  """The state on the mesh, by the sharding table."""
  return jax.device_put(state, shardings({"": state}, mesh)[""])


def jit_step(
  step: Step, terms: Terms, state: TrainState, mesh: Mesh
) -> functools.partial:
  """The compiled step under its terms; it donates the state and leaves it where
  it was."""
  leaves, tree = jax.tree.flatten(shardings({"": state}, mesh)[""])
  compiled = _jitted(step, tree, tuple(leaves), replicated(mesh))
  # By a program: keys can't be put on devices of other processes.
  put = jax.jit(lambda terms: terms, out_shardings=replicated(mesh))
  return functools.partial(compiled, terms=put(terms))


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
