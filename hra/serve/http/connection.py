"""uvicorn's HTTP connections, with an end to those that send slowly or never read.

    uvicorn.Config(
      app, http=connection.limited(limits), ws=connection.Stream, ...
    )

A request's head has `header_seconds` to arrive, from the connection or from its first
byte on; who hasn't sent it then is told 408 and hung up on. Where there are as many
connections as there may be, one makes room that nobody who was let in is served by
(`bounds.is_admitted`): the one that has waited longest without a request, or whose
answer isn't read. Where all are serving, a new one is told 503, but for
`/health`, which has a few places more. The system ends those whose answer isn't read
for `answer_seconds`, websockets too.

Of each connection a few KiB are read at a time, so that none holds up the others, and
one that sends crumbs (chunks or frames of a few bytes, each of which costs as much as a
large one) is hung up on.
"""

import asyncio
import contextlib
import json
import socket
import time
from typing import Any

import h11
from starlette.exceptions import HTTPException
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import (
  WebSocketsSansIOProtocol,
)
from websockets.protocol import State

from hra.config.serve import LimitsConfig
from hra.serve.http import bounds

_READ = 8 * 1024
"""Bytes of a connection that are parsed before others have their turn."""
_CRUMBS, _CRUMB = 1_000, 32
"""Chunks or frames that may be of fewer bytes; those that follow are larger on the
average."""
_SPARE = 8
"""Connections for `/health` on top of all others."""
_HEALTH = ("/health/live", "/health/ready")
_UNREAD = 10.0
"""Seconds for a client of a websocket to take what it is told."""
_LINGER = 1.0
"""Seconds for which a client that is refused may still send, so that it reads why, or
that is told the end of a websocket may take to answer."""


class _Client(asyncio.BufferedProtocol):
  """What any connection has to do with the others."""

  transport: asyncio.Transport
  spare = False
  """Whether it is one of those that are kept for `/health`."""

  def __init__(self, *args: Any, **kwargs: Any):
    super().__init__(*args, **kwargs)
    self.waiting_since = time.monotonic()
    self._read = bytearray(_READ)

  def get_buffer(self, sizehint: int) -> bytearray:
    del sizehint
    return self._read

  def buffer_updated(self, nbytes: int) -> None:
    data = bytes(memoryview(self._read)[:nbytes])
    self.data_received(data)  # type: ignore[attr-defined]

  def eof_received(self) -> None:
    """Nothing: the transport closes."""

  def is_asking(self) -> bool:
    """Whether a request of its isn't answered yet."""
    raise NotImplementedError

  def is_serving(self) -> bool:
    """Whether that is of somebody who was let in, and who reads the answer."""
    raise NotImplementedError

  def is_leaving(self) -> bool:
    """Whether it is over, and nothing is left to be read."""
    return (
      self.transport.is_closing() and not self.transport.get_write_buffer_size()
    )


class _Parser(h11.Connection):
  """Stops at crumbs."""

  crumbles = False

  def next_event(self) -> Any:
    if self.crumbles:
      return h11.NEED_DATA
    event = super().next_event()
    if isinstance(event, h11.Request):
      self._chunks = self._bytes = 0
    elif isinstance(event, h11.Data):
      self._chunks += event.chunk_end  # of one that comes in parts, the last
      self._bytes += len(event.data)
      self.crumbles = _are_crumbs(self._chunks, self._bytes)
    return event


class Connection(_Client, H11Protocol):
  """One connection of a client; `limited` makes the class for other limits."""

  limits = LimitsConfig()

  def __init__(self, *args: Any, **kwargs: Any):
    super().__init__(*args, **kwargs)
    self.conn: _Parser = _Parser(h11.SERVER)
    self._refused = False
    self._timer: asyncio.TimerHandle | None = None

  def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
    super().connection_made(transport)
    _end_unread(transport, self.limits.answer_seconds)
    most = self.limits.connections
    if len(self.connections) > most and not self._make_room(spare=False):
      self.spare = True
      self.app = _Spare(self.app, self.limits)
      if len(self.connections) > most + _SPARE and not self._make_room(
        spare=True
      ):
        self._refuse()
        return
    self._await_head()

  def connection_lost(self, exc: Exception | None) -> None:
    self._stop()
    super().connection_lost(exc)

  def data_received(self, data: bytes) -> None:
    if self._refused:
      self.transport.close()
      return
    super().data_received(data)
    if self.conn.crumbles:
      if not self.cycle.response_started:
        self._say(400, f"the request comes in chunks of under {_CRUMB} bytes")
      self.transport.close()
    if self.is_asking() or self._is_handed_on():
      self._stop()
    elif self._timer is None:
      self._await_head()

  def on_response_complete(self) -> None:
    self.waiting_since = time.monotonic()
    super().on_response_complete()

  def is_asking(self) -> bool:
    return self.cycle is not None and not self.cycle.response_complete

  def is_serving(self) -> bool:
    return (
      self.is_asking()
      and bounds.is_admitted(self.cycle.scope)  # type: ignore[arg-type]
      and not self.flow.write_paused
    )

  def _should_upgrade(self) -> bool:
    return not self.spare and super()._should_upgrade()

  def _is_handed_on(self) -> bool:
    """Whether it is over, or a websocket's."""
    return (
      self.transport.is_closing() or self.transport.get_protocol() is not self
    )

  def _await_head(self) -> None:
    self._timer = self.loop.call_later(
      self.limits.header_seconds, self._give_up
    )

  def _stop(self) -> None:
    if self._timer is not None:
      self._timer.cancel()
      self._timer = None

  def _give_up(self) -> None:
    self._timer = None
    begun, _ = self.conn.trailing_data
    if begun and self.conn.our_state is h11.IDLE:
      seconds = self.limits.header_seconds
      self._say(408, f"the request has not begun within {seconds:g} s")
    self.transport.close()

  def _make_room(self, *, spare: bool) -> bool:
    """Ends the connection that has waited longest of those that serve nobody.

    Args:
      spare: whether it is one of the spare ones.
    """
    waiting = [
      other
      for other in self.connections
      if isinstance(other, _Client)
      and other is not self
      and other.spare == spare
      and not other.is_serving()
      and not other.is_leaving()
    ]
    if not waiting:
      return False
    first = min(
      waiting, key=lambda each: (each.is_asking(), each.waiting_since)
    )
    first.transport.abort()
    return True

  def _refuse(self) -> None:
    self.connections.discard(self)
    self._refused = True
    self._say(503, _full(self.limits))
    self._timer = self.loop.call_later(_LINGER, self.transport.close)

  def _say(self, status: int, message: str) -> None:
    """An answer to what is no request yet."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": None}
    data = json.dumps({"error": error}).encode()
    later = b"retry-after: 1\r\n" if status == 503 else b""
    self.transport.write(
      b"HTTP/1.1 %d \r\ncontent-type: application/json\r\n%s"
      b"content-length: %d\r\nconnection: close\r\n\r\n%s"
      % (status, later, len(data), data)
    )


class _Spare:
  """An application of which there is `/health` alone."""

  def __init__(self, app: Any, limits: LimitsConfig):
    self._app = app
    self._other = bounds.Bounds(self._refuse, limits)
    self._limits = limits

  async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
    known = scope["path"] in _HEALTH
    await (self._app if known else self._other)(scope, receive, send)

  async def _refuse(self, scope: Any, receive: Any, send: Any) -> None:
    headers = {"Retry-After": "1", "Connection": "close"}
    raise HTTPException(503, _full(self._limits), headers)


class Stream(_Client, WebSocketsSansIOProtocol):
  """A websocket, one whose client's mistakes are not the log's affair."""

  def __init__(self, *args: Any, **kwargs: Any):
    super().__init__(*args, **kwargs)
    self.close_timeout = _LINGER
    self._frames = self._bytes = 0

  def data_received(self, data: bytes) -> None:
    self.conn.receive_data(data)
    self._frames += len(self.conn.events)
    self._bytes += len(data)
    if self.conn.parser_exc is not None:
      self.handle_parser_exception()
    elif not _are_crumbs(self._frames, self._bytes):
      self.handle_events()
    elif self.conn.state is State.OPEN:
      self.conn.fail(1008, f"frames of under {_CRUMB} bytes")
      self.handle_parser_exception()
    else:
      self.transport.abort()

  def is_asking(self) -> bool:
    return False

  def is_serving(self) -> bool:
    return (
      self.handshake_initiated
      and bounds.is_admitted(self.scope)  # type: ignore[arg-type]
      and self.writable.is_set()
    )

  def handle_ping(self) -> None:
    """Answers, but who reads no answers gets none."""
    if self.writable.is_set():
      super().handle_ping()
    else:
      self.conn.data_to_send()

  async def send(self, message: ASGISendEvent) -> None:
    with contextlib.suppress(TimeoutError):
      async with asyncio.timeout(_UNREAD):
        await self.writable.wait()
    if not self.writable.is_set():
      self.transport.abort()
    await super().send(message)

  def on_task_complete(self, task: "asyncio.Task[None]") -> None:
    super().on_task_complete(task)
    self.loop.call_later(_UNREAD, self.transport.abort)

  def shutdown(self) -> None:
    """Leaves it to the application to say what is left to say, and to close."""
    if self.close_sent or not self.handshake_complete:
      super().shutdown()

  def send_receive_event_to_app(self) -> None:
    if self.curr_msg_data_type == "text":
      try:
        b"".join(self.frames).decode()
      except UnicodeDecodeError:
        self.frames = []
        if self.conn.state is State.OPEN:
          self.conn.send_close(1007)
          self.handle_parser_exception()
        return
    super().send_receive_event_to_app()


def limited(limits: LimitsConfig) -> type[Connection]:
  """The class of connections under these limits."""
  return type("Connection", (Connection,), {"limits": limits})


def _are_crumbs(count: int, size: int) -> bool:
  return count > _CRUMBS and size < count * _CRUMB


def _full(limits: LimitsConfig) -> str:
  return f"the server has {limits.connections} connections and takes no more"


def _end_unread(transport: asyncio.Transport, seconds: float) -> None:
  """Has the system end a connection whose client takes nothing for so long."""
  client = transport.get_extra_info("socket")
  knows = hasattr(socket, "TCP_USER_TIMEOUT")  # as Linux does
  if knows and client.family in (socket.AF_INET, socket.AF_INET6):
    client.setsockopt(
      socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000)
    )
