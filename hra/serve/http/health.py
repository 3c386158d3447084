"""Whether the server lives, is ready, and what it has done."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hra.serve.http import access, metrics
from hra.serve.http.service import service_of


async def live(request: Request) -> JSONResponse:
  """200 as long as it answers at all."""
  del request
  return JSONResponse({"status": "live"})


async def ready(request: Request) -> JSONResponse:
  """200 when it transcribes; 503 when it can't.

  One that is about to stop takes no connections.
  """
  if service_of(request).engine.ready():
    return JSONResponse({"status": "ready"})
  return JSONResponse({"status": "not ready"}, status_code=503)


async def figures(request: Request) -> Response:
  """For Prometheus; where there are keys, for one that administrates.

  How much is loaded and when tells who asks of others.
  """
  service = service_of(request)
  if service.keys is not None:
    access.check_admin(service.key_of(request, access.token_of(request)))
  return Response(
    service.metrics.told(), headers={"Content-Type": metrics.CONTENT_TYPE}
  )
