"""One JSON line on stderr for each request: who, what, how long; never what was said.

Speakers are persons: they are logged by a hash of their name unless the server is
told to name them. Paths, queries, file names, audio and texts are not logged.
"""

import asyncio
import dataclasses
import datetime
import json
import logging
import sys
import time
import traceback
import uuid
from typing import Any, TextIO

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hra.errors import InputError
from hra.keys import stable_hash
from hra.serve.http import errors
from hra.serve.http.metrics import Metrics
from hra.serve.interface import Answer

UNKNOWN = "unknown"
"""The route of what no route has."""


@dataclasses.dataclass
class Notes:
  """What routes learn of a request that is worth a line."""

  id: str
  key: str | None = None
  task: str | None = None
  answer: Answer | None = None
  code: str | None = None
  """Of the error that it was answered with."""
  status: int | None = None
  """Of a stream, whose head said nothing of how it would end."""
  error: InputError | None = None
  """What the engine or a decoder said of it."""


class Log:
  """Lines of JSON."""

  def __init__(self, stream: TextIO | None = None, *, named: bool = False):
    """Writes to a stream, stderr by default.

    Args:
      named: whether speakers are called by their names.
    """
    self._stream = stream
    self._named = named

  def event(self, name: str, **fields: Any) -> None:
    """A line; fields without a value are left out."""
    told = {"time": _now(), "event": name}
    told |= {key: value for key, value in fields.items() if value is not None}
    print(json.dumps(told), file=self._stream or sys.stderr, flush=True)

  def speaker(self, task: str | None) -> str | None:
    if task is None or self._named:
      return task
    return f"{stable_hash(task):016x}"

  def detail(self, error: InputError | None, task: str | None) -> str | None:
    """What the server alone is told; paths and names only where speakers are named."""
    if error is None:
      return None
    if self._named:
      cause = error.__cause__
      return f"{error} ({cause})" if cause else str(error)
    told = f"expected {error.expected}, got {error.got}"
    return told.replace(repr(task), self.speaker(task) or "") if task else told


class Handler(logging.Handler):
  """Lines of other loggers, such as uvicorn's, in the same form.

  A record may say of whom it is (`task`), and what is wrong with them (`error`).
  """

  def __init__(self, log: Log):
    super().__init__()
    self._log = log

  def emit(self, record: logging.LogRecord) -> None:
    trace = None
    if record.exc_info and record.exc_info[0]:
      if issubclass(record.exc_info[0], asyncio.CancelledError):
        return  # of a request that a second signal ended
      trace = "".join(traceback.format_exception(*record.exc_info))
    error, task = getattr(record, "error", None), getattr(record, "task", None)
    self._log.event(
      "message",
      level=record.levelname.lower(),
      logger=record.name,
      message=record.getMessage(),
      speaker=self._log.speaker(task),
      detail=self._log.detail(error, task),
      traceback=trace,
    )


class Observed:
  """Logs and counts what passes through an application."""

  def __init__(self, app: ASGIApp, log: Log, metrics: Metrics):
    self._app = app
    self._log = log
    self._metrics = metrics

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] not in ("http", "websocket"):
      await self._app(scope, receive, send)
      return
    notes = Notes(id=_new_id())
    scope.setdefault("state", {})["notes"] = notes
    start = time.perf_counter()
    status = errors.GONE

    async def watch(message: Message) -> None:
      nonlocal status
      if message["type"] in _STARTS:
        status = message.get("status", 101)
        named = (b"x-request-id", notes.id.encode())
        headers = [*message.get("headers", ()), named]
        message = {**message, "headers": headers}
      await send(message)

    with self._metrics.running():
      try:
        await self._app(scope, receive, watch)
      except Exception:
        status = 500
        raise
      finally:
        seconds = time.perf_counter() - start
        self._done(scope, notes, notes.status or status, seconds)

  def _done(
    self, scope: Scope, notes: Notes, status: int, seconds: float
  ) -> None:
    route = getattr(scope.get("route"), "path", UNKNOWN)
    method = scope.get("method", "WEBSOCKET")
    self._metrics.answered(route, method, status, seconds)
    self._log.event(
      "request",
      id=notes.id,
      method=method,
      route=route,
      status=status,
      key=notes.key,
      speaker=self._log.speaker(notes.task),
      seconds=round(seconds, 4),
      code=notes.code,
      detail=self._log.detail(notes.error, notes.task),
      **_of_answer(notes.answer),
    )


_STARTS = (
  "http.response.start",
  "websocket.http.response.start",
  "websocket.accept",
)


def _of_answer(answer: Answer | None) -> dict[str, Any]:
  if answer is None:
    return {}
  spent = {
    f"{name}_seconds": round(value, 4)
    for name, value in answer.spent._asdict().items()
  }
  return {
    "applied": answer.receipt.applied,
    "version": answer.receipt.version,
    "reason": answer.receipt.reason,
    "audio_seconds": round(answer.seconds, 3),
    **spent,
  }


def _now() -> str:
  now = datetime.datetime.now(datetime.UTC)
  return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _new_id() -> str:
  return uuid.uuid4().hex
