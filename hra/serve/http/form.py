"""A request's form -> what is asked; fields that can't be honoured are refused by name.

Uploads are held in memory, as much as `hra.serve.http.bounds` lets in, and are never
written to a disk.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from hra.config_tree import nearest
from hra.serve.http import errors

Format = Literal["json", "text", "verbose_json", "srt", "vtt"]
Granularity = Literal["word", "segment"]

_FIELDS = 64
_FIELD_BYTES = 16 * 1024
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class Fields(NamedTuple):
  """What a form says, as it stands."""

  values: Mapping[str, Sequence[str]]
  """By name, without the brackets of lists."""
  file: UploadFile


class Asked(NamedTuple):
  """How a recording is to be answered."""

  format: Format = "json"
  granularities: frozenset[Granularity] = frozenset({"segment"})
  stream: bool = False
  fallback: bool = False
  guard: bool = True


async def read(request: Request) -> Fields:
  """The form of a request.

  Raises:
    Refusal: it is no form with one file.
    ClientDisconnect: the client hung up.
  """
  kind = request.headers.get("content-type", "").partition(";")[0].strip()
  if kind.lower() != "multipart/form-data":
    raise errors.Refusal(
      415,
      f"Expected a form (multipart/form-data), got {errors.shown(kind)}.",
      code="unsupported_media_type",
    )
  _check_charset(request)
  parser = _Parser(
    request.headers,
    request.stream(),
    max_files=1,
    max_fields=_FIELDS,
    max_part_size=_FIELD_BYTES,
  )
  try:
    form = await parser.parse()
  except MultiPartException as error:
    raise errors.Refusal(
      400, f"The form can't be read: {error.message}", code="bad_form"
    ) from error
  return _divided(form)


def model_of(fields: Fields) -> str:
  """Raises Refusal where none is named."""
  model = _single(fields, "model")
  if not model:
    raise errors.bad_field("model", "none is given", code="missing_field")
  return model


def asked(fields: Fields, *, language: str, words: bool) -> Asked:
  """What the fields ask for.

  Args:
    language: that the backbone hears; empty where it doesn't say.
    words: whether its decoder knows when it says a word.

  Raises:
    Refusal: one is unknown, has no such value, or can't be honoured.
  """
  for name in fields.values:
    if name in _REFUSED:
      _REFUSED[name](name, fields, language)
    elif name not in _READ:
      close = nearest(name, [*_READ, *_REFUSED])
      raise errors.bad_field(
        name[:64], f"is no field of this server; did you mean {close}?"
      )
  chosen = Asked(
    format=_choice(fields, "response_format", get_args(Format), "json"),
    granularities=_granularities(fields),
    stream=_boolean(fields, "stream", False),
    fallback=_boolean(fields, "fallback", False),
    guard=_boolean(fields, "guard", True),
  )
  if chosen.stream and chosen.format not in ("json", "text"):
    raise errors.bad_field(
      "response_format", f"{chosen.format} can't be streamed; json can"
    )
  if "word" in chosen.granularities and not words:
    raise errors.bad_field(
      "timestamp_granularities",
      "the decoder of this backbone doesn't know when it says a word",
      code="unsupported_field",
    )
  return chosen


def _check_charset(request: Request) -> None:
  """Python has codecs of that name that are none of a text."""
  _, given = parse_options_header(request.headers["content-type"])
  charset = given.get(b"charset", b"utf-8")
  if charset.lower() not in (b"utf-8", b"utf8", b"us-ascii"):
    raise errors.Refusal(
      415,
      f"Expected a form in UTF-8, got {errors.shown(charset.decode('latin-1'))}.",
      code="unsupported_media_type",
    )


class _Parser(MultiPartParser):
  """Keeps what is uploaded in memory."""

  spool_max_size = 2**40


def _divided(form: FormData) -> Fields:
  values: dict[str, list[str]] = {}
  file = None
  for name, value in form.multi_items():
    if isinstance(value, UploadFile) != (name == "file"):
      got = "a file" if isinstance(value, UploadFile) else "a text"
      raise errors.bad_field(name[:64], f"{got} is not expected here")
    if isinstance(value, UploadFile):
      file = value
    else:
      values.setdefault(name.removesuffix("[]"), []).append(value)
  if file is None:
    raise errors.bad_field("file", "none is given", code="missing_field")
  return Fields(values, file)


def _single(fields: Fields, name: str) -> str | None:
  given = fields.values.get(name, ())
  if len(given) > 1:
    raise errors.bad_field(name, "is given more than once")
  return given[0] if given else None


def _choice(
  fields: Fields, name: str, choices: Sequence[str], default: str
) -> "Format":
  value = _single(fields, name)
  if value is None:
    return default  # type: ignore[return-value]
  if value not in choices:
    raise errors.bad_field(
      name, f"expected one of {', '.join(choices)}, got {errors.shown(value)}"
    )
  return value  # type: ignore[return-value]


def _boolean(fields: Fields, name: str, default: bool) -> bool:
  value = _single(fields, name)
  if value is None:
    return default
  if value.lower() not in _BOOLEANS:
    raise errors.bad_field(
      name, f"expected true or false, got {errors.shown(value)}"
    )
  return _BOOLEANS[value.lower()]


def _granularities(fields: Fields) -> frozenset[Granularity]:
  name = "timestamp_granularities"
  given = fields.values.get(name)
  if given is None:
    return frozenset({"segment"})
  if _single(fields, "response_format") != "verbose_json":
    raise errors.bad_field(name, "needs response_format verbose_json")
  for value in given:
    if value not in get_args(Granularity):
      raise errors.bad_field(
        name, f"expected word or segment, got {errors.shown(value)}"
      )
  return frozenset(given)  # type: ignore[arg-type]


def _check_language(name: str, fields: Fields, language: str) -> None:
  given = _single(fields, name)
  if given == "" or (language and (given or "").lower() == language.lower()):
    return
  heard = f"is {language}" if language else "is not told; leave this out"
  raise errors.bad_field(
    name, f"the language of this backbone {heard}", code="unsupported_field"
  )


def _check_temperature(name: str, fields: Fields, language: str) -> None:
  del language
  given = _single(fields, name) or "0"
  try:
    value = float(given)
  except ValueError:
    value = math.nan
  if value != 0:
    raise errors.bad_field(
      name, "nothing is sampled here: only 0", code="unsupported_field"
    )


def _refuse(reason: str) -> Callable[[str, Fields, str], None]:
  def check(name: str, fields: Fields, language: str) -> None:
    del language
    if any(fields.values[name]):  # an empty one asks for nothing
      raise errors.bad_field(name, reason, code="unsupported_field")

  return check


_READ = (
  "model",
  "response_format",
  "timestamp_granularities",
  "stream",
  "fallback",
  "guard",
)
_REFUSED: dict[str, Callable[[str, Fields, str], None]] = {
  "language": _check_language,
  "temperature": _check_temperature,
  "prompt": _refuse("no decoder of this server is prompted by a client"),
  "include": _refuse("log-probabilities are not told"),
  "chunking_strategy": _refuse("the server cuts long recordings its own way"),
  "languages": _refuse("a backbone hears its own language"),
  "keywords": _refuse("no decoder of this server is prompted by a client"),
  "known_speaker_names": _refuse("speakers are not told apart"),
  "known_speaker_references": _refuse("speakers are not told apart"),
}
"""Fields of OpenAI's that are refused, but where they ask for nothing."""
