"""Who asks, and what they may ask for.

In: a request's token. Out: its key, or a refusal. What a key may not use is refused
before a store is asked, in the words for what isn't there.
"""

from typing import NamedTuple

from starlette.requests import HTTPConnection

from hra.serve.http import errors
from hra.serve.keys import Key, Keys

NOBODY = Key("open", None, False)
"""Of a server without keys."""


class Named(NamedTuple):
  """A model that a client asks for."""

  model: str
  task: str | None
  """None is the bare backbone."""


def token_of(connection: HTTPConnection) -> str | None:
  """What stands behind `Authorization: Bearer`."""
  scheme, _, token = connection.headers.get("authorization", "").partition(" ")
  return token.strip() if scheme.lower() == "bearer" else None


def key_of(keys: Keys | None, token: str | None) -> Key:
  """Whose token that is.

  Args:
    keys: None is an open server, which asks for no token and looks at none.

  Raises:
    Refusal: none is given, or it is nobody's.
  """
  if keys is None:
    return NOBODY
  key = keys.find(token) if token else None
  if key is None:
    raise errors.Refusal(
      401,
      "An API key of this server is needed: Authorization: Bearer KEY.",
      code="invalid_api_key",
      headers={"WWW-Authenticate": "Bearer"},
    )
  return key


def named(model: str, *, backbone: str, key: Key) -> Named:
  """The model of a name, `BACKBONE` or `BACKBONE:SPEAKER`.

  Raises:
    Refusal: it is none of this backbone, or of a speaker that the key may not use.
  """
  first, colon, task = model.partition(":")
  asked = Named(model, task if colon else None)
  if first != backbone or asked.task == "" or not key.may_use(asked.task):
    raise errors.no_model(model)
  return asked


def check_admin(key: Key) -> None:
  """Raises Refusal where a key administrates nothing, as none does without keys."""
  if not key.admin:
    raise errors.Refusal(
      403, "This needs a key that administrates.", code="admin_only"
    )
