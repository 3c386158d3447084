"""What a sweep asks for before it starts, and what it is kept from meanwhile.

Enters: a plan and the signals of the process. Leaves: hang-ups as requests to
stop, or one line that says what is in the way.
"""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from hra.backbone import store
from hra.errors import InputError
from hra.files import is_remote
from hra.sweeps import plan
from hra.train.interrupt import Signals


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
