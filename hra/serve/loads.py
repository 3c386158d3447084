"""Submodels that somebody wants on the device for their own sake (`Engine.load`)."""

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future

from hra.serve.compiler import Compiler
from hra.serve.endings import settle
from hra.serve.interface import Resident
from hra.serve.kinds import Kind
from hra.serve.reading import Row
from hra.serve.rows import Rows

_Future = Future[Resident]


def resident(row: Row) -> Resident:
  return Resident(row.task, row.version, row.fingerprint)


class Loads:
  """Those that are not done; all but `grant` under the engine's lock."""

  def __init__(
    self,
    rows: Rows,
    compiler: Compiler,
    *,
    lock: threading.RLock,
    changed: Callable[[], None],
    later: Executor,
  ):
    """
    Args:
      changed: called when something waits for the device.
      later: tells futures, whose callbacks may do anything.
    """
    self.open: dict[_Future, None] = {}
    self._rows, self._compiler = rows, compiler
    self._lock, self._changed, self._later = lock, changed, later
    self._there: list[tuple[Row, _Future]] = []

  def ask(self, task: str) -> _Future:
    future: _Future = Future()
    self.open[future] = None
    arrived = functools.partial(self._arrived, future)
    self._rows.want(task, arrived, owner=future, fresh=True)
    return future

  def kinds(self) -> set[Kind | None]:
    """Of those that are to be brought to slots."""
    return {row.kind for row, _ in self._there}

  def take(self) -> list[tuple[Row, _Future]]:
    """What the device is to bring to slots."""
    there, self._there = self._there, []
    return there

  def grant(self, future: _Future, found: Resident | Exception) -> None:
    """Tells who asked, once."""
    with self._lock:
      waits = self.open.pop(future, False) is None
    if waits:
      settle(future, found)

  def _arrived(self, future: _Future, found: Row | Exception) -> None:
    if future not in self.open:
      return
    if isinstance(found, Exception):
      self.grant_later(future, found)
    elif found.kind is None:  # nothing of it goes to the device
      self.grant_later(future, resident(found))
    elif not self._compiler.serves(found.kind):
      again = functools.partial(self._arrived, future, found)
      fail = functools.partial(self.grant_later, future)
      self._compiler.wait_for(future, found.kind, again, fail)
    else:
      self._there.append((found, future))
      self._changed()

  def grant_later(self, future: _Future, found: Resident | Exception) -> None:
    self._later.submit(self.grant, future, found)
