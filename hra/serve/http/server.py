"""A service on a socket, from its first request to the last one it drains."""

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import uvicorn
from starlette.types import ASGIApp

from hra.config import HttpConfig, ServeConfig
from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.serve.http import connection
from hra.serve.http.logs import Handler, Log
from hra.serve.http.service import Service
from hra.serve.interface import Engine, Request

_MESSAGE = 2**20
"""Bytes of one message of a WebSocket."""
_IDLE = 30
"""Seconds that a connection without a request is kept."""
_LOCAL = ("localhost", "127.0.0.1", "[::1]")


class Ended(NamedTuple):
  """How a server came to its end."""

  unanswered: int
  """Requests that had begun, and were given up."""
  forced: bool
  """Whether a second signal did not let them end."""

  def told(self) -> str:
    """What became of requests that had begun."""
    if not self.unanswered:
      return "all that had begun is answered"
    why = "by a second signal" if self.forced else "as http.drain_seconds ended"
    return f"{self.unanswered:,} that had begun given up {why}"


def bind(http: HttpConfig) -> socket.socket:
  """A socket that listens at the address: who connects waits until it is served.

  Raises:
    InputError: it can't be had.
  """
  where = f"--host={http.host} --port={http.port}"
  try:
    kind, _, _, _, address = socket.getaddrinfo(
      http.host, http.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(kind, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(address)
    bound.listen()  # a port that is merely bound can be had twice
  except (OSError, OverflowError) as error:
    raise InputError(
      where,
      expected="an address to listen at",
      got=getattr(error, "strerror", None) or str(error),
      fix="choose another --port, or end what listens there",
    ) from error
  return bound


def is_local(host: str) -> bool:
  """Whether this machine alone can connect."""
  if host.lower() == "localhost":
    return True
  with contextlib.suppress(ValueError):
    return ipaddress.ip_address(host).is_loopback
  return False


def address_of(bound: socket.socket) -> str:
  host, port = bound.getsockname()[:2]
  return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def hosts_of(http: HttpConfig) -> frozenset[str] | None:
  """Names by which a server is asked; None is any, of one for other machines."""
  if not (http.hosts or is_local(http.host)):
    return None
  host = http.host.lower()
  own = f"[{host}]" if ":" in host else host
  return frozenset({*_LOCAL, own, *map(str.lower, http.hosts)})


def run(
  app: ASGIApp,
  bound: socket.socket,
  service: Service,
  *,
  on_ready: Callable[[], None],
) -> Ended:
  """Answers until SIGINT or SIGTERM, and then what it has begun.

  Clients can connect at once; their requests wait for the engine to be ready.

  Args:
    on_ready: called when it is.

  Raises:
    InputError: it never will be.
  """
  _redirect(service.log)
  return asyncio.run(_serve(app, bound, service, on_ready))


async def _serve(
  app: ASGIApp,
  bound: socket.socket,
  service: Service,
  on_ready: Callable[[], None],
) -> Ended:
  server = _Signalled(configured(app, service.config), service)

  async def announce() -> None:
    if await asyncio.to_thread(service.engine.wait_until_ready):
      on_ready()
    else:
      server.should_exit = True

  announcing = asyncio.create_task(announce())
  try:
    await server.serve(sockets=[bound])
    state = server.server_state
    unanswered = max(len(state.tasks), len(state.connections))
  finally:
    why = "" if service.draining else _why(service.engine)
    await service.close()
    await announcing
  if why:
    raise InputError("the engine", expected="one that answers", got=why)
  return Ended(unanswered, forced=server.force_exit)


def _why(engine: Engine) -> str:
  """What keeps it from answering, in the words that a request gets."""
  try:
    engine.submit(Request(np.zeros(SAMPLE_RATE, np.float32), None)).cancel()
  except InputError as error:
    return error.got
  return "one that doesn't get ready"


def configured(app: ASGIApp, config: ServeConfig) -> uvicorn.Config:
  """uvicorn's settings."""
  return uvicorn.Config(
    app,
    http=connection.limited(config.limits),
    ws=connection.Stream,
    ws_max_size=_MESSAGE,
    ws_per_message_deflate=False,
    lifespan="off",
    log_config=None,
    access_log=False,
    proxy_headers=False,
    server_header=False,
    timeout_keep_alive=_IDLE,
    timeout_graceful_shutdown=max(1, round(config.http.drain_seconds)),
  )


class Server(uvicorn.Server):
  """One whose streams take their leave."""

  def __init__(self, config: uvicorn.Config, service: Service):
    super().__init__(config)
    self._service = service

  async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
    self._service.leaving.set()
    await super().shutdown(sockets)


class _Signalled(Server):
  """Ends by a signal as by a request, with nothing left to be raised again."""

  @contextlib.contextmanager
  def capture_signals(self) -> Iterator[None]:
    """The first lets requests end, a second one doesn't."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
      loop.add_signal_handler(number, self._end)
    try:
      yield
    finally:
      for number in numbers:
        loop.remove_signal_handler(number)

  def _end(self) -> None:
    self.force_exit = self.should_exit
    self.should_exit = True
    self._service.draining = True
    self._service.log.event("stopping", forced=self.force_exit or None)


def _redirect(log: Log) -> None:
  """uvicorn's and our own messages become lines of the log."""
  handler = Handler(log)
  for name in ("uvicorn", "hra.serve", "absl"):
    logger = logging.getLogger(name)
    logger.handlers = [handler]
    logger.propagate = False
    if name != "absl":  # how much that says is up to its own flags
      logger.setLevel(logging.WARNING)
  # It warns of each form that is damaged, on a line of its own.
  logging.getLogger("python_multipart").setLevel(logging.ERROR)
