"""What requests may take: bytes, time, and how often.

`Bounds` stands around the whole application (ASGI). It counts the bytes of each
request as they come, and gives each a time by which it has arrived: more of either is
an `HTTPException` (413, 408, 503) from whoever reads the request, which the application
answers in its own words. Whatever is answered before a request has arrived ends its
connection, after as much of the rest as comes in a moment: who is still sending would
otherwise not get to read the answer, or could go on sending for ever.

`admit` counts the requests and streams that somebody has at once, and half of all bytes is
what one may send at most. `RateLimiter` is a token bucket for each key.
"""

import asyncio
import collections
import contextlib
import ipaddress
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from hra.config.serve import LimitsConfig
from hra.serve.http import errors

_MIB = 1 << 20
SHARE = 0.5
"""Part of what the server holds of all clients that one of them may take."""
_LINGER = 1.0
"""Seconds for which the rest of a request is read that is answered already."""
_BUCKETS = 10_000
"""Keys or addresses that are remembered, the latest."""
_NETWORK = 64
"""Bits of an IPv6 address that name a customer's network."""

_BOUNDS, _WHO = "bounds", "who"
"""Of a scope's state."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Bounds:
  """An ASGI application whose requests are bounded."""

  def __init__(self, app: App, limits: LimitsConfig):
    self._app = app
    self._limits = limits
    self.held = 0
    """Bytes of all requests that aren't answered yet."""
    self.held_of: collections.Counter[str] = collections.Counter()
    self._running: collections.Counter[str] = collections.Counter()

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] not in ("http", "websocket"):
      await self._app(scope, receive, send)
      return
    state = scope.setdefault("state", {})
    state[_BOUNDS] = self
    try:
      if scope["type"] == "http":
        await self._answer(scope, receive, send)
      else:
        stream = _Stream(self._limits, receive, send)
        await self._app(scope, stream.receive, send)
    finally:
      _take(self._running, state.pop(_WHO, ""), -1)

  def admit(self, state: MutableMapping[str, Any], who: str) -> bool:
    """As the function."""
    most = self._limits.at_once
    if most and self._running[who] >= most:
      return False
    self._running[who] += 1
    state[_WHO] = who
    return True

  async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
    body = _Body(self, self._limits, scope, receive, send)
    try:
      body.check_stated()
      await self._app(scope, body.receive, body.send)
    except HTTPException as error:
      if body.answered:
        raise
      await errors.of_http(error).response()(scope, receive, body.send)
    finally:
      self.held -= body.bytes
      _take(self.held_of, who_of(scope), -body.bytes_admitted)


class _Body:
  """A request on its way in, and its answer on the way out."""

  def __init__(
    self,
    bounds: Bounds,
    limits: LimitsConfig,
    scope: Scope,
    receive: Receive,
    send: Send,
  ):
    self.bytes = 0
    self.bytes_admitted = 0
    """Of them, those that came since it is known who asks."""
    self.answered = False
    """Whether an answer has begun."""
    self._bounds = bounds
    self._limits = limits
    self._scope = scope
    self._receive = receive
    self._send = send
    self._deadline = time.monotonic() + limits.body_seconds
    headers = dict(scope["headers"])
    self._stated = headers.get(b"content-length", b"0")
    chunked = b"transfer-encoding" in headers
    self._arrived = not chunked and not self._stated.strip(b"0")
    """Whether all of it has."""

  def check_stated(self) -> None:
    """
    Raises:
      HTTPException: it says of itself that it is too large.
    """
    if self._stated.isdigit() and int(self._stated) > self._most():
      raise self._too_large()

  async def receive(self) -> Message:
    """As ASGI's.

    Raises:
      HTTPException: it is too large, or too slow.
    """
    if self._arrived:
      return await self._receive()
    try:
      async with asyncio.timeout(max(0.0, self._deadline - time.monotonic())):
        message = await self._receive()
    except TimeoutError:
      raise HTTPException(
        408,
        f"the request has not arrived within {self._limits.body_seconds:g} s",
      ) from None
    self._note(message)
    return message

  async def send(self, message: Message) -> None:
    """As ASGI's; the connection ends with an answer that came early."""
    if self._arrived:
      self.answered = True
      await self._send(message)
      return
    if message["type"] == "http.response.start":
      self.answered = True
      headers = [*message.get("headers", []), (b"connection", b"close")]
      message = {**message, "headers": headers}
    last = message["type"] == "http.response.body" and not message.get(
      "more_body", False
    )
    if not last:
      await self._send(message)
      return
    await self._send({**message, "more_body": True})
    await self._linger()
    await self._send({"type": "http.response.body", "body": b""})

  def _note(self, message: Message) -> None:
    if message["type"] != "http.request":
      self._arrived = True  # or never will
      return
    count = len(message.get("body", b""))
    self.bytes += count
    self._bounds.held += count
    if self.bytes > self._most():
      raise self._too_large()
    if self._bounds.held > self._limits.bodies_mib * _MIB:
      raise HTTPException(
        503,
        "the server is reading as much as it can hold; try again later",
        {"Retry-After": "1"},
      )
    self._check_share(count)
    self._arrived = not message.get("more_body", False)

  def _check_share(self, count: int) -> None:
    who = who_of(self._scope)
    if not who:
      return
    self.bytes_admitted += count
    self._bounds.held_of[who] += count
    held = self._bounds.held_of[who]
    most = self._limits.bodies_mib * _MIB * SHARE
    # However little the server holds, one request of everybody's has its place.
    if self._limits.at_once and held > max(most, self.bytes):
      raise HTTPException(
        429,
        "this key sends as much at once as it may; try again later",
        {"Retry-After": "1"},
      )

  async def _linger(self) -> None:
    left = self._most()
    with contextlib.suppress(TimeoutError):
      async with asyncio.timeout(_LINGER):
        while left > 0:
          message = await self._receive()
          if message["type"] != "http.request":
            return
          if not message.get("more_body", False):
            return
          left -= len(message.get("body", b""))

  def _most(self) -> int:
    return int(self._limits.body_mib * _MIB)

  def _too_large(self) -> HTTPException:
    return HTTPException(
      413, f"the request is larger than {self._limits.body_mib:g} MiB"
    )


class _Stream:
  """A websocket on its way in."""

  def __init__(self, limits: LimitsConfig, receive: Receive, send: Send):
    self._receive = receive
    self._send = send
    most = limits.max_seconds + limits.answer_seconds
    self._deadline = time.monotonic() + most

  async def receive(self) -> Message:
    """As ASGI's; a stream that takes too long in all is hung up on."""
    left = self._deadline - time.monotonic()
    with contextlib.suppress(TimeoutError):
      async with asyncio.timeout(max(0.0, left)):
        return await self._receive()
    with contextlib.suppress(OSError, RuntimeError):  # it is gone, or hung up
      await self._send(
        {"type": "websocket.close", "code": 1008, "reason": "it took too long"}
      )
    return {"type": "websocket.disconnect", "code": 1008}


def admit(scope: Scope, who: str) -> bool:
  """Whether somebody may have one more request or stream at once.

  It counts until it is answered, within `Bounds`.
  """
  return scope["state"][_BOUNDS].admit(scope["state"], who)


def is_admitted(scope: Scope) -> bool:
  """Whether somebody was let in who isn't answered yet."""
  return bool(who_of(scope))


def who_of(scope: Scope) -> str:
  """Whom `admit` let in; empty is nobody."""
  return scope.get("state", {}).get(_WHO, "")


def _take(counts: collections.Counter[str], who: str, count: int) -> None:
  """Adds, and forgets whoever has nothing left."""
  if who:
    counts[who] += count
    if not counts[who]:
      del counts[who]


class RateLimiter:
  """A bucket of tokens for each key: a request takes one, time brings others."""

  def __init__(
    self,
    limits: LimitsConfig,
    *,
    clock: Callable[[], float] = time.monotonic,
  ):
    self._rate = limits.requests_per_minute / 60
    self._burst = float(max(1, limits.burst))
    self._clock = clock
    self._buckets: collections.OrderedDict[str, tuple[float, float]] = (
      collections.OrderedDict()
    )
    """Tokens, and when there were so many; the latest asked for last."""

  def wait_of(self, key_name: str) -> float:
    """0 where a request may go on; else seconds after which another may."""
    if self._rate <= 0:
      return 0.0
    now = self._clock()
    tokens, since = self._buckets.pop(key_name, (self._burst, now))
    tokens = min(self._burst, tokens + (now - since) * self._rate)
    wait = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
    self._buckets[key_name] = (tokens if wait else tokens - 1, now)
    if len(self._buckets) > _BUCKETS:
      self._buckets.popitem(last=False)
    return wait


def address_of(scope: Scope) -> str:
  """Who asks an open server: an address, or the network of an IPv6 one."""
  client = scope.get("client")
  host = client[0] if client else ""
  try:
    address = ipaddress.ip_address(host)
  except ValueError:
    return host
  if isinstance(address, ipaddress.IPv6Address):
    if address.ipv4_mapped is not None:
      return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), _NETWORK), strict=False))
  return str(address)
