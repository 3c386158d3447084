"""WS /v1/audio/stream: samples come in, what is heard of them goes out.

    client  {"type": "start", "model": "tiny:anna", "token": "hra_..."}
    server  {"type": "ready"}
    client  samples, 16 kHz mono, in binary messages of any size
    server  {"type": "partial", "text": "what is hea", "seconds": 1.2}
    client  {"type": "end"}
    server  {"type": "final", "text": "what is heard", ...}, and closes

`start` may also say `encoding` (pcm16 or float32, little-endian), `fallback`, `guard`
and `partials` (false for the final text alone). What goes wrong is
{"type": "error", "error": {...}}, as over HTTP, and the end.

The final text is that of the whole recording, as of a file. Partial ones may be taken
back: they are of the last seconds alone, and told when the engine has time.
"""

import asyncio
import contextlib
import json
from typing import Any, NamedTuple, get_args

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.serve import interface
from hra.serve.http import access, errors, formats, waiting
from hra.serve.http.form import Asked
from hra.serve.http.partials import tell_partials
from hra.serve.http.samples import Encoding, Samples
from hra.serve.http.service import (
  Service,
  future_of,
  notes_of,
  refused,
  service_of,
)

_LONGEST_TEXT = 16 * 1024
_POLICY, _TOO_BIG, _FAILED, _LATER = 1008, 1009, 1011, 1013
_CODES = {413: _TOO_BIG, 429: _LATER, 503: _LATER}
"""Of a close, by the status of its error."""
_NOTHING = np.zeros(0, np.float32)
_PATIENCE = 0.25
"""Seconds until a busy engine is asked again for a final text."""


class Start(NamedTuple):
  """What the first message asks."""

  model: str
  token: str | None = None
  encoding: Encoding = "pcm16"
  fallback: bool = False
  guard: bool = True
  partials: bool = True


async def stream(socket: WebSocket) -> None:
  """Answers one connection until its end."""
  await socket.accept()
  model = ""
  limits = service_of(socket).config.limits
  try:
    start = _start(await _message(socket, seconds=limits.header_seconds))
    model = start.model
    await _session(socket, start)
  except (WebSocketDisconnect, waiting.Gone):
    notes_of(socket).status = errors.GONE
  except (errors.Refusal, InputError) as error:
    await _refuse(socket, refused(socket, error, model=model))
  else:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
      await socket.close()


async def _session(socket: WebSocket, start: Start) -> None:
  """From what is asked to the final text."""
  service = service_of(socket)
  token = start.token or access.token_of(socket)
  key = service.let_in(socket, access.key_of(service.keys, token))
  named = access.named(start.model, backbone=service.about.name, key=key)
  notes_of(socket).task = named.task
  asked = interface.Request(
    _NOTHING, named.task, fallback=start.fallback, guard=start.guard
  )
  limits = service.config.limits
  await _bring(service, asked)
  await socket.send_json({"type": "ready"})
  with service.samples.hold() as held:
    samples = Samples(start.encoding, held, most=limits.max_seconds)
    await _listen(socket, service, samples, asked, partials=start.partials)
    final = asked._replace(wave_S=samples.whole())
    work = asyncio.create_task(_patiently(service, final))
    answer = await waiting.result_of(
      work, socket.receive, seconds=limits.answer_seconds
    )
  notes_of(socket).answer = answer
  await socket.send_json({"type": "final"} | _told(service, answer))


async def _bring(service: Service, asked: interface.Request) -> None:
  """Has the Submodel loaded, so that who isn't there is told of at once."""
  task = asked.task
  if task is None:
    return
  try:
    async with asyncio.timeout(service.config.limits.answer_seconds):
      await future_of(lambda: service.engine.load(task))
  except interface.UnknownSpeaker:
    if not asked.fallback:
      raise
  except (interface.Overloaded, interface.StoreGone, TimeoutError):
    pass  # requests of this stream wait as others do, and who is held is answered


async def _listen(
  socket: WebSocket,
  service: Service,
  samples: Samples,
  asked: interface.Request,
  *,
  partials: bool,
) -> None:
  """Takes samples in until their end, and tells what is heard meanwhile."""

  async def tell(text: str, seconds: float) -> None:
    told = {"type": "partial", "text": text, "seconds": round(seconds, 3)}
    await socket.send_json(told)

  try:
    async with asyncio.TaskGroup() as group:
      telling = None
      if partials:
        telling = group.create_task(
          tell_partials(
            service.heard, tell, samples, asked, config=service.config.stream
          )
        )
      await _take(socket, samples)
      if telling is not None:
        telling.cancel()
  except ExceptionGroup as errors_:
    gone = errors_.subgroup(WebSocketDisconnect)
    raise (gone or errors_).exceptions[0] from None


async def _take(socket: WebSocket, samples: Samples) -> None:
  """Samples, until the message that says that they end."""
  limits = service_of(socket).config.limits
  while True:
    message = await _message(socket, seconds=limits.body_seconds)
    if isinstance(message, bytes):
      samples.add(message)
    elif message == {"type": "end"}:
      return
    else:
      raise _bad_message('expected samples or {"type": "end"}')


async def _patiently(
  service: Service, final: interface.Request
) -> interface.Answer:
  """An answer, however busy the engine is: all of the recording is here."""
  while True:
    try:
      return await service.heard(final)
    except interface.Overloaded:
      await asyncio.sleep(_PATIENCE)


async def _message(
  socket: WebSocket, *, seconds: float
) -> bytes | dict[str, Any]:
  """The next message: samples, or what a text says.

  Args:
    seconds: within which it comes.

  Raises:
    WebSocketDisconnect: the client hung up.
    Refusal: a text that says nothing, or no message.
  """
  try:
    async with asyncio.timeout(seconds):
      message = await socket.receive()
  except TimeoutError:
    raise errors.Refusal(
      408, f"Nothing came for {seconds:g} s.", code="request_too_slow"
    ) from None
  if message["type"] == "websocket.disconnect":
    raise WebSocketDisconnect(message.get("code", _POLICY))
  data: bytes | None = message.get("bytes")
  if data is not None:
    return data
  text = message.get("text") or ""
  try:
    told = json.loads(text) if len(text) <= _LONGEST_TEXT else None
  except (ValueError, RecursionError):
    told = None
  if not isinstance(told, dict):
    raise _bad_message("expected a JSON object, or samples in binary")
  return told


def _start(told: bytes | dict[str, Any]) -> Start:
  """What a first message asks.

  Raises:
    Refusal: it is another, or has a field that can't be honoured.
  """
  if isinstance(told, bytes) or told.get("type") != "start":
    raise _bad_message('the first message is {"type": "start", ...}')
  fields = {name: value for name, value in told.items() if name != "type"}
  if fields.get("sample_rate", SAMPLE_RATE) != SAMPLE_RATE:
    raise errors.bad_field("sample_rate", f"only {SAMPLE_RATE}")
  fields.pop("sample_rate", None)
  for name, value in fields.items():
    if name not in Start._fields:
      raise errors.bad_field(errors.shown(name), "is no field of start")
    kind = bool if name in ("fallback", "guard", "partials") else str
    if type(value) is not kind or (kind is str and not errors.is_name(value)):
      raise errors.bad_field(name, f"expected a {kind.__name__}")
  if "model" not in fields:
    raise errors.bad_field("model", "none is given", code="missing_field")
  start = Start(**fields)
  if start.encoding not in get_args(Encoding):
    raise errors.bad_field("encoding", "expected pcm16 or float32")
  return start


def _told(service: Service, answer: interface.Answer) -> dict[str, Any]:
  times = {"segment"} if answer.words is None else {"segment", "word"}
  asked = Asked(granularities=frozenset(times))  # type: ignore[arg-type]
  return formats.verbose(answer, asked, language=service.about.language)


async def _refuse(socket: WebSocket, refusal: errors.Refusal) -> None:
  """Says why there is no answer, and closes."""
  notes_of(socket).status = refusal.status
  usual = _FAILED if refusal.status >= 500 else _POLICY
  told = {"type": "error", "status": refusal.status} | refusal.body()
  with contextlib.suppress(WebSocketDisconnect, RuntimeError):
    await socket.send_json(told)
    await socket.close(_CODES.get(refusal.status, usual), refusal.code)


def _bad_message(message: str) -> errors.Refusal:
  return errors.Refusal(400, f"{message}.", code="bad_message")
