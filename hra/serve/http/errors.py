"""What a client is told when it isn't answered, in the JSON shape of OpenAI.

In: errors of the engine, of decoding and of requests. Out: a status, and
`{"error": {"message", "type", "param", "code"}}`. Nothing of the server's own paths
is ever told.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from hra.errors import InputError, StorageError
from hra.serve import interface

GONE = 499
"""The status in logs and figures of who hung up before the answer."""
LEAVING = "shutting_down"
"""The code of an error of who asks a server that ends."""
_LONGEST_NAME = 200
_TYPES = {401: "authentication_error", 403: "permission_error"}
_TYPES |= {404: "not_found_error", 429: "rate_limit_error"}

_HTTP_CODES = {
  404: "no_such_route",
  405: "no_such_method",
  408: "request_too_slow",
  413: "request_too_large",
  429: "too_many_at_once",
  503: "overloaded",
}


class Refusal(Exception):
  """A request that isn't answered, and why."""

  def __init__(
    self,
    status: int,
    message: str,
    *,
    code: str,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
  ):
    super().__init__(message)
    self.status = status
    self.code = code
    self.param = param
    self.headers = dict(headers or {})

  def body(self) -> dict[str, Any]:
    usual = "server_error" if self.status >= 500 else "invalid_request_error"
    error = {
      "message": str(self),
      "type": _TYPES.get(self.status, usual),
      "param": self.param,
      "code": self.code,
    }
    return {"error": error}

  def response(self) -> JSONResponse:
    return JSONResponse(self.body(), self.status, headers=self.headers)


def bad_field(field: str, message: str, *, code: str = "bad_field") -> Refusal:
  """A field that says what can't be done."""
  return Refusal(400, f"{field}: {message}", code=code, param=field)


def no_model(model: str) -> Refusal:
  """The one answer for who isn't there and who may not be asked for."""
  return Refusal(
    404,
    f"The model {shown(model)} does not exist, or this key may not use it.",
    code="model_not_found",
    param="model",
  )


def shown(text: str) -> str:
  """A client's own words in a message."""
  cut = text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."
  return repr(cut)


def is_name(given: Any) -> TypeGuard[str]:
  """Whether it is a text that can be told again (JSON may say half a character)."""
  if not isinstance(given, str) or not given:
    return False
  try:
    given.encode()
  except UnicodeEncodeError:
    return False
  return True


def overloaded(message: str, *, seconds: float = 1.0) -> Refusal:
  return _later(message, code="overloaded", seconds=seconds)


def too_often(wait: float) -> Refusal:
  return Refusal(
    429,
    f"Too many requests of this key or address; try again in {wait:.1f} s.",
    code="rate_limit_exceeded",
    headers={"Retry-After": f"{max(1, math.ceil(wait))}"},
  )


def leaving() -> Refusal:
  message = "The server is shutting down; try again later."
  return _later(message, code=LEAVING, seconds=5)


def too_many() -> Refusal:
  return Refusal(
    429,
    "Too much of this key at once; try again when some of it is answered.",
    code="too_many_at_once",
    headers={"Retry-After": "1"},
  )


def refusal(error: Refusal | InputError, *, model: str = "") -> Refusal:
  """What a client is told of an error.

  Args:
    model: that was asked for.
  """
  if isinstance(error, Refusal):
    return error
  if isinstance(error, interface.UnknownSpeaker):
    return no_model(model)
  if isinstance(error, interface.TooLong):
    return Refusal(413, _told(error), code="audio_too_long", param="file")
  if isinstance(error, interface.TooMany):
    return too_many()
  if isinstance(error, interface.Overloaded):
    return overloaded("Too many requests wait; try again later.")
  if isinstance(error, interface.StoreGone):
    message = "The store of Submodels can't be reached; try again later."
    return _later(message, code="store_unreachable", seconds=5)
  if isinstance(error, interface.Closed):
    return leaving()
  if isinstance(error, interface.BadSubmodel):
    return Refusal(
      409,
      "The Submodel of this model can't be used; the server's log says why.",
      code="bad_submodel",
      param="model",
      headers={"x-should-retry": "false"},  # clients of OpenAI retry a 409
    )
  if isinstance(error, interface.Failed):
    message = "The server failed to answer; its log says why. Try again later."
    return _later(message, code="server_error", seconds=5)
  if isinstance(error, StorageError):
    return _later(
      "The server has no room; try again later.", code="no_room", seconds=5
    )
  return Refusal(400, _told(error), code="bad_audio", param="file")


def of_http(error: HTTPException) -> Refusal:
  """What routing refuses, or bounds of requests."""
  code = _HTTP_CODES.get(error.status_code, "refused")
  message = f"{error.detail[:1].upper()}{error.detail[1:]}."
  return Refusal(error.status_code, message, code=code, headers=error.headers)


def _later(message: str, *, code: str, seconds: float) -> Refusal:
  headers = {"Retry-After": f"{max(1, round(seconds))}"}
  return Refusal(503, message, code=code, headers=headers)


def _told(error: InputError) -> str:
  """An error of a recording, without where the server had it."""
  return f"The recording: expected {error.expected}, got {error.got}."
