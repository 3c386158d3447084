"""No progress for a long time -> a line that says which process stalls, and in what.

Each process says through the coordinator of `jax.distributed` what it is at, from a
thread of its own. Who makes no progress reads what all say: the one that the others
wait for is behind them, or at something that needs nobody else.
"""

import contextlib
import json
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Self

import jax
from jax._src import compiler, distributed

STALLED = 70
"""Exit code of a process that gave up: worth a new start (EX_SOFTWARE)."""

_OFTEN, _PAUSE = 5, 10.0
"""Looks within the time of a stall, and the most seconds between two."""
_KEY = "hra/heartbeats"
_ENDED = "ended"
"""What a process says last."""
_TOGETHER = "step"
"""What no process does alone: one that is there may wait for another."""
_PACKAGE = str(Path(__file__).parents[1])


class Beat(NamedTuple):
  """What a process is at."""

  position: int
  doing: str
  since: float
  """Of `time.monotonic`: the last progress."""


class Told(NamedTuple):
  """What a process says of itself."""

  number: int
  """Of the message: one that stays the same comes from nobody."""
  position: int
  doing: str
  seconds: float
  """Without progress."""
  where: str


class Board:
  """What all processes say, on the coordinator; of one process, its own words."""

  def __init__(self) -> None:
    self._own: dict[int, Told] = {}
    self._client = distributed.global_state.client

  def say(self, told: Told) -> None:
    self._own = {jax.process_index(): told}
    if self._client is not None:
      self._client.key_value_set(
        f"{_KEY}/{jax.process_index()}", json.dumps(told), allow_overwrite=True
      )

  def read(self) -> dict[int, Told]:
    if self._client is None:
      return self._own
    found = self._client.key_value_dir_get(f"{_KEY}/")
    return {
      int(key.rpartition("/")[2]): Told(*json.loads(text))
      for key, text in found
    }


class Watchdog:
  """Watches, as a context, the thread that enters it."""

  def __init__(
    self,
    beat: Callable[[], Beat],
    *,
    seconds: float,
    abort: bool,
    board: Board | None = None,
  ):
    """Waits for a stall.

    Args:
      beat: what this process is at.
      seconds: without progress that are a stall; 0 watches nothing. What compiles
        may take its time.
      abort: whether a stall ends the process, after it is told; a save's doesn't,
        as the next start would meet the same.
    """
    self._beat, self._seconds, self._abort = beat, seconds, abort
    self._board = board or Board()
    self._pause = min(seconds / _OFTEN, _PAUSE)
    self._number = 0
    self._compiled = -math.inf
    """When it was last seen that this process compiles."""
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._work, daemon=True)

  def __enter__(self) -> Self:
    self._watched = threading.get_ident()
    if self._seconds > 0:
      self._thread.start()
    return self

  def __exit__(self, *raised: object) -> None:
    self._ended.set()
    if self._seconds > 0:
      self._thread.join()
      with contextlib.suppress(jax.errors.JaxRuntimeError):
        self._say(self._beat()._replace(doing=_ENDED))

  def _work(self) -> None:
    told_of = None
    try:
      while not self._ended.wait(self._pause):
        beat = self._look()
        if beat == told_of or not self._stalls(beat):
          continue
        if self._tell(beat):
          told_of = beat
    except jax.errors.JaxRuntimeError as error:
      if not self._ended.is_set():
        _print(f"no watchdog any more: the coordinator says {error}")

  def _look(self) -> Beat:
    """What this process is at, which it says: whatever it does, it may compile."""
    beat, now = self._beat(), time.monotonic()
    if compiles(self._stack()):
      self._compiled = now
      beat = beat._replace(doing="compile")
    beat = beat._replace(since=max(beat.since, self._compiled))
    self._say(beat)
    return beat

  def _stalls(self, beat: Beat) -> bool:
    quiet = time.monotonic() - beat.since
    return beat.doing != "compile" and quiet > self._seconds

  def _say(self, beat: Beat) -> None:
    self._number += 1
    quiet = time.monotonic() - beat.since
    told = Told(
      self._number, beat.position, beat.doing, quiet, _where(self._stack())
    )
    self._board.say(told)

  def _tell(self, beat: Beat) -> bool:
    """Says who stalls, if it lasts and there is somebody."""
    before = self._board.read()
    for _ in range(3):  # long enough for those that live to say something
      if self._ended.wait(self._pause) or self._look() != beat:
        return False
    after = self._board.read()
    count = jax.process_count()
    silent = silent_among(range(count), before, after)
    stalls = stalling(after, silent=silent)
    if not stalls:
      return False
    here = jax.process_index()
    if here == teller(after, silent=silent):
      for process in stalls:
        _print(described(process, after, count=count, silent=silent))
    if here in stalls:
      stack = "".join(traceback.format_stack(self._stack()))
      _print(f"process {here} of {count} is here:\n{stack.rstrip()}")
    saves = any(p in after and after[p].doing == "save" for p in stalls)
    if self._abort and not saves:
      _print(f"process {here} of {count} gives up (exit code {STALLED})")
      if here == 0 and count > 1:  # others would miss the coordinator
        time.sleep(3 * self._pause)
      os._exit(STALLED)
    return True

  def _stack(self) -> FrameType | None:
    return sys._current_frames().get(self._watched)


def silent_among(
  processes: Iterable[int],
  before: Mapping[int, Told],
  after: Mapping[int, Told],
) -> set[int]:
  """Who said nothing between two readings, or ever; not who came to an end."""
  return {
    process
    for process in processes
    if process not in after
    or (
      process in before
      and before[process].number == after[process].number
      and after[process].doing != _ENDED
    )
  }


def stalling(told: Mapping[int, Told], *, silent: set[int]) -> list[int]:
  """The processes that others wait for; none where somebody compiles.

  Who says nothing any more, else who is behind, else, of those, who is at something
  that a process does by itself; else all: a collective that doesn't end, or devices.
  """
  if silent:
    return sorted(silent)
  if any(each.doing == "compile" for each in told.values()):
    return []
  going = {p: each for p, each in told.items() if each.doing != _ENDED}
  behind = min(each.position for each in going.values())
  last = [p for p in sorted(going) if going[p].position == behind]
  alone = [p for p in last if told[p].doing != _TOGETHER]
  return alone or last


def teller(told: Mapping[int, Told], *, silent: set[int]) -> int:
  """The process that says who stalls: the first that is still there."""
  return min(
    process
    for process, each in told.items()
    if process not in silent and each.doing != _ENDED
  )


def compiles(frame: FrameType | None) -> bool:
  """Whether XLA compiles somewhere in a stack, or reads what it has compiled."""
  while frame is not None:
    if frame.f_code.co_filename == compiler.__file__:
      return True
    frame = frame.f_back
  return False


def described(
  process: int, told: Mapping[int, Told], *, count: int, silent: set[int]
) -> str:
  """The line of a process that stalls."""
  name = f"process {process} of {count}"
  others: dict[str, int] = {}
  for other, each in told.items():
    if other != process:
      others[each.doing] = others.get(each.doing, 0) + 1
  wait = ", ".join(f"{n} in {doing}" for doing, n in sorted(others.items()))
  wait = f"; others: {wait}" if wait else ""
  if process not in told:
    return f"{name} says nothing{wait}"
  own = told[process]
  at = f"at step {own.position}, in {own.doing} ({own.where})"
  if process in silent:
    return f"{name} says nothing any more; it was {at}{wait}"
  return f"{name} made no progress for {own.seconds:.0f} s: {at}{wait}"


def _where(frame: FrameType | None) -> str:
  """The innermost place of the program in a stack."""
  stack: list[Any] = list(traceback.extract_stack(frame)) if frame else []
  ours = [each for each in stack if each.filename.startswith(_PACKAGE)]
  for each in reversed(ours or stack):
    return f"{Path(each.filename).name}:{each.lineno} in {each.name}"
  return "its thread has ended"


def _print(text: str) -> None:
  print(f"watchdog: {text}", file=sys.stderr, flush=True)
