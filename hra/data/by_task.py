"""A JSON file that says something of tasks -> what it says, by task.

Users write these files by hand: what names no task, or one twice, is refused.
"""

import functools
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from hra.config_tree import nearest
from hra.errors import InputError
from hra.files import storage

_SHOWN = 30
"""Characters of a bad value that a message shows."""


def read(
  path: epath.PathLike, *, tasks: Sequence[str], expected: str
) -> dict[str, Any]:
  """The values of a JSON file {task: value}; none for no path.

  Args:
    tasks: the names that may stand there.
    expected: what the file should be, for messages.

  Raises:
    InputError: no such file, no such JSON, a task that is none of `tasks`, or one
      that stands twice.
  """
  if not path:
    return {}
  values = parse(path, expected=expected)
  known = set(tasks)
  for name in values:
    if name not in known:
      raise InputError(
        path,
        expected=f"names of the {len(known):,} tasks",
        got=repr(name),
        fix=f"did you mean {nearest(name, tasks)!r}?",
      )
  return values


def numbers(
  path: epath.PathLike,
  *,
  tasks: Sequence[str],
  what: str,
  expected: str,
  holds: Callable[[float], bool],
  fix: str = "",
) -> dict[str, float]:
  """`read` where each value is a number.

  Args:
    what: the plural of what a value is, for messages.
    expected: of a value.
    holds: whether a finite one can stand.
    fix: for a value that can't.

  Raises:
    InputError: as `read` does, or a value that is no such number.
  """
  values = read(
    path, tasks=tasks, expected=f"a JSON object of task names and {what}"
  )
  for name, value in values.items():
    # `type`, because a bool is an int.
    if type(value) not in (int, float) or not (
      abs(value) <= sys.float_info.max and holds(value)
    ):
      raise InputError(
        f"{path}: {name!r}",
        expected=expected,
        got=repr(value)[:_SHOWN],
        fix=fix,
      )
  return {name: float(value) for name, value in values.items()}


def parse(path: epath.PathLike, *, expected: str) -> dict[str, Any]:
  """The values of a JSON file {name: value}, whatever the names.

  Raises:
    InputError: no such file, no such JSON, or a name that stands twice.
  """
  with storage(path, expected=expected):
    data = epath.Path(path).read_bytes()
  try:
    values = json.loads(data, object_pairs_hook=functools.partial(_once, path))
  except InputError:
    raise
  # ValueError also says that an integer has too many digits to be read.
  except (ValueError, RecursionError) as error:
    raise InputError(path, expected=expected, got=str(error)) from error
  if not isinstance(values, dict):
    raise InputError(path, expected=expected, got=type(values).__name__)
  return values


def _once(path: epath.PathLike, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """A JSON object's pairs, each name once."""
  values = dict(pairs)
  if len(values) < len(pairs):
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    raise InputError(path, expected="each name once", got=f"{twice!r} twice")
  return values
