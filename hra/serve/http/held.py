"""What the server holds at once is bounded: of all clients, and of each of them."""

import collections
import math
from types import TracebackType

from hra.serve import interface
from hra.serve.http import errors


class Budget:
  """Bytes, or whatever is counted, that may be held; of one event loop."""

  def __init__(self, limit: float, *, share: float = math.inf):
    """Nothing is held yet.

    Args:
      share: that one client may hold by several requests.
    """
    self.limit = limit
    self.share = share
    self.held = 0
    self.held_of: collections.Counter[str] = collections.Counter()

  def hold(self, who: str = "") -> "Held":
    return Held(self, who)

  def add(self, who: str, count: int) -> None:
    self.held += count
    self.held_of[who] += count
    if not self.held_of[who]:
      del self.held_of[who]


class Held:
  """One request's part of the budget, until it is released."""

  def __init__(self, budget: Budget, who: str):
    self._budget = budget
    self.who = who
    self._bytes = 0

  def take(self, count: int) -> None:
    """
    Raises:
      Refusal: all clients together would hold too much.
      TooMany: this one would, by all of its requests.
    """
    if self._budget.held + count > self._budget.limit:
      raise errors.overloaded("The server holds too much already; try later.")
    own = self._budget.held_of[self.who]
    if own > self._bytes and own + count > self._budget.share:
      raise interface.TooMany(
        "the request", expected="less at once of one client", got="more"
      )
    self._budget.add(self.who, count)
    self._bytes += count

  def release(self, count: int | None = None) -> None:
    """Gives back so many bytes, or all."""
    back = self._bytes if count is None else min(count, self._bytes)
    self._budget.add(self.who, -back)
    self._bytes -= back

  def __enter__(self) -> "Held":
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self.release()
