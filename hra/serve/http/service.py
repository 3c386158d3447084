"""What all routes share: the engine, keys, decoding, and what is served."""

import asyncio
import concurrent.futures
import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from starlette.requests import HTTPConnection

from hra.config import ServeConfig
from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.serve import interface
from hra.serve.decoding import Decoders
from hra.serve.http import access, bounds, errors
from hra.serve.http.held import Budget, Held
from hra.serve.http.listing import Listing
from hra.serve.http.logs import Log, Notes
from hra.serve.http.metrics import Metrics
from hra.serve.keys import Key, Keys

T = TypeVar("T")


class About(NamedTuple):
  """What is served."""

  name: str
  """Of the backbone, before the colon of a model."""
  language: str = ""
  """Empty where nobody says."""
  created: int = 0
  """Seconds since 1970: when the server started."""


@dataclasses.dataclass
class Service:
  """One server's parts."""

  engine: interface.Engine
  keys: Keys | None
  """None is an open server."""
  decoders: Decoders
  limiter: bounds.RateLimiter
  about: About
  config: ServeConfig
  log: Log
  draining: bool = False
  """Whether it takes its leave."""

  def __post_init__(self) -> None:
    self.metrics = Metrics(self.engine)
    self.leaving = asyncio.Event()
    """Set when nothing that isn't asked yet will be answered."""
    share = bounds.SHARE if self.config.limits.at_once else math.inf
    most = self.config.http.held_mib * 2**20
    self.samples = Budget(most, share=share * most)
    self._pieces = Budget(math.inf, share=share * self.config.engine.queue)
    patience = self.config.engine.load_seconds
    self.listing = Listing(
      self.engine, seconds=min(patience, self.config.limits.answer_seconds)
    )

  def admitted(self, connection: HTTPConnection) -> Key:
    """Whose request it is, one that may be made now.

    Raises:
      Refusal: nobody's, or too many came already.
    """
    return self.let_in(
      connection, self.key_of(connection, access.token_of(connection))
    )

  def key_of(self, connection: HTTPConnection, token: str | None) -> Key:
    """Whose token that is.

    Raises:
      Refusal: nobody's, and from this address came too many of those already.
    """
    try:
      return access.key_of(self.keys, token)
    except errors.Refusal:
      host = bounds.address_of(connection.scope)
      wait = self.limiter.wait_of(f"stranger {host}")
      if wait > 0:
        raise errors.too_often(wait) from None
      raise

  def let_in(self, connection: HTTPConnection, key: Key) -> Key:
    """Notes whose request it is, and counts it.

    Raises:
      Refusal: too many came already.
    """
    notes_of(connection).key = key.name
    host = bounds.address_of(connection.scope)
    who = f"address {host}" if self.keys is None else f"key {key.name}"
    wait = self.limiter.wait_of(who)
    if wait > 0:
      raise errors.too_often(wait)
    if not bounds.admit(connection.scope, who):
      raise errors.too_many()
    return key

  async def decoded(self, data: bytes, held: Held) -> np.ndarray:
    """A recording's samples."""
    wave_S = await self.decoders.decode(data)
    held.take(wave_S.nbytes)
    return wave_S

  async def heard(
    self, request: interface.Request, *, who: str
  ) -> interface.Answer:
    """The engine's answer; who stops waiting takes the request back.

    Args:
      who: asks, as `bounds.who_of` tells.
    """
    longest = self.config.engine.bucket_seconds[-1] * SAMPLE_RATE
    with self._pieces.hold(who) as held:
      held.take(max(1, math.ceil(len(request.wave_S) / longest)))
      return await future_of(lambda: self.engine.submit(request))

  async def close(self) -> None:
    """Ends decoding and the engine."""
    await self.decoders.close()
    await asyncio.to_thread(self.engine.close)


async def future_of(begin: "Callable[[], concurrent.futures.Future[T]]") -> T:
  """What the engine says of what it is asked; cancelled with who waits for it.

  Raises:
    Closed: the engine gave it up by itself.
  """
  future = begin()
  try:
    return await asyncio.wrap_future(future)
  except asyncio.CancelledError:
    task = asyncio.current_task()
    if task is not None and task.cancelling():
      raise
    raise interface.Closed(
      "the engine", expected="an answer", got="none: it was shut down"
    ) from None


def refused(
  connection: HTTPConnection,
  error: errors.Refusal | InputError,
  *,
  model: str = "",
) -> errors.Refusal:
  """What a client is told of an error; the log is told the rest.

  Args:
    model: that was asked for.
  """
  told = errors.refusal(error, model=model)
  notes = notes_of(connection)
  notes.code = told.code
  if isinstance(error, InputError):
    notes.error = error
  return told


def notes_of(connection: HTTPConnection) -> Notes:
  """What is to be logged of a request."""
  return connection.scope["state"]["notes"]


def service_of(connection: HTTPConnection) -> Service:
  return connection.app.state.service
