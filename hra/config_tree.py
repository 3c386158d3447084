"""Operations on the typed tree of `hra.config`: check it, set it, (de)serialise it.

Enters: a tree of dataclasses, plain dicts as config.json has them, or the text
`a.b=value`. Leaves: a tree that can run, or a `ConfigError` that names the field.
"""

import dataclasses
import difflib
import math
import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from hra.config_rules import rules
from hra.errors import InputError

Tree = TypeVar("Tree")

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}

_PAIRS = {"(": ")", "[": "]"}
_QUOTED = r'"((?:[^"]|"")*)"'
_ELEMENT = re.compile(rf"\s*(?:{_QUOTED}|([^,]*?))\s*,")
_NEEDS_QUOTES = re.compile(r'[,"\[\]]|^\s|\s\Z|^\Z')


class ConfigError(InputError):
  """A configuration that can't run."""


def to_dict(config: Any) -> dict[str, Any]:
  """The tree as plain dicts, for config.json."""
  return dataclasses.asdict(config)


def flat(values: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
  """Every value of nested dicts by its path, such as `adapter.width`."""
  paths: dict[str, Any] = {}
  for name, value in values.items():
    if isinstance(value, Mapping) and value:
      paths |= flat(value, prefix=f"{prefix}{name}.")
    else:
      paths[f"{prefix}{name}"] = value
  return paths


def from_dict(
  cls: type[Tree], values: Mapping[str, Any], *, path: str = "config"
) -> Tree:
  """Builds `cls` from plain dicts; a field that is absent has its default.

  Raises:
    ConfigError: an unknown field or a wrong type, naming the field's path, what
      was expected and what was got.
  """
  if not isinstance(values, Mapping):
    raise _wrong_type(path, values, expected=f"the fields of {cls.__name__}")
  fields = {}
  for name, value in values.items():
    where = f"{path}.{name}"
    hint = _hint(cls, name, where=where)
    fields[name] = (
      from_dict(hint, value, path=where)
      if _is_group(hint)
      else _checked(value, hint, where)
    )
  return cls(**fields)


def override(config: Any, assignment: str, *, path: str = "config") -> None:
  """Sets one field of the tree in place, from `a.b=value`.

  The text becomes what the field is: `true`, `false`, `1` or `0` for a bool, a
  number, a string as it stands, or values with commas between for a tuple. Around
  a tuple one pair of brackets may stand, and double quotes around a value with
  commas in it: `[Ann,"Doe, Jane"]`; a quote in it is written twice.

  Raises:
    ConfigError: an unknown field (naming the nearest), a group instead of a
      field, a field below a field, or text that is no value of the field.
  """
  names, equals, text = assignment.partition("=")
  where = f"{path}.{names}"
  if not equals:
    raise ConfigError(where, expected="=VALUE behind it", got="nothing")
  *groups, leaf = names.split(".")
  for depth, group in enumerate(groups, 1):
    if not _is_group(_hint(type(config), group, where=where)):
      raise ConfigError(
        where,
        expected=f"nothing below {group!r}, which has no fields",
        got=".".join(names.split(".")[depth:]),
      )
    config = getattr(config, group)
  hint = _hint(type(config), leaf, where=where)
  if _is_group(hint):
    fields = get_type_hints(hint)
    raise ConfigError(
      where,
      expected=f"one of its fields ({', '.join(fields)})",
      got="the whole group",
      fix=f"such as {where}.{next(iter(fields))}=...",
    )
  setattr(config, leaf, _checked(_parsed(text, hint), hint, where))


def replaced(config: Tree, path: str, value: Any) -> Tree:
  """The tree with another value of one field, such as `adapter.width`."""
  name, _, rest = path.partition(".")
  if rest:
    value = replaced(getattr(config, name), rest, value)
  return dataclasses.replace(config, **{name: value})  # type: ignore[type-var]


def written(value: Any) -> str:
  """A field's value as the text that `override` reads it from."""
  if isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, tuple | list):
    return f"[{','.join(_quoted(written(part)) for part in value)}]"
  return str(value)


def validate(config: Any, *, path: str = "config") -> None:
  """Checks every field's type and choices, and what fields say of one another.

  Raises:
    ConfigError: one line for the first field that can't stand.
  """
  for name, hint in get_type_hints(type(config)).items():
    where = f"{path}.{name}"
    value = getattr(config, name)
    if not _is_group(hint):
      _checked(value, hint, where)
    elif type(value) is hint:
      validate(value, path=where)
    else:
      raise _wrong_type(where, value, expected=_name(hint))
  for field, holds, expected, fix in rules(config):
    if not holds:
      got = str(operator.attrgetter(field)(config))
      raise ConfigError(f"{path}.{field}", expected=expected, got=got, fix=fix)


def nearest(name: str, choices: Iterable[str]) -> str:
  """The choice that `name` most likely meant."""
  return difflib.get_close_matches(name, choices, n=1, cutoff=0.0)[0]


def _is_group(hint: Any) -> bool:
  return dataclasses.is_dataclass(hint)


def _hint(cls: type, name: str, *, where: str) -> Any:
  """The type of a field, or an error that names the nearest field."""
  hints = get_type_hints(cls)
  if name not in hints:
    raise ConfigError(
      where,
      expected=f"a field of {cls.__name__} ({', '.join(hints)})",
      got=f"unknown {name!r}",
      fix=f"did you mean {nearest(name, hints)!r}?",
    )
  return hints[name]


def _parsed(text: str, hint: Any) -> Any:
  """What the text says, or the text itself where it is no value of the type."""
  if get_origin(hint) is tuple:
    element = get_args(hint)[0]
    return tuple(_parsed(part, element) for part in _parts(text))
  if hint is bool:
    return _BOOLEANS.get(text.lower(), text)
  if hint in (int, float):
    try:
      return hint(text)
    except ValueError:
      return text
  return text


def _parts(text: str) -> Iterator[str]:
  """The values of a tuple, without what stands around it and them."""
  inside = _without_brackets(text.strip()).strip().removesuffix(",")
  for found in _ELEMENT.finditer(f"{inside}," if inside else ""):
    quoted, plain = found.groups()
    yield plain if quoted is None else quoted.replace('""', '"')


def _without_brackets(text: str) -> str:
  """Without one pair that stands around all of it; `(a),(b)` has none."""
  if text[:1] not in _PAIRS:
    return text
  depth, close = 0, _PAIRS[text[0]]
  # Of the same length, so that places in it are places in the text.
  bare = re.sub(_QUOTED, lambda found: " " * len(found[0]), text)
  for place, mark in enumerate(bare):
    depth += (mark == text[0]) - (mark == close)
    if depth == 0:
      return text[1:-1] if place == len(text) - 1 else text
  return text


def _quoted(text: str) -> str:
  """A tuple's value, in quotes where it could be read as something else."""
  if not _NEEDS_QUOTES.search(text):
    return text
  doubled = text.replace('"', '""')
  return f'"{doubled}"'


def _checked(value: Any, hint: Any, where: str) -> Any:
  """The value as its field's type: an int as a float, a list as a tuple."""
  if get_origin(hint) is Literal:
    return _checked_choice(value, get_args(hint), where)
  if get_origin(hint) is tuple:
    if not isinstance(value, tuple | list):
      raise _wrong_type(where, value, expected=_name(hint))
    element = get_args(hint)[0]
    return tuple(
      _checked(part, element, f"{where}[{i}]") for i, part in enumerate(value)
    )
  if hint is float and type(value) is int:
    value = float(value)
  if type(value) is not hint:
    raise _wrong_type(where, value, expected=_name(hint))
  if hint is float and not math.isfinite(value):
    raise ConfigError(where, expected="a finite number", got=f"{value:g}")
  return value


def _checked_choice(value: Any, choices: tuple[str, ...], where: str) -> str:
  if value in choices:
    return value
  raise ConfigError(
    where,
    expected=f"one of {', '.join(map(repr, choices))}",
    got=repr(value),
    fix=f"did you mean {nearest(str(value), choices)!r}?",
  )


def _wrong_type(where: str, value: Any, *, expected: str) -> ConfigError:
  got = f"{value!r} ({type(value).__name__})"
  return ConfigError(where, expected=expected, got=got)


def _name(hint: Any) -> str:
  if get_origin(hint) is tuple:
    return f"a tuple of {_name(get_args(hint)[0])}"
  return hint.__name__
