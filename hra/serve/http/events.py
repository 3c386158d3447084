"""A transcript as server-sent events.

Of a recording that is heard in pieces, each `transcript.text.delta` has the words that
one more piece makes certain, as soon as it does; of a shorter one no word is certain before
all of it is heard, and they come together, one for each segment. Comments keep the
connection alive meanwhile. `transcript.text.done` says the whole text, which is that of
all deltas, with the receipt.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from hra.errors import InputError
from hra.serve.http import errors, formats, waiting
from hra.serve.http.service import notes_of, refused
from hra.serve.interface import Answer

HEAD_SECONDS = 5.0
"""For an answer, or an error with its status, before the head is sent without."""
_ALIVE_SECONDS = 10.0
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Progress:
  """From the engine's threads to the events of this loop: what is certain."""

  def __init__(self) -> None:
    self.text = ""
    self._loop = asyncio.get_running_loop()
    self._more = asyncio.Event()

  def tell(self, text: str) -> None:
    """Takes the beginning of a text, in any thread."""
    self._loop.call_soon_threadsafe(self._take, text)

  async def more(self) -> None:
    """Waits until more was told than when this returned last."""
    await self._more.wait()
    self._more.clear()

  def _take(self, text: str) -> None:
    self.text = text
    self._more.set()


async def response(
  request: Request,
  work: "asyncio.Task[Answer]",
  progress: Progress,
  model: str,
  *,
  seconds: float,
) -> Response:
  """The events of an answer that is worked on.

  An error that is known soon is an answer of its own, with its status; one of
  later is an event.

  Args:
    progress: told what is certain before that.

  Raises:
    Gone: the client hung up.
    Refusal, InputError: it isn't answered.
  """
  deadline = time.monotonic() + seconds
  gone = asyncio.create_task(waiting.until_gone(request.receive))
  more = asyncio.create_task(progress.more())
  try:
    await asyncio.wait(
      (work, gone, more),
      timeout=min(HEAD_SECONDS, seconds),
      return_when=asyncio.FIRST_COMPLETED,
    )
  except asyncio.CancelledError:
    work.cancel()
    raise
  finally:
    gone.cancel()
    more.cancel()
  if work.done():
    answer = work.result()
    notes_of(request).answer = answer
    headers = formats.receipt_headers(answer)
    return _response(_told(answer), headers)
  if gone.done() and not gone.cancelled():
    work.cancel()
    raise waiting.Gone
  waited = _waited(request, work, progress, model, deadline, seconds)
  return _response(waited, {})


def deltas(answer: Answer) -> list[str]:
  """Texts that make the whole, one for each segment where these do."""
  parts: list[str] = []
  place = 0
  for each in answer.segments:
    found = answer.text.find(each.text, place)
    if found < 0:  # a text that isn't the sum of its segments
      return [answer.text]
    stop = found + len(each.text)
    parts.append(answer.text[place:stop])
    place = stop
  parts.append(answer.text[place:])
  return [part for part in parts if part]


def _response(
  events: AsyncIterator[bytes], headers: dict[str, str]
) -> Response:
  return StreamingResponse(
    events, media_type="text/event-stream", headers=headers | _HEADERS
  )


async def _told(answer: Answer, sent: str = "") -> AsyncIterator[bytes]:
  """What is left of an answer, and all of it.

  Raises:
    Refusal: it doesn't begin as what was sent.
  """
  if not answer.text.startswith(sent):
    message = "The text doesn't begin as it was told."
    raise errors.Refusal(500, message, code="server_error")
  parts = [answer.text[len(sent) :]] if sent else deltas(answer)
  for delta in filter(None, parts):
    yield _delta(delta)
  yield _event(
    {
      "type": "transcript.text.done",
      "text": answer.text,
      "hra": formats.receipt(answer),
    }
  )


async def _waited(
  request: Request,
  work: "asyncio.Task[Answer]",
  progress: Progress,
  model: str,
  deadline: float,
  seconds: float,
) -> AsyncIterator[bytes]:
  """What is certain, or comments; then the rest, or why there is none."""
  sent = ""
  try:
    while not work.done():
      left = deadline - time.monotonic()
      if left <= 0:
        yield _event(waiting.too_slow(seconds).body())
        return
      new, sent = progress.text[len(sent) :], progress.text
      yield _delta(new) if new else b": heard\n\n"
      await _either(work, progress, seconds=min(left, _ALIVE_SECONDS))
    try:
      answer = work.result()
      notes_of(request).answer = answer
      async for event in _told(answer, sent):
        yield event
    except (errors.Refusal, InputError) as error:
      yield _event(refused(request, error, model=model).body())
  finally:
    work.cancel()


async def _either(
  work: "asyncio.Task[Answer]", progress: Progress, *, seconds: float
) -> None:
  """Waits for the answer or for more of it."""
  more = asyncio.create_task(progress.more())
  try:
    await asyncio.wait(
      (work, more), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
    )
  finally:
    more.cancel()


def _delta(text: str) -> bytes:
  return _event({"type": "transcript.text.delta", "delta": text})


def _event(data: dict[str, Any]) -> bytes:
  name = data.get("type", "error")
  return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
