"""uvicorn's HTTP connections, with an end to those that send slowly or never read.

    uvicorn.Config(
      app, http=connection.limited(limits), ws=connection.Stream, ...
    )

A request's head has `header_seconds` to arrive, from the connection or from its first
byte on; who hasn't sent it then is told 408 and hung up on. Where there are as many
connections as there may be, the one that has waited longest without a request makes
room, so that connections that ask nothing keep nobody out; where all of them are asking,
a new one is told 503. The system ends those whose answer isn't read for
`answer_seconds`, websockets too.
"""

import asyncio
import json
import socket
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import (
  WebSocketsSansIOProtocol,
)
from websockets.protocol import State

from hra.config.serve import LimitsConfig

_LINGER = 1.0
"""Seconds for which a client that is refused may still send, so that it reads why, or
that is told the end of a websocket may take to answer."""


class Connection(H11Protocol):
  """One connection of a client; `limited` makes the class for other limits."""

  limits = LimitsConfig()

  def __init__(self, *args: Any, **kwargs: Any):
    super().__init__(*args, **kwargs)
    self.waiting_since = time.monotonic()
    self._refused = False
    self._timer: asyncio.TimerHandle | None = None

  def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
    super().connection_made(transport)
    _end_unread(transport, self.limits.answer_seconds)
    most = self.limits.connections
    if len(self.connections) <= most or self._make_room():
      self._await_head()
      return
    self.connections.discard(self)
    self._refused = True
    self._say(503, f"the server has {most} connections and takes no more")
    self._timer = self.loop.call_later(_LINGER, transport.close)

  def connection_lost(self, exc: Exception | None) -> None:
    self._stop()
    super().connection_lost(exc)

  def data_received(self, data: bytes) -> None:
    if self._refused:
      self.transport.close()
      return
    super().data_received(data)
    if self.is_asking() or self._is_handed_on():
      self._stop()
    elif self._timer is None:
      self._await_head()

  def on_response_complete(self) -> None:
    self.waiting_since = time.monotonic()
    super().on_response_complete()

  def is_asking(self) -> bool:
    """Whether it has sent the head of a request that isn't answered yet."""
    return self.cycle is not None and not self.cycle.response_complete

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

  def _make_room(self) -> bool:
    """Ends the connection that has waited longest, if any but this one waits."""
    waiting = [
      other
      for other in self.connections
      if isinstance(other, Connection)
      and other is not self
      and not other.is_asking()
      and not other.transport.is_closing()
    ]
    if not waiting:
      return False
    min(waiting, key=lambda other: other.waiting_since).transport.close()
    return True

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


class Stream(WebSocketsSansIOProtocol):
  """A websocket, one whose client's mistakes are not the log's affair."""

  def __init__(self, *args: Any, **kwargs: Any):
    super().__init__(*args, **kwargs)
    self.close_timeout = _LINGER

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


def _end_unread(transport: asyncio.Transport, seconds: float) -> None:
  """Has the system end a connection whose client takes nothing for so long."""
  client = transport.get_extra_info("socket")
  knows = hasattr(socket, "TCP_USER_TIMEOUT")  # as Linux does
  if knows and client.family in (socket.AF_INET, socket.AF_INET6):
    client.setsockopt(
      socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000)
    )
