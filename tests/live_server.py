"""A server on loopback, in a thread of the test's process."""

import asyncio
import contextlib
import dataclasses
import io
import json
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import soundfile

from hra.config import ServeConfig
from hra.dims import SAMPLE_RATE
from hra.serve.decoding import Decoders
from hra.serve.http import app, server
from hra.serve.http.bounds import RateLimiter
from hra.serve.http.logs import Log
from hra.serve.http.service import About, Service
from hra.serve.interface import Engine
from hra.serve.keys import Keys


class Live(NamedTuple):
  """A server that runs."""

  url: str
  service: Service
  logged: io.StringIO

  @property
  def port(self) -> int:
    return int(self.url.rpartition(":")[2])

  def requests(self) -> list[dict]:
    """The lines of the log that are of requests."""
    lines = map(json.loads, self.logged.getvalue().splitlines())
    return [line for line in lines if line["event"] == "request"]

  def last(self) -> dict:
    """The last of them; they are written behind the answer."""
    return (self.requests() or [{}])[-1]


def service(
  engine: Engine,
  *,
  keys: Keys | None = None,
  language: str = "",
  named: bool = False,
  **changes,
) -> Service:
  """Its parts, all real but for the engine.

  Args:
    changes: groups of `ServeConfig`, as dicts of fields.
  """
  config = ServeConfig()
  changes.setdefault("limits", {}).setdefault("decoders", 1)
  for group, fields in changes.items():
    changed = dataclasses.replace(getattr(config, group), **fields)
    setattr(config, group, changed)
  return Service(
    engine=engine,
    keys=keys,
    decoders=Decoders(config.limits),
    limiter=RateLimiter(config.limits),
    about=About("tiny", language, 1_700_000_000),
    config=config,
    log=Log(io.StringIO(), named=named),
  )


@contextlib.contextmanager
def serving(parts: Service) -> Iterator[Live]:
  """Answers until the block ends; the service is closed with it."""
  http = dataclasses.replace(parts.config.http, port=0)
  bound = server.bind(http)
  running = server.Server(
    server.configured(
      app.build(parts, hosts=server.hosts_of(http)), parts.config
    ),
    parts,
  )

  async def run() -> None:
    try:
      await running.serve(sockets=[bound])
    finally:
      await parts.close()

  url = server.address_of(bound)
  server._redirect(parts.log)
  thread = threading.Thread(target=asyncio.run, args=(run(),))
  thread.start()
  try:
    deadline = time.monotonic() + 30
    while not running.started:
      assert thread.is_alive()
      assert time.monotonic() < deadline
      time.sleep(0.01)
    yield Live(url, parts, parts.log._stream)
  finally:
    running.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def wave(seconds: float = 0.5, *, seed: int = 0) -> np.ndarray:
  """Samples that 16 bits hold exactly."""
  rng = np.random.default_rng(seed)
  whole = rng.integers(-8000, 8000, round(seconds * SAMPLE_RATE))
  return (whole / 2**15).astype(np.float32)


def wav(wave_S: np.ndarray) -> bytes:
  file = io.BytesIO()
  soundfile.write(file, wave_S, SAMPLE_RATE, format="WAV", subtype="PCM_16")
  return file.getvalue()
