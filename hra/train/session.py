"""What every training loop does alike: the bar, signals, and saving what was done.

Enters: something that trains step by step, and its checkpoints. Leaves: the newest
state, saved, whatever ended the training.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from etils import epath
from tqdm import tqdm

from hra import processes
from hra.checkpoint import Checkpoints
from hra.errors import InputError, Interrupted
from hra.train.interrupt import Signals, Stop

Around = Callable[[int], contextlib.AbstractContextManager[None]]
"""What goes on around the save of a position."""


class Keeper:
  """Saves a state on its way: by the clock, at the end, after an error."""

  def __init__(
    self,
    checkpoints: Checkpoints,
    *,
    seconds: float,
    around: Around | None = None,
  ):
    self.changed = False
    """Whether there is something that no checkpoint has."""
    self._checkpoints = checkpoints
    self._seconds = seconds
    self._around = around or contextlib.nullcontext
    self._saved = time.monotonic()
    self._by_clock = processes.Agreed("save")

  def save(
    self, position: int, state: Any, *, figure: float | None = None
  ) -> None:
    """Saves, if there is something to save.

    Args:
      figure: by which the best checkpoint is kept.
    """
    latest = self._checkpoints.latest
    if self.changed or processes.first_says(latest) is None:
      with self._around(position):
        self._checkpoints.save(position, state, figure=figure)
      self.changed = False
    self._saved = time.monotonic()

  def save_in_time(self, position: int, state: Any) -> None:
    """Saves by the first process's clock; raises what a save in the background
    met."""
    waited = time.monotonic() - self._saved
    if waited > self._seconds and processes.is_first():
      self._by_clock.ask("it is time")
    if self._by_clock.reached():
      self.save(position, state)
    self._checkpoints.check()

  def save_and_wait(self, position: int, state: Any) -> None:
    self.save(position, state)
    with self._around(position):
      self.wait()

  def wait(self) -> None:
    """Until what was saved in the background is whole."""
    self._checkpoints.wait()

  def rescue(self, position: int, state: Any) -> None:
    """Saves after an error, which a save that fails as well doesn't replace.

    One process of several can't save alone: its last checkpoint stands.
    """
    if processes.count() > 1:
      return
    with contextlib.suppress(InputError):
      if self.changed:
        self.save(position, state)
      self.wait()  # also for one that had begun


def agreed(position: int, workdir: epath.Path) -> int:
  """The position that a state was restored at, if all processes have the same.

  Raises:
    InputError: this one has another than the first.
  """
  of_first = processes.first_says(position)
  if position != of_first:
    raise InputError(
      workdir / "checkpoints",
      expected=f"a state at step {of_first}, as the first process has",
      got=f"one at step {position} here",
      fix="give all processes one --workdir, in a file system or bucket that they "
      "share",
    )
  return position


class Training(Protocol):
  """A state on its way: wherever Stop is raised, it may be saved as it is."""

  position: int
  """Steps done."""
  state: Any
  keeper: Keeper

  def run(self, signals: Signals, bar: tqdm) -> None:
    """Trains to the end and saves."""
    ...


def carry_out(
  training: Training, *, steps: int, workdir: epath.Path, quiet: bool
) -> None:
  """Runs a training to its end, or to where it is stopped, and saves.

  Raises:
    Interrupted: after SIGTERM or Ctrl-C, when the state is saved.
    InputError: what the training raises; what was done is saved first, if it can
      be.
  """
  bar = tqdm(
    total=steps,
    initial=training.position,
    unit="step",
    desc="training",
    disable=quiet or not processes.is_first(),
    file=sys.stdout,
    mininterval=1.0,
    smoothing=0.05,
  )
  with Signals() as signals, bar:
    try:
      training.run(signals, bar)
      signals.heed_all()
    except Stop:
      training.keeper.save_and_wait(training.position, training.state)
      raise Interrupted(
        f"stopped by {signals.reason} at step {training.position} of "
        f"{steps}; saved in {workdir}: the same command goes on from there"
      ) from None
    except InputError:
      training.keeper.rescue(training.position, training.state)
      raise
