"""Refuses what pages of other sites ask of a server in the name of their visitor.

A browser lets any page send forms and open WebSockets to this machine, and a name
that resolves to it anew makes its answers readable. So an `Origin` has to be the
host that is asked, and a server for this machine alone is asked by its own names, and by
those that it is told (`hra serve --hosts`): of a proxy before it, which may hand on
either its own name or this machine's.
"""

import urllib.parse
from collections.abc import Collection, Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from hra.serve.http import errors


class SameOrigin:
  """Passes on what comes from the server's own page, and from no page."""

  def __init__(
    self,
    app: ASGIApp,
    hosts: Collection[str] | None = None,
    pages: Iterable[str] = (),
  ):
    """Wraps an application.

    Args:
      hosts: names that the server may be asked by; None is any.
      pages: names whose pages are its own, by whichever it is asked.
    """
    self._app = app
    self._hosts = hosts
    self._pages = frozenset(map(str.lower, pages))

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    refused = scope["type"] in ("http", "websocket") and self._refused(scope)
    if not refused:
      await self._app(scope, receive, send)
      return
    refusal = errors.Refusal(403, f"Not for {refused}.", code="wrong_origin")
    await refusal.response()(scope, receive, send)

  def _refused(self, scope: Scope) -> str:
    headers = Headers(scope=scope)
    host, origin = headers.get("host", ""), headers.get("origin")
    if self._hosts is not None and _name(host) not in self._hosts:
      return "this host"
    if origin is None or _netloc(origin) == host.lower():
      return ""
    return "" if _netloc(origin) in self._pages else "pages of other sites"


def _name(host: str) -> str:
  """Without the port."""
  name, colon, port = host.lower().rpartition(":")
  return name if colon and port.isdigit() else host.lower()


def _netloc(origin: str) -> str:
  try:
    return urllib.parse.urlsplit(origin.lower()).netloc
  except ValueError:
    return ""
