"""Where a run's wall time went, kept over its restarts -> goodput.json, goodput.

Enters: seconds of what the loop does, and positions that are saved. Leaves: the share
of all time since the run's first start that went into steps which still count: what a
restart does again was lost, and so was the time until it went on.
"""

import sys
import time
from collections.abc import Callable
from typing import Literal, get_args

from etils import epath

from hra.errors import InputError, StorageError
from hra.files import read_json, write_json

NAME = "goodput.json"

Doing = Literal["start", "data", "compile", "step", "evaluation", "save"]
"""What a training is at; waiting for data counts where devices had nothing to do."""

_LOST = ("redone", "away")
"""Steps that a restart did again, and the time between two processes."""
_SPENT = (*get_args(Doing), *_LOST)
_KEYS = ("started", "seen", "starts", "seconds", "marks")
_MARKS = 64
"""Saved positions that are remembered: more than checkpoints are kept."""
_SECONDS = 10.0
"""Between two writes, unless something is saved: what a kill may hide."""


class Goodput:
  """The ledger of a run's time; of several processes, the first one's."""

  def __init__(
    self,
    workdir: epath.Path,
    *,
    position: int,
    began: float,
    writes: bool = True,
    now: Callable[[], float] = time.time,
  ):
    """Opens the ledger at the position that training goes on from.

    Args:
      began: when this process's training did.
      writes: whether this process keeps the file, which no other one reads.
      now: seconds since the epoch, which processes on several days share.

    A damaged file is told and begun anew: it only says where the time went.
    """
    self._path, self._writes, self._now = workdir / NAME, writes, now
    self._started = self._seen = began
    self._starts = 0
    self.seconds = dict.fromkeys(_SPENT, 0.0)
    self._marks: list[tuple[int, float]] = []
    if writes and self._path.exists():
      self._go_on(position)
    self._starts += 1

  def _go_on(self, position: int) -> None:
    try:
      told = read_json(self._path, keys=_KEYS)
      started, seen = float(told["started"]), float(told["seen"])
      starts = int(told["starts"])
      seconds = {name: float(told["seconds"].get(name, 0)) for name in _SPENT}
      marks = [(int(at), float(spent)) for at, spent in told["marks"]]
    except StorageError:
      raise
    except (InputError, AttributeError, TypeError, ValueError) as error:
      said = " ".join(str(error).split())
      print(f"{self._path} is begun anew: {said}", file=sys.stderr)
      return
    self._started, self._starts, self.seconds = started, starts, seconds
    self._marks = [mark for mark in marks if mark[0] <= position]
    counts = self._marks[-1][1] if self._marks else 0.0
    self.seconds["redone"] += self.seconds["step"] - counts
    self.seconds["step"] = counts
    self.seconds["away"] += max(0.0, self._seen - seen)

  def spend(self, doing: Doing, seconds: float) -> None:
    self.seconds[doing] += seconds

  def share(self) -> float:
    """Seconds of steps that count, of all since the first start."""
    return self.seconds["step"] / max(sum(self.seconds.values()), 1e-9)

  def mark(self, position: int) -> None:
    """Notes that steps so far are about to stand in a checkpoint."""
    before = [each for each in self._marks if each[0] < position]
    mark = (position, self.seconds["step"])
    self._marks = [*before[1 - _MARKS :], mark]
    self._write()

  def keep(self) -> None:
    """Writes the file, if that was long ago."""
    if self._now() - self._seen > _SECONDS:
      self._write()

  def _write(self) -> None:
    self._seen = self._now()
    if self._writes:
      write_json(
        self._path,
        {
          "started": self._started,
          "seen": self._seen,
          "starts": self._starts,
          "goodput": self.share(),
          "seconds": self.seconds,
          "marks": self._marks,
        },
      )
