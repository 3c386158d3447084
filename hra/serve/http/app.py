"""The routes of a server as an ASGI application."""

import functools
from collections.abc import Awaitable, Callable, Collection

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from hra.errors import InputError
from hra.serve.http import (
  admin,
  errors,
  health,
  models,
  page,
  stream,
  transcriptions,
  waiting,
)
from hra.serve.http.bounds import Bounds
from hra.serve.http.logs import Observed
from hra.serve.http.origin import SameOrigin
from hra.serve.http.service import Service, refused

Handler = Callable[[Request], Awaitable[Response]]


def build(
  service: Service, *, hosts: Collection[str] | None = None
) -> Starlette:
  """An application that answers by a service.

  Args:
    hosts: names that the server may be asked by; None is any.
  """
  app = Starlette(
    routes=[
      Route(
        "/v1/audio/transcriptions",
        _answering(transcriptions.transcribe),
        methods=["POST"],
      ),
      Route("/v1/models", _answering(models.list_models)),
      Route("/v1/models/{model:path}", _answering(models.get_model)),
      WebSocketRoute("/v1/audio/stream", stream.stream),
      Route("/health/live", health.live),
      Route("/health/ready", health.ready),
      Route("/metrics", _answering(health.figures)),
      Route("/admin/load", _answering(admin.load), methods=["POST"]),
      Route("/admin/unload", _answering(admin.unload), methods=["POST"]),
      Route("/admin/resident", _answering(admin.resident)),
      *page.routes(),
    ],
    middleware=[
      Middleware(Observed, log=service.log, metrics=service.metrics),
      Middleware(Bounds, limits=service.config.limits),
      Middleware(SameOrigin, hosts=hosts, pages=service.config.http.hosts),
    ],
    exception_handlers={HTTPException: _no_route, Exception: _unforeseen},
  )
  app.router.redirect_slashes = False
  app.state.service = service
  return app


def _answering(handler: Handler) -> Handler:
  """A handler whose refusals are answers."""

  @functools.wraps(handler)
  async def answered(request: Request) -> Response:
    try:
      return await handler(request)
    except (errors.Refusal, InputError) as error:
      return refused(request, error).response()
    except (waiting.Gone, ClientDisconnect):
      return Response(status_code=errors.GONE)

  return answered


async def _no_route(request: Request, error: Exception) -> JSONResponse:
  """What no route takes, or what of a body doesn't come, in the same shape."""
  assert isinstance(error, HTTPException)
  return refused(request, errors.of_http(error)).response()


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
  """The log has the traceback; the client has none of it."""
  del request, error
  message = "The server failed; its log says where."
  told = errors.Refusal(
    500,
    message,
    code="server_error",
    headers={"Connection": "close"},  # uvicorn does
  )
  return told.response()
