"""How requests end: futures that are told, and why an engine answers no more."""

import concurrent.futures
import logging
from typing import TypeVar

from hra.errors import InputError
from hra.serve.interface import REFUSALS, BadSubmodel, Closed, Failed

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)


def settle(
  future: "concurrent.futures.Future[_T]", found: _T | Exception
) -> None:
  """Tells a future, unless whoever holds it has cancelled it.

  Its callbacks run in this thread, which holds no lock. What is none of the
  interface's errors is the cause of one.
  """
  if isinstance(found, Exception) and not isinstance(found, REFUSALS):
    found = _failed(found)
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


def bad(error: InputError) -> BadSubmodel:
  """A new one, which says the same."""
  return BadSubmodel(
    error.where, expected=error.expected, got=error.got, fix=error.fix
  )


def _failed(error: Exception) -> Failed:
  _LOG.error("a request failed", exc_info=error)
  failed = Failed(
    "engine",
    expected="a request that can be answered",
    got=f"{type(error).__name__}: {error}",
    fix="try later",
  )
  failed.__cause__ = error
  return failed
