"""What a corpus's fields are called, and what values they may have.

Enters: values as a manifest, a text file or TFDS gives them. Leaves: strings that
can be printed, compared and saved, or an `InputError` with file and line.
"""

import dataclasses
import re
import reprlib
from typing import Any

from hra.data import splits
from hra.errors import InputError

SCHEMES = ("gs://", "s3://", "az://", "hf://")
"""Of the addresses that can be read."""

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0e-\x1b\x7f\ud800-\udfff]")
"""Control characters that aren't white space; halves of surrogate pairs, which
no file can hold."""
_UNNAMEABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, ends of lines and halves of surrogate pairs. Spaces that
don't break and joiners are part of words in many languages."""
AUDIO = (".flac", ".wav", ".ogg", ".opus", ".mp3")
"""Suffixes of recordings, in the order in which they are preferred."""
_SHOWN = 80


@dataclasses.dataclass(frozen=True)
class Fields:
  """Names of a manifest's fields, and of TFDS features."""

  text: str = "text"
  task: str | None = None
  """None: `task`, or else `speaker`."""
  session: str = "session"
  split: str = "split"
  audio: str = "audio_filepath"
  single_task: str | None = None
  """The task of all recordings, whatever a manifest says; None reads it."""


DEFAULT = Fields()


def name(value: Any, *, field: str, where: str) -> str:
  """A name (of a task, an id, a path): a printable string, or an integer.

  Raises:
    InputError: it is absent, something else, blank, or not printable.
  """
  if type(value) is int:
    return str(value)
  text = _string(value, field=field, where=where)
  if not text.strip() or not is_nameable(text):
    raise InputError(
      where, expected=f"{field!r} with printable text", got=shown(text)
    )
  return text


def is_nameable(text: str) -> bool:
  """Whether a name may hold these characters: they keep to one line."""
  return _UNNAMEABLE.search(text) is None


def transcript(value: Any, *, field: str, where: str) -> str:
  """What was said: a string with something in it.

  Raises:
    InputError: it is absent, something else, blank, or holds control characters.
  """
  text = _string(value, field=field, where=where)
  if not text.strip() or _UNPRINTABLE.search(text):
    raise InputError(
      where, expected=f"{field!r} with printable text", got=shown(text)
    )
  return text


def split_name(value: Any, *, field: str, where: str) -> str:
  """The split that a value means (`hra.data.splits.known_as`).

  Raises:
    InputError: it can't be the name of a split.
  """
  return splits.checked(name(value, field=field, where=where), where=where)


def audio_path(value: Any, *, field: str, where: str) -> str:
  """A recording's path, or its address on a bucket.

  Raises:
    InputError: it is no string, or an address of another kind, as https://.
  """
  path = name(
    _string(value, field=field, where=where), field=field, where=where
  )
  if "://" in path and not path.startswith(SCHEMES):
    raise InputError(
      where,
      expected=f"{field!r} as a local path, gs:// or s3://",
      got=shown(path),
      fix="download the recordings first",
    )
  return path


def shown(value: Any) -> str:
  """`repr`, not too long for a line."""
  short = reprlib.Repr()
  short.maxstring = short.maxlong = short.maxother = _SHOWN
  return short.repr(value)


def _string(value: Any, *, field: str, where: str) -> str:
  if value is None:
    raise InputError(where, expected=f"{field!r}", got="nothing")
  if not isinstance(value, str):
    raise InputError(
      where,
      expected=f"{field!r} as a string",
      got=f"{shown(value)} ({type(value).__name__})",
    )
  return value
