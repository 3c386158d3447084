"""`--config=FILE.py` and `--config.FIELD=VALUE` -> a checked `Config`.

A configuration file is Python with `get_config() -> hra.config.Config`. Each
field of the tree can be set on the command line by its path, as the type that
the field has: ml_collections' config_flags can't parse `Literal` fields.
"""

import ast
import dataclasses
import importlib.util
import types
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from absl import flags
from etils import epath

from hra import config as config_lib
from hra.config import Config, ConfigError
from hra.errors import InputError

_PREFIX = "--config."
_SET = "config_set"
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def define(default: str | None = None) -> flags.FlagHolder:
  """Defines `--config` and what `--config.FIELD=VALUE` is rewritten to."""
  holder = flags.DEFINE_string(
    "config",
    default,
    "The experiment: a Python file with get_config(). Any field can be set as "
    "--config.FIELD=VALUE, such as --config.adapter.width=64.",
  )
  flags.DEFINE_multi_string(
    _SET, [], "FIELD=VALUE; --config.FIELD=VALUE is the usual way to say it."
  )
  return holder


def rewrite(argv: Sequence[str]) -> list[str]:
  """`--config.a.b=v` (or `--config.a.b v`) -> `--config_set=a.b=v` for absl."""
  result: list[str] = []
  waiting = list(argv)
  while waiting:
    argument = waiting.pop(0)
    if argument.startswith("-config."):
      argument = "-" + argument
    if argument.startswith(_PREFIX):
      assignment = argument.removeprefix(_PREFIX)
      if "=" not in assignment and waiting:
        assignment = f"{assignment}={waiting.pop(0)}"
      argument = f"--{_SET}={assignment}"
    result.append(argument)
  return result


def experiment(name: str) -> str:
  """The file of an experiment that comes with the program.

  `experiments/` stands beside the package in a checkout and inside it in a wheel.
  """
  package = epath.Path(__file__).parent.parent
  beside = package.parent / "experiments" / f"{name}.py"
  inside = package / "experiments" / f"{name}.py"
  return str(beside if beside.exists() else inside)


def required(flag: str, value: str, example: str) -> str:
  """A flag's value; an empty one is an error that shows an example."""
  if not value:
    raise InputError(
      f"--{flag}", expected="a value", got="nothing", fix=f"--{flag}={example}"
    )
  return value


def from_flags() -> Config:
  """The configuration that the flags describe, overridden and checked.

  Raises:
    InputError: no such file, a file without get_config(), a bad override.
  """
  path = flags.FLAGS["config"].value
  if not path:
    raise InputError(
      "--config",
      expected="an experiment's file",
      got="nothing",
      fix="such as --config=experiments/quickstart.py",
    )
  config = load(path)
  for assignment in flags.FLAGS[_SET].value or ():
    override(config, assignment)
  config_lib.validate(config)
  return config


def load(path: str) -> Config:
  """get_config() of an experiment's file."""
  config = load_module(path).get_config()
  if not isinstance(config, Config):
    raise InputError(
      f"{path}: get_config()",
      expected="a hra.config.Config",
      got=type(config).__name__,
    )
  return config


def load_module(path: str) -> types.ModuleType:
  """An experiment's file as a module with get_config."""
  if not epath.Path(path).is_file():
    raise InputError(
      f"--config={path}",
      expected="an experiment's file",
      got="no such file",
      fix="paths are relative to where you stand",
    )
  spec = importlib.util.spec_from_file_location("hra_experiment", path)
  if spec is None or spec.loader is None:
    raise InputError(f"--config={path}", expected="a .py file", got="another")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "get_config"):
    raise InputError(path, expected="a function get_config()", got="none")
  return module


def override(config: Any, assignment: str) -> None:
  """Sets one field of a tree in place from `a.b=value`.

  Raises:
    ConfigError: naming the nearest field, or the type that was expected.
  """
  path, equals, text = assignment.partition("=")
  where = f"{_PREFIX}{path}"
  if not equals:
    raise ConfigError(where, expected="=VALUE behind it", got="nothing")
  node = config
  *parents, name = path.split(".")
  for part in [*parents, name]:
    hints = get_type_hints(type(node))
    if part not in hints:
      raise ConfigError(
        where,
        expected=f"a field of {type(node).__name__}",
        got=f"unknown {part!r}",
        fix=f"did you mean {config_lib.nearest(part, hints)!r}?",
      )
    hint = hints[part]
    if part is not name or node is None:
      node = getattr(node, part)
      if not dataclasses.is_dataclass(node):
        raise ConfigError(where, expected=f"{part} as the last part", got=path)
  if dataclasses.is_dataclass(hint):
    raise ConfigError(
      where, expected=f"a field of {path} behind it", got="the whole group"
    )
  setattr(node, name, _parse(text, hint, where))


def _parse(text: str, hint: Any, where: str) -> Any:
  origin = get_origin(hint)
  try:
    if origin is Literal or hint is str:
      value: Any = text
    elif hint is bool:
      value = _BOOLEANS[text.lower()]
    elif origin is tuple:
      value = ast.literal_eval(text)
      value = tuple(value) if isinstance(value, tuple | list) else (value,)
    else:
      value = hint(text)
  except (ValueError, KeyError, SyntaxError):
    kind = "a tuple of numbers" if origin is tuple else hint.__name__
    raise ConfigError(where, expected=kind, got=repr(text)) from None
  if origin is Literal and text not in get_args(hint):
    raise ConfigError(
      where,
      expected=f"one of {', '.join(get_args(hint))}",
      got=repr(text),
      fix=f"did you mean {config_lib.nearest(text, get_args(hint))!r}?",
    )
  return value
