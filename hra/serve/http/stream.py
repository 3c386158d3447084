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

A server that ends says `shutting_down` and closes with 1012, but for streams that wait for
their final text.

The final text is that of the whole recording, as of a file. Partial ones may be taken
back: they are of the last seconds alone, and told when the engine has time.
"""

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple, get_args

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.serve import interface
from hra.serve.http import access, bounds, errors, formats, waiting
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
_RESTARTS = 1012
_CODES = {413: _TOO_BIG, 429: _LATER, 503: _LATER}
"""Of a close, by the status of its error."""
_NOTHING = np.zeros(0, np.float32)
_CHECK_SECONDS = 1.0
"""Between two looks at whether the key still is one."""
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
  service = service_of(socket)
  limits = service.config.limits
  try:
    with contextlib.ExitStack() as holding:
      async with _as_long_as_it_serves(service):
        start = _start(await _message(socket, seconds=limits.header_seconds))
        model = start.model
        final = await _recorded(socket, start, holding)
      await _answer(socket, final)
  except (WebSocketDisconnect, waiting.Gone):
    notes_of(socket).status = errors.GONE
  except asyncio.CancelledError:  # the server waits no longer
    await _refuse(socket, refused(socket, errors.leaving()))
  except (errors.Refusal, InputError) as error:
    await _refuse(socket, refused(socket, error, model=model))
  else:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
      await socket.close()


@contextlib.asynccontextmanager
async def _as_long_as_it_serves(service: Service) -> AsyncIterator[None]:
  """Raises Refusal where the server ends meanwhile."""

  async def leave() -> None:
    await service.leaving.wait()
    raise errors.leaving()

  try:
    async with asyncio.TaskGroup() as group:
      leaving = group.create_task(leave())
      yield
      leaving.cancel()
  except ExceptionGroup as errors_:
    raise errors_.exceptions[0] from None


async def _recorded(
  socket: WebSocket, start: Start, holding: contextlib.ExitStack
) -> interface.Request:
  """From what is asked to the end of its samples, which `holding` lets go."""
  service = service_of(socket)
  token = start.token or access.token_of(socket)
  key = service.let_in(socket, service.key_of(socket, token))
  named = access.named(start.model, backbone=service.about.name, key=key)
  notes_of(socket).task = named.task
  asked = interface.Request(
    _NOTHING, named.task, fallback=start.fallback, guard=start.guard
  )
  limits = service.config.limits
  await _bring(service, asked)
  await socket.send_json({"type": "ready"})
  held = holding.enter_context(
    service.samples.hold(bounds.who_of(socket.scope))
  )
  samples = Samples(start.encoding, held, most=limits.max_seconds)
  check = functools.partial(_check, service, start, token)
  await _listen(socket, service, samples, asked, check, partials=start.partials)
  return asked._replace(wave_S=samples.whole())


async def _answer(socket: WebSocket, final: interface.Request) -> None:
  """Tells the final text."""
  service = service_of(socket)
  who = bounds.who_of(socket.scope)
  work = asyncio.create_task(_patiently(service, final, who=who))
  seconds = service.config.limits.answer_seconds
  answer = await waiting.result_of(work, socket.receive, seconds=seconds)
  notes_of(socket).answer = answer
  await socket.send_json({"type": "final"} | _told(service, answer))


def _check(service: Service, start: Start, token: str | None) -> None:
  """Raises Refusal where the key is none any more, or no longer the speaker's."""
  key = access.key_of(service.keys, token)
  access.named(start.model, backbone=service.about.name, key=key)


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
  check: Callable[[], None],
  *,
  partials: bool,
) -> None:
  """Takes samples in until their end, and tells what is heard meanwhile."""
  hear = functools.partial(service.heard, who=bounds.who_of(socket.scope))

  async def tell(text: str, seconds: float) -> None:
    told = {"type": "partial", "text": text, "seconds": round(seconds, 3)}
    await socket.send_json(told)

  try:
    async with asyncio.TaskGroup() as group:
      telling = None
      if partials:
        telling = group.create_task(
          tell_partials(
            hear, tell, samples, asked, config=service.config.stream
          )
        )
      await _take(socket, samples, check)
      if telling is not None:
        telling.cancel()
  except ExceptionGroup as errors_:
    gone = errors_.subgroup(WebSocketDisconnect)
    raise (gone or errors_).exceptions[0] from None


async def _take(
  socket: WebSocket, samples: Samples, check: Callable[[], None]
) -> None:
  """Samples, until the message that says that they end."""
  limits = service_of(socket).config.limits
  checked = time.monotonic()
  while True:
    message = await _message(socket, seconds=limits.body_seconds)
    if time.monotonic() - checked >= _CHECK_SECONDS:
      check()
      checked = time.monotonic()
    if isinstance(message, bytes):
      samples.add(message)
    elif message == {"type": "end"}:
      return
    else:
      raise _bad_message('expected samples or {"type": "end"}')


async def _patiently(
  service: Service, final: interface.Request, *, who: str
) -> interface.Answer:
  """An answer, however busy the engine is: all of the recording is here."""
  while True:
    try:
      return await service.heard(final, who=who)
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
    code = _CODES.get(refusal.status, usual)
    if refusal.code == errors.LEAVING:
      code = _RESTARTS
    await socket.close(code, refusal.code)


def _bad_message(message: str) -> errors.Refusal:
  return errors.Refusal(400, f"{message}.", code="bad_message")
