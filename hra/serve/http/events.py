"""A transcript as server-sent events.

A recording is heard as a whole (by pieces where it is long) before its first word is
certain, so that `transcript.text.delta` events come together, one for each segment;
until then comments keep the connection alive. `transcript.text.done` says the whole
text, with the receipt.
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


async def response(
  request: Request,
  work: "asyncio.Task[Answer]",
  model: str,
  *,
  seconds: float,
) -> Response:
  """The events of an answer that is worked on.

  An error that is known soon is an answer of its own, with its status; one of
  later is an event.

  Raises:
    Gone: the client hung up.
    Refusal, InputError: it isn't answered.
  """
  deadline = time.monotonic() + seconds
  gone = asyncio.create_task(waiting.until_gone(request.receive))
  try:
    await asyncio.wait(
      (work, gone),
      timeout=min(HEAD_SECONDS, seconds),
      return_when=asyncio.FIRST_COMPLETED,
    )
  except asyncio.CancelledError:
    work.cancel()
    raise
  finally:
    gone.cancel()
  if work.done():
    answer = work.result()
    notes_of(request).answer = answer
    headers = formats.receipt_headers(answer)
    return _response(_told(answer), headers)
  if gone.done() and not gone.cancelled():
    work.cancel()
    raise waiting.Gone
  return _response(_waited(request, work, model, deadline, seconds), {})


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


async def _told(answer: Answer) -> AsyncIterator[bytes]:
  for delta in deltas(answer):
    yield _event({"type": "transcript.text.delta", "delta": delta})
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
  model: str,
  deadline: float,
  seconds: float,
) -> AsyncIterator[bytes]:
  """Comments, and then the answer or why there is none."""
  try:
    while not work.done():
      left = deadline - time.monotonic()
      if left <= 0:
        yield _event(waiting.too_slow(seconds).body())
        return
      yield b": heard\n\n"
      await asyncio.wait((work,), timeout=min(left, _ALIVE_SECONDS))
    try:
      answer = work.result()
    except (errors.Refusal, InputError) as error:
      yield _event(refused(request, error, model=model).body())
      return
    notes_of(request).answer = answer
    async for event in _told(answer):
      yield event
  finally:
    work.cancel()


def _event(data: dict[str, Any]) -> bytes:
  name = data.get("type", "error")
  return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
