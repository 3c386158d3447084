"""The name of a task's file, whatever the task is called."""

import urllib.parse

from hra.errors import InputError
from hra.keys import stable_hash

SUFFIX = ".safetensors"
INDEX = "index.json"
"""`hra.submodels.index`"""
LEDGER = "ledger.json"
"""`hra.submodels.ledger`"""
_LONGEST = 180
"""Bytes of a file's name that every file system takes."""


def file_name(task: str) -> str:
  """A task's file: its name, escaped; a long one ends in its hash.

  Raises:
    InputError: a task without a name, or with one that is no text.
  """
  return f"{stem(task)}{SUFFIX}"


def task_of(name: str) -> str:
  """Whose file has such a name; of a long one, what is left of theirs."""
  return urllib.parse.unquote(name.removesuffix(SUFFIX))


def stem(task: str) -> str:
  """`file_name` without its end."""
  if not task:
    raise InputError("a task's name", expected="some text", got="none")
  try:
    escaped = urllib.parse.quote(task, safe=" ()+,@=")
  except UnicodeEncodeError as error:
    raise InputError(
      f"the task's name {task!r}", expected="text", got=str(error)
    ) from error
  if escaped.startswith(("shared-", ".")):
    escaped = f"%{ord(escaped[0]):02X}{escaped[1:]}"
  if len(escaped) > _LONGEST:
    escaped = f"{escaped[: _LONGEST - 17]}-{stable_hash(task):016x}"
  return escaped
