"""Samples that the server holds at once, of all clients, are bounded."""

from types import TracebackType

from hra.serve.http import errors


class Budget:
  """Bytes that may be held; of one event loop."""

  def __init__(self, limit: float):
    self.limit = limit
    self.held = 0

  def hold(self) -> "Held":
    return Held(self)


class Held:
  """One request's part of the budget, until it is released."""

  def __init__(self, budget: Budget):
    self._budget = budget
    self._bytes = 0

  def take(self, count: int) -> None:
    """Raises Refusal where all clients together would hold too much."""
    if self._budget.held + count > self._budget.limit:
      raise errors.overloaded("The server holds too much already; try later.")
    self._budget.held += count
    self._bytes += count

  def release(self, count: int | None = None) -> None:
    """Gives back so many bytes, or all."""
    back = self._bytes if count is None else min(count, self._bytes)
    self._budget.held -= back
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
