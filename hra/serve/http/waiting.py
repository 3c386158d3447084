"""Waits for work as long as its client does, and no longer than it may take."""

import asyncio
import contextlib
from typing import TypeVar

from starlette.types import Receive

from hra.serve.http import errors

T = TypeVar("T")


class Gone(Exception):
  """The client hung up."""


async def result_of(
  work: "asyncio.Task[T]", receive: Receive, *, seconds: float | None = None
) -> T:
  """What the work comes to; it is cancelled when nobody waits any more.

  Args:
    receive: of a request whose body has been read.
    seconds: that it may take; None is as many as it takes.

  Raises:
    Gone: the client hung up.
    Refusal: it took too long.
  """
  gone = asyncio.create_task(until_gone(receive))
  try:
    await asyncio.wait(
      (work, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
    )
    if work.done():
      return work.result()
    if gone.done():
      raise Gone
    assert seconds is not None
    raise too_slow(seconds)
  finally:
    for task in (work, gone):
      task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
      await gone


async def until_gone(receive: Receive) -> None:
  """Until the client hangs up; whatever else it sends is passed over."""
  while not (await receive())["type"].endswith(".disconnect"):
    pass


def too_slow(seconds: float) -> errors.Refusal:
  return errors.Refusal(
    504, f"No answer within {seconds:g} s.", code="answer_timeout"
  )
