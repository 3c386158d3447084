"""A server of the page's two routes on loopback, whose answers a test decides."""

import contextlib
import dataclasses
import io
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import soundfile
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import hra

PAGE = Path(hra.__file__).parent / "serve" / "page"
POLICY = (
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
  "connect-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; "
  "frame-ancestors 'none'"
)
"""The strictest that the page works under."""


@dataclasses.dataclass
class Stub:
  """What it answers, and what it was asked."""

  speakers: list[str] = dataclasses.field(default_factory=lambda: ["anna"])
  backbone: str | None = "tiny"
  texts: dict[str | None, str] = dataclasses.field(default_factory=dict)
  """By speaker; None is the backbone."""
  receipts: dict[str, dict] = dataclasses.field(default_factory=dict)
  key: str = ""
  refusals: list[tuple[int, dict]] = dataclasses.field(default_factory=list)
  """Statuses and headers that come before the next answers, one each."""
  delay: float = 0.0
  asked: list[str] = dataclasses.field(default_factory=list)
  sounds: list[tuple[str, bytes]] = dataclasses.field(default_factory=list)
  url: str = ""

  def models(self, request: Request) -> Response:
    if (
      self.key and request.headers.get("authorization") != f"Bearer {self.key}"
    ):
      return _problem(401, "the key is missing or unknown")
    ids = [self.backbone] if self.backbone else []
    ids += [f"tiny:{name}" for name in self.speakers]
    return JSONResponse(
      {"object": "list", "data": [{"id": id, "object": "model"} for id in ids]}
    )

  async def transcriptions(self, request: Request) -> Response:
    form = await request.form()
    model, file = form["model"], form["file"]
    assert isinstance(model, str)
    assert isinstance(file, UploadFile)
    self.asked.append(model)
    self.sounds.append((file.filename or "", await file.read()))
    if self.refusals:
      status, headers = self.refusals.pop(0)
      return _problem(status, "as the test wants it", headers)
    if (
      self.key and request.headers.get("authorization") != f"Bearer {self.key}"
    ):
      return _problem(401, "the key is missing or unknown")
    time.sleep(self.delay)
    speaker = model.partition(":")[2] or None
    receipt = self.receipts.get(speaker or "") or {
      "submodel": speaker,
      "applied": "submodel" if speaker else "backbone",
      "version": 3 if speaker else None,
      "fingerprint": "0a1b2c3d4e5f" if speaker else None,
      "reason": None if speaker else "asked",
      "seconds": {"queued": 0.0, "loading": 0.004, "computing": 0.021},
    }
    heard = speaker if receipt["applied"] == "submodel" else None
    return JSONResponse({"text": self.texts.get(heard, ""), "hra": receipt})

  def sound(self, place: int):
    """Samples and rate of what came in."""
    return soundfile.read(io.BytesIO(self.sounds[place][1]))


def _problem(status: int, message: str, headers: dict | None = None):
  error = {"message": message, "type": "error", "param": None, "code": None}
  return JSONResponse({"error": error}, status, headers=headers)


@contextlib.contextmanager
def serving(stub: Stub) -> Iterator[Stub]:
  """Runs it in a thread until the block ends."""

  async def guarded(scope, receive, send):
    async def sending(message):
      if message["type"] == "http.response.start":
        policy = (b"content-security-policy", POLICY.encode())
        message["headers"] = [*message.get("headers", ()), policy]
      await send(message)

    await app(scope, receive, sending)

  app = Starlette(
    routes=[
      Route("/v1/models", stub.models),
      Route("/v1/audio/transcriptions", stub.transcriptions, methods=["POST"]),
      Mount("/", StaticFiles(directory=PAGE, html=True)),
    ]
  )
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    stub.url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server = uvicorn.Server(
      uvicorn.Config(guarded, log_level="error", lifespan="off")
    )
    thread = threading.Thread(
      target=server.run, kwargs={"sockets": [listener]}, daemon=True
    )
    thread.start()
    try:
      yield stub
    finally:
      server.should_exit = True
      thread.join(10)
