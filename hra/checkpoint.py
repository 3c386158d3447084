"""Checkpoints of the training state by Orbax: save, restore, resume.

The state is stored as a flat mapping of path to array. Orbax writes aside and
renames, so a half-written step is never listed.
"""

from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from hra.errors import InputError
from hra.files import absolute
from hra.sharding import named_leaves

Tree = Any


class Checkpoints:
  """The checkpoints of one run's folder."""

  def __init__(self, folder: epath.PathLike, *, keep: int):
    self._folder = absolute(folder)
    self._checkpointer = ocp.training.Checkpointer(
      self._folder,
      preservation_policy=ocp.training.preservation_policies.LatestN(keep),
      cleanup_tmp_directories=True,
    )

  @property
  def latest(self) -> int | None:
    """The newest complete step, or None."""
    newest = self._checkpointer.latest
    return None if newest is None else newest.step

  def save(self, step: int, state: Tree) -> None:
    """Writes in the background; a step that is there already stays."""
    if self.latest == step:
      return
    # The next training step donates these buffers while Orbax still reads.
    flat = {path: leaf.copy() for path, leaf in named_leaves(state)}
    self._checkpointer.save_async(step, flat, force=True)

  def wait(self) -> None:
    """Returns when everything that was saved is on the disk."""
    self._checkpointer.wait()

  def restore(self, state: Tree, *, step: int | None = None) -> Tree:
    """The newest (or given) step, in the shapes and shardings of `state`.

    Args:
      state: arrays, or `jax.ShapeDtypeStruct`s with shardings.

    Raises:
      InputError: naming the first path whose presence or shape differs.
    """
    step = self.latest if step is None else step
    if step is None:
      raise InputError(
        self._folder,
        expected="a checkpoint",
        got="none",
        fix="train first: hra train --workdir=...",
      )
    wanted = dict(named_leaves(state))
    self._check_shapes(step, wanted)
    loaded = self._checkpointer.load(
      step, {path: _abstract(leaf) for path, leaf in wanted.items()}
    )
    leaves = [loaded[path] for path in wanted]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)

  def _check_shapes(self, step: int, wanted: Mapping[str, Any]) -> None:
    stored = self._checkpointer.metadata(step).metadata
    for path in sorted(wanted.keys() | stored.keys()):
      ours, theirs = _shape(wanted.get(path)), _shape(stored.get(path))
      if ours != theirs:
        raise InputError(
          f"{self._folder / str(step)}: {path}",
          expected=ours,
          got=theirs,
          fix="use the configuration that this checkpoint was made with",
        )

  def close(self) -> None:
    self._checkpointer.close()


def _shape(leaf: Any) -> str:
  return "nothing" if leaf is None else f"shape {tuple(leaf.shape)}"


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(
    leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None)
  )
