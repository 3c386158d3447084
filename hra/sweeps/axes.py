"""The axes of a sweep, as they are typed -> fields and their values.

Enters: texts such as `adapter.width=32,64`. Leaves: field -> values, each as
`--config.FIELD=VALUE` takes it; or one line that says what can't be read.
"""

import copy
import operator
from collections.abc import Sequence

from hra import config_tree
from hra.config import Config
from hra.errors import InputError

_OPEN, _CLOSE = "([", ")]"


def read_axes(base: Config, axes: Sequence[str]) -> dict[str, list[str]]:
  """FIELD=VALUE,VALUE,... of each axis -> the field and its values.

  Raises:
    InputError: an axis that can't be read, a field or a value that stands twice.
    ConfigError: an unknown field, or a value that is none of it.
  """
  _check_once(axes)
  return dict(_axis(base, text) for text in axes)


def split_values(text: str) -> list[str]:
  """`a,b,c` -> its values; commas inside of brackets don't divide: `[a,b],[c]`.

  Nor do those in double quotes, in which brackets are letters as well.

  Raises:
    ValueError: brackets or quotes that don't match.
  """
  values, depth, quoted = [""], 0, False
  for mark in text:
    quoted ^= mark == '"'
    if not quoted:
      depth += (mark in _OPEN) - (mark in _CLOSE)
    if depth < 0:
      break
    if mark == "," and depth == 0 and not quoted:
      values.append("")
    else:
      values[-1] += mark
  if depth or quoted:
    raise ValueError(text)
  return [value.strip() for value in values]


def _axis(base: Config, text: str) -> tuple[str, list[str]]:
  """FIELD=VALUE,... -> the field and its values as they are written best."""
  field, equals, values = text.partition("=")
  where = f"--axis={field}"
  try:
    parts = split_values(values)
  except ValueError as error:
    raise InputError(
      where,
      expected="brackets and quotes that match",
      got=values,
      fix=f"a value with commas in it stands in brackets: {field}=[a,b],[c]",
    ) from error
  if not field or not equals or not all(parts):
    raise InputError(
      where,
      expected="FIELD=VALUE,VALUE,...",
      got=repr(text),
      fix="such as --axis=adapter.width=32,64,128",
    )
  written = []
  for part in parts:
    config = copy.deepcopy(base)
    config_tree.override(config, f"{field}={part}", path="--axis")
    value = operator.attrgetter(field)(config)
    written.append(config_tree.written(value))
  for value in written:
    if written.count(value) > 1:
      raise InputError(where, expected="each value once", got=f"{value} twice")
  return field, written


def _check_once(axes: Sequence[str]) -> None:
  fields = [axis.partition("=")[0] for axis in axes]
  for field in fields:
    if fields.count(field) > 1:
      raise InputError(
        f"--axis={field}",
        expected="each field once",
        got="it twice",
        fix=f"give all its values to one: --axis={field}=A,B,C",
      )
