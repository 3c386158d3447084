"""Checkpoints of the training state by Orbax: save, restore, resume.

Enters: the state, and a step's figure on the dev split where it was evaluated.
Leaves: the newest checkpoints and the best, each a flat mapping of path to array.
Orbax writes aside and renames, so a half-written step is never listed; one that
was copied in part, or damaged, is an error that names it.
"""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from hra import processes
from hra.errors import InputError, StorageError
from hra.files import absolute, await_shared, storage
from hra.sharding import is_row, named_leaves

Tree = Any

_ARRAYS = ocp.options.ArrayOptions(
  # Zstandard takes 10% off trained rows and moments for four times the CPU time
  # (377 MiB: 1.5 s against 0.4).
  saving=ocp.options.ArrayOptions.Saving(use_compression=False),
  # Of tables that other devices divided (`hra.train.placement.laid_out`); all other
  # shapes are checked.
  loading=ocp.options.ArrayOptions.Loading(enable_padding_and_truncation=True),
)
_CODE = re.compile(r"os_error_code='(\d+)'")
"""How TensorStore ends what it says about an error of the system."""


def abstract(state: Tree) -> Tree:
  """Shapes, types and shardings of a state: restoring needs no more of it."""
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None)
    ),
    state,
  )


class Checkpoints:
  """The checkpoints of one run's folder.

  Raises:
    InputError: a step's metrics can't be read.
    StorageError: here and in `save`, `check` and `wait`: the place is full,
      forbidden or out of reach; it says which step is whole.
  """

  def __init__(
    self,
    folder: epath.PathLike,
    *,
    keep: int = 1,
    keep_best: int = 0,
    metric: str = "dev_wer",
    access: Literal["write", "read"] = "write",
  ):
    """Opens a folder.

    Args:
      keep: newest checkpoints that stay.
      keep_best: those of the lowest figure that stay as well.
      metric: what that figure is called.
      access: `write` makes the folder and clears away what killed saves left;
        `read` leaves all as it is, also the save of a job that runs.
    """
    self._folder = absolute(folder)
    self._metric = metric
    self._saving: int | None = None
    if access == "read":
      self._check_exists()
    try:
      with storage(self._folder, expected="a folder for checkpoints"):
        self._checkpointer = ocp.training.Checkpointer(
          self._folder,
          context=ocp.Context(array_options=_ARRAYS),
          preservation_policy=_Keep(newest=keep, best=keep_best, metric=metric),
          cleanup_tmp_directories=access == "write",
        )
    except json.JSONDecodeError as error:
      raise InputError(
        self._folder,
        expected="whole checkpoints",
        got="metrics that are not JSON",
        fix="delete the step that was copied in part",
      ) from error

  @property
  def latest(self) -> int | None:
    """The newest complete step, or None."""
    newest = self._checkpointer.latest
    return None if newest is None else newest.step

  @property
  def steps(self) -> list[int]:
    """The complete steps, ascending."""
    return [each.step for each in self._checkpointer.checkpoints]

  @property
  def best(self) -> int | None:
    """The step of the lowest figure, of equals the earliest, or None."""
    ranked = _ranked(self._checkpointer.checkpoints, self._metric)
    return next(iter(ranked), None)

  def save(
    self, position: int, state: Tree, *, figure: float | None = None
  ) -> None:
    """Writes in the background, when the save before is done.

    A step is named by the position, or by the next free number where that is
    taken: an evaluation changes a state and not its position.
    """
    self.wait()
    step = position if self.latest is None else max(position, self.latest + 1)
    step = processes.first_says(step)
    # The next training step donates these buffers while Orbax still reads.
    flat = {path: leaf.copy() for path, leaf in named_leaves(state)}
    metrics = None if figure is None else {self._metric: figure}
    with self._writing(step):
      self._checkpointer.save_async(step, flat, force=True, metrics=metrics)
    self._saving = step

  def check(self) -> None:
    """Raises what the background save met, without waiting for it."""
    if self._saving is None or self._checkpointer.is_saving_in_progress():
      return
    self.wait()

  def wait(self) -> None:
    """Returns when everything that was saved is on the disk."""
    saving, self._saving = self._saving, None  # what failed is told once
    if saving is None:
      return
    with self._writing(saving):
      self._checkpointer.wait()

  def restore(self, state: Tree, *, step: int | None = None) -> Tree:
    """The newest (or given) step, in the shapes and shardings of `state`; of several
    processes, the step that the first names.

    Args:
      state: arrays, or `jax.ShapeDtypeStruct`s with shardings.

    Raises:
      InputError: there is none, it is not whole or seen here, or naming the first
        path whose presence or shape differs.
    """
    step = processes.first_says(self.latest if step is None else step)
    if step is None:
      raise self._nothing()
    self._await(step)
    wanted = dict(named_leaves(state))
    with self._reading(step):
      self._check_shapes(step, wanted)
      loaded = self._checkpointer.load(step, abstract(wanted))
    leaves = [loaded[path] for path in wanted]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)

  def close(self) -> None:
    self._checkpointer.close()

  def _check_exists(self) -> None:
    if not processes.is_first():
      await_shared(self._folder)
    elif not self._folder.exists():
      raise self._nothing()

  def _await(self, step: int) -> None:
    """Returns when a step that the first process lists is seen here, too."""
    if not processes.is_first() and step not in self.steps:
      await_shared(self._folder / str(step))
      self._checkpointer.reload()

  def _nothing(self) -> InputError:
    return InputError(
      self._folder,
      expected="a checkpoint",
      got="none",
      fix="train first: hra train --workdir=...",
    )

  def _check_shapes(self, step: int, wanted: Mapping[str, Any]) -> None:
    stored = self._checkpointer.metadata(step).metadata
    if stored is None:
      raise ValueError("no metadata that can be read")
    for path in sorted(wanted.keys() | stored.keys()):
      if is_row(path) and _row(wanted.get(path)) == _row(stored.get(path)):
        continue  # rows of nobody may follow those of tasks
      ours, theirs = _shape(wanted.get(path)), _shape(stored.get(path))
      if ours != theirs:
        raise InputError(
          f"{self._folder / str(step)}: {path}",
          expected=ours,
          got=theirs,
          fix="use the configuration that this checkpoint was made with",
        )

  @contextlib.contextmanager
  def _writing(self, step: int) -> Iterator[None]:
    """Says of what a save meets which step is whole."""
    path = self._folder / str(step)
    try:
      with storage(path, expected="a checkpoint to be written"), _system():
        yield
    except StorageError as error:
      if processes.are_gone(error):  # no bucket's fault
        raise RuntimeError(str(error)) from error
      whole = self.latest
      fix = error.fix or "mend that and give the same command again"
      raise StorageError(
        path,
        expected=error.expected,
        got=error.got,
        fix=f"{fix} (the newest whole checkpoint: "
        f"{'none yet' if whole is None else f'step {whole}'})",
      ) from error

  @contextlib.contextmanager
  def _reading(self, step: int) -> Iterator[None]:
    """Says of a step that can't be read what to do about it."""
    try:
      yield
    except InputError:
      raise
    except (KeyError, OSError, ValueError) as error:
      if processes.are_gone(error):
        raise
      path = self._folder / str(step)
      with storage(path, expected="a checkpoint that can be read"):
        _touch(path)
      before = [
        each.step
        for each in self._checkpointer.checkpoints
        if each.step != step
      ]
      then = f"go on from step {before[-1]}" if before else "train anew"
      raise InputError(
        path,
        expected="a whole checkpoint",
        got="one with parts missing or damaged",
        fix=f"copy it again, or delete it to {then}",
      ) from error


@dataclasses.dataclass(frozen=True)
class _Keep:
  """Orbax's preservation policy: the newest and the best stay."""

  newest: int
  best: int
  metric: str

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> Sequence[bool]:
    del context
    kept = {each.step for each in checkpoints[-self.newest :]}
    kept |= set(_ranked(checkpoints, self.metric)[: self.best])
    return [each.step in kept for each in checkpoints]


def _ranked(checkpoints: Sequence[Any], metric: str) -> list[int]:
  """The steps that were evaluated, the best first; of equals, the earliest."""
  scored = [
    (each.metrics[metric], each.step) for each in checkpoints if each.metrics
  ]
  return [step for _, step in sorted(scored)]


@contextlib.contextmanager
def _system() -> Iterator[None]:
  """Makes what TensorStore says about the system an error of the system."""
  try:
    yield
  except ValueError as error:
    code = _CODE.search(str(error))
    if code is None:
      raise
    number = int(code[1])
    raise OSError(number, os.strerror(number)) from error


def _touch(folder: epath.Path) -> None:
  """Raises what the system says to who reads here, if it says something."""
  for path in folder.iterdir():
    if path.is_dir():
      _touch(path)
    else:
      with path.open("rb") as file:
        file.read(1)


def _shape(leaf: Any) -> str:
  return "nothing" if leaf is None else f"shape {tuple(leaf.shape)}"


def _row(leaf: Any) -> tuple[int, ...] | None:
  """The shape of one row."""
  return None if leaf is None else tuple(leaf.shape)[1:]
