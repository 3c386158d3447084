"""Checkpoints without a task: its row, moments, best row and progress.

Enters: a run's checkpoints. Leaves: a folder of the same steps aside, in which
every number but the task's is the same bit for bit.
"""

import jax
import jax.numpy as jnp
from etils import epath

from hra import members
from hra.adapters.interface import Tree
from hra.checkpoint import Checkpoints
from hra.files import remove_folder
from hra.run import adapted_shapes
from hra.train.state import TrainState


def without_task(workdir: epath.Path, task: str, aside: epath.Path) -> None:
  """Writes every checkpoint that a run keeps to `aside`, without `task`.

  What stands at `aside` is a part of an earlier attempt, and removed. The run's data
  may be gone by then.

  Raises:
    InputError: a checkpoint can't be read or written.
  """
  remove_folder(aside)
  place = members.tasks_of(workdir).index(task)
  shapes = adapted_shapes(workdir)
  kept = Checkpoints(workdir / "checkpoints", access="read")
  steps = kept.steps
  smaller = Checkpoints(aside, keep=len(steps))
  for step in steps:
    smaller.save(step, without_row(kept.restore(shapes, step=step), place))
  smaller.wait()
  smaller.close()
  kept.close()


def without_row(state: TrainState, place: int) -> TrainState:
  """A state of N tasks -> the same of N - 1; what is shared stays."""

  def rest(tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf_N: jnp.delete(leaf_N, place, axis=0), tree)

  return state._replace(
    rows=rest(state.rows),
    rows_optimizer=rest(state.rows_optimizer),
    skipped_N=rest(state.skipped_N),
    progress=rest(state.progress),
  )
