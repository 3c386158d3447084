"""SIGTERM and Ctrl-C while training: heeded where the state is whole.

A first signal is noted. The loop asks for it between steps and between batches of
an evaluation; only while it waits for data does the signal break in. A second
one acts as if it were not caught: it ends a save that takes too long.
"""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Self

_WATCHED = (signal.SIGTERM, signal.SIGINT)


class Stop(BaseException):
  """The job was asked to stop; no `except Exception` on the way keeps it."""


class Signals:
  """Watches, as a context, for the first SIGTERM or SIGINT."""

  def __init__(self) -> None:
    self.first: signal.Signals | None = None
    self._waiting = False

  def __enter__(self) -> Self:
    self._previous = {number: signal.getsignal(number) for number in _WATCHED}
    for number in _WATCHED:
      signal.signal(number, self._note)
    return self

  def __exit__(self, *raised: object) -> None:
    self._restore()

  def heed(self) -> None:
    """Raises Stop if a signal came."""
    if self.first is not None:
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
    if self._waiting:
      raise Stop

  def _restore(self) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
