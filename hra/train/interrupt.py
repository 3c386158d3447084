"""SIGTERM and Ctrl-C while training: heeded where the state is whole.

A first signal is noted. The loop asks for it between steps and between batches of
an evaluation; only while it waits for data does the signal break in. A second
one acts as if it were not caught: it ends a save that takes too long.
Of several processes all stop at the same place, whichever got the signal; there it
breaks in nowhere.
"""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn, Self

from hra import processes

_WATCHED = (signal.SIGTERM, signal.SIGINT)


class Stop(BaseException):
  """The job was asked to stop; no `except Exception` on the way keeps it."""


class Signals:
  """Watches, as a context, for the first SIGTERM or SIGINT."""

  def __init__(self) -> None:
    self.first: signal.Signals | None = None
    self.reason = ""
    """Of Stop: the signal's name."""
    self._agreed = processes.Agreed("stop")
    self._waiting = False

  def __enter__(self) -> Self:
    self._previous = {number: signal.getsignal(number) for number in _WATCHED}
    for number in _WATCHED:
      signal.signal(number, self._note)
    return self

  def __exit__(self, *raised: object) -> None:
    self._restore()

  def heed(self) -> None:
    """Raises Stop if a signal came; all processes call it as often."""
    if self.first is not None:
      self._agreed.ask(self.first.name)
    reason = self._agreed.reached()
    if reason is not None:
      self._stop(reason)

  def heed_all(self) -> None:
    """Raises Stop if a signal came to any process: where they heed none later."""
    if processes.any_of(self.first is not None):
      self._stop(
        self.first.name if self.first else "a signal to another process"
      )

  def _stop(self, reason: str) -> NoReturn:
    self.reason = reason
    raise Stop

  @contextlib.contextmanager
  def interruptible(self) -> Iterator[None]:
    """What runs inside changes nothing that is saved: Stop breaks in."""
    self._waiting = True
    try:
      self.heed()  # a signal from here on raises by itself
      yield
    finally:
      self._waiting = False
    self.heed()

  def _note(self, number: int, frame: FrameType | None) -> None:
    del frame
    self.first = signal.Signals(number)
    self._restore()
    if self._waiting and processes.count() == 1:
      self._stop(self.first.name)

  def _restore(self) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
