"""How requests end: futures that are told, and why an engine answers no more."""

import concurrent.futures
from typing import TypeVar

from hra.serve.interface import Closed

_T = TypeVar("_T")


def settle(
  future: "concurrent.futures.Future[_T]", found: _T | Exception
) -> None:
  """Tells a future, unless whoever holds it has cancelled it.

  Its callbacks run in this thread, which holds no lock.
  """
  if future.set_running_or_notify_cancel():
    if isinstance(found, Exception):
      future.set_exception(found)
    else:
      future.set_result(found)


def closed() -> Closed:
  return Closed("engine", expected="one that serves", got="one that is closed")


def died(error: Exception) -> Closed:
  """Nothing is computed any more."""
  return Closed(
    "engine",
    expected="a device that computes",
    got=f"{type(error).__name__}: {error}",
    fix="start it again",
  )
