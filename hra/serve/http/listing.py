"""The store's tasks: asked for once at a time, however many wait for them."""

import asyncio
import concurrent.futures
import threading
import time

from hra.serve import interface
from hra.serve.endings import settle

_TOLD_SECONDS = 1.0
"""How long the store's word, or its failure, is told again without asking it."""


class Listing:
  """Of one event loop."""

  def __init__(self, engine: interface.Engine, *, seconds: float):
    """
    Args:
      seconds: within which the store answers.
    """
    self._engine = engine
    self._seconds = seconds
    self._begun, self._ended = 0.0, 0.0
    self._asking: asyncio.Task[list[str]] | None = None

  async def tasks(self) -> list[str]:
    """Whose Submodels there are, in order.

    A store that doesn't answer is asked no second time before it does, and after
    `seconds` nobody waits for it any more.

    Raises:
      StoreGone: it can't be reached, or not in time.
    """
    now = time.monotonic()
    asking = self._asking
    if asking is None or (asking.done() and now - self._ended >= _TOLD_SECONDS):
      self._begun = now
      self._asking = asking = asyncio.create_task(self._ask())
    try:
      async with asyncio.timeout(self._begun + self._seconds - now):
        return await asyncio.shield(asking)
    except TimeoutError:
      raise interface.StoreGone(
        "store",
        expected="one that answers in time",
        got=f"no answer within {self._seconds:g} s",
        fix="try later",
      ) from None

  async def _ask(self) -> list[str]:
    """In a thread that keeps no server from its end."""
    future: concurrent.futures.Future[list[str]] = concurrent.futures.Future()
    thread = threading.Thread(
      target=self._work, args=(future,), name="listing", daemon=True
    )
    thread.start()
    try:
      return await asyncio.wrap_future(future)
    finally:
      self._ended = time.monotonic()

  def _work(self, future: "concurrent.futures.Future[list[str]]") -> None:
    found: list[str] | Exception
    try:
      found = self._engine.tasks()
    # Whatever it is, it belongs to those who wait.
    except Exception as error:
      found = error
    settle(future, found)
