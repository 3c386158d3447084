"""What a sweep asks for before it starts, and what it is kept from meanwhile.

Enters: a plan and the signals of the process. Leaves: locks that keep others out,
hang-ups as requests to stop, or one line that says what is in the way.
"""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import IO

from etils import epath

from hra.backbone import store
from hra.errors import InputError, StorageError
from hra.files import is_remote, locked, storage
from hra.sweeps import plan
from hra.train.interrupt import Signals

_LOCK = ".sweep.lock"
"""Of a run, or of what several runs hear; the run's own commands lock another."""


def check_backbones(sweep: plan.Sweep) -> None:
  """Whether the backbones that runs start from stand in this machine's folders.

  Raises:
    InputError: one that doesn't, naming the run.
  """
  for run in sweep.runs:
    folder = store.folder_of(run.config.backbone_path)
    seen = not is_remote(folder) and plan.needs_backbone(run.config)
    if seen and not (folder / "config.json").is_file():
      raise InputError(
        f"{run.name}: config.backbone_path",
        expected=f"a backbone's folder, or one of {sorted(store.BUNDLED)}",
        got=repr(run.config.backbone_path),
      )


def lock(
  sweep: plan.Sweep, stack: contextlib.ExitStack, *, apart: bool
) -> list[IO[str]]:
  """Keeps others out of the sweep's folder; with `apart`, out of the runs' alone.

  Raises:
    InputError: others are at work.
  """
  held = locked(sweep.workdir, fix="give another --workdir", shared=apart)
  locks = [stack.enter_context(held)]
  for run in sweep.runs if apart else ():
    with storage(run.folder, expected="a folder that can be made"):
      run.folder.mkdir(parents=True, exist_ok=True)
    held = locked(run.folder, fix="leave that run to it", name=_LOCK)
    locks.append(stack.enter_context(held))
  return locks


def makes(corpus: str, stack: contextlib.ExitStack) -> IO[str] | None:
  """The lock of a corpus that this process makes; None where one elsewhere does."""
  folder = epath.Path(corpus)
  with storage(folder, expected="a folder that can be made"):
    folder.mkdir(parents=True, exist_ok=True)
  try:
    return stack.enter_context(locked(folder, fix="wait for it", name=_LOCK))
  except StorageError:
    raise
  except InputError:
    return None


@contextlib.contextmanager
def hangup(signals: Signals) -> Iterator[None]:
  """The end of the terminal is a first SIGTERM; it may be told of it twice.

  Under nohup it stays ignored.
  """

  def note(number: int, frame: FrameType | None) -> None:
    del number, frame
    if signals.first is None:
      signal.raise_signal(signal.SIGTERM)

  previous = signal.getsignal(signal.SIGHUP)
  if previous is not signal.SIG_IGN:
    signal.signal(signal.SIGHUP, note)
  try:
    yield
  finally:
    signal.signal(signal.SIGHUP, previous)
