"""The page at `/`: files that come with the program, without a network elsewhere."""

import mimetypes
from collections.abc import Awaitable, Callable
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_INDEX = "index.html"
_KINDS = (".html", ".js", ".css", ".svg", ".png", ".ico")
_POLICY = "; ".join(
  (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "media-src 'self' blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  )
)
_HEADERS = {
  "Content-Security-Policy": _POLICY,
  "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
  "Cache-Control": "no-cache",
}


def routes() -> list[Route]:
  """One for each file of the page, read once."""
  folder = resources.files("hra.serve") / "page"
  if not folder.is_dir():
    return []
  files = [each for each in folder.iterdir() if each.name.endswith(_KINDS)]
  return [
    Route(
      "/" if each.name == _INDEX else f"/{each.name}",
      _told(each.read_bytes(), each.name),
    )
    for each in files
  ]


def _told(data: bytes, name: str) -> Callable[[Request], Awaitable[Response]]:
  kind = mimetypes.guess_type(name)[0] or "application/octet-stream"

  async def told(request: Request) -> Response:
    del request
    return Response(data, media_type=kind, headers=_HEADERS)

  return told
