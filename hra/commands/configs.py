"""`--config=FILE.py` and `--config.FIELD=VALUE` -> a checked `Config`.

A configuration file is Python with `get_config() -> hra.config.Config`. Each
field of the tree can be set on the command line by its path, as the type that
the field has: ml_collections' config_flags can't parse `Literal` fields.
"""

import contextlib
import importlib.util
import os
import re
import traceback
import types
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from absl import flags
from etils import epath

from hra import config_tree
from hra.config import Config
from hra.errors import InputError

Value = TypeVar("Value")

_PREFIX = "--config."
_SET = "config_set"
_HOME = re.compile(r"(?:^|(?<=[=,]))~(?=/|\Z)")


def define(default: str | None = None) -> flags.FlagHolder:
  """Defines `--config` and what `--config.FIELD=VALUE` is rewritten to."""
  holder = flags.DEFINE_string(
    "config",
    default,
    "The experiment: a Python file with get_config(). Any field can be set as "
    "--config.FIELD=VALUE, such as --config.adapter.width=64.",
  )
  define_settings()
  return holder


def define_settings() -> None:
  """Defines what `--config.FIELD=VALUE` is rewritten to, without `--config`."""
  flags.DEFINE_multi_string(
    _SET, [], "FIELD=VALUE; --config.FIELD=VALUE is the usual way to say it."
  )


def rewrite(argv: Sequence[str]) -> list[str]:
  """`--config.a.b=v` (or `--config.a.b v`) -> `--config_set=a.b=v` for absl.

  Also ~ at the beginning of a value -> one's home: shells don't expand it after `=`.
  """
  result: list[str] = []
  waiting = list(argv)
  while waiting:
    argument = _HOME.sub(_at_home, waiting.pop(0))
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


def required(flag: flags.FlagHolder[Value], example: str) -> Value:
  """A flag's value.

  Raises:
    InputError: it is empty; the line shows the example.
  """
  if not flag.value:
    raise InputError(
      f"--{flag.name}",
      expected="a value",
      got="nothing",
      fix=f"such as --{flag.name}={example}",
    )
  return flag.value


def from_flags() -> Config:
  """The configuration that the flags describe, overridden and checked.

  Raises:
    InputError: no such file, one that `load` refuses, a bad override.
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
  for assignment in settings():
    config_tree.override(config, assignment, path=_PREFIX.removesuffix("."))
  config_tree.validate(config)
  return config


def load(path: str) -> Config:
  """get_config() of an experiment's file.

  Raises:
    InputError: no such file, one that fails (naming the line), or one without a
      get_config() that returns a Config.
  """
  module = load_module(path)
  with _blamed(path):
    config = module.get_config()
  if not isinstance(config, Config):
    raise InputError(
      f"{path}: get_config()",
      expected="a hra.config.Config",
      got=type(config).__name__,
    )
  return config


def load_sweep(path: str) -> Any:
  """sweep() of an experiment's file, which stands beside get_config(); or None.

  Raises:
    InputError: no such file, or one that fails (naming the line).
  """
  declare = getattr(load_module(path), "sweep", None)
  if declare is None:
    return None
  with _blamed(path):
    return declare()


def settings() -> list[str]:
  """FIELD=VALUE of each `--config.FIELD=VALUE`."""
  return list(flags.FLAGS[_SET].value or ())


def load_module(path: str) -> types.ModuleType:
  """An experiment's file as a module with get_config.

  Raises:
    InputError: no such file, one that fails (naming the line), or one without
      get_config.
  """
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
  with _blamed(path):
    spec.loader.exec_module(module)
  if not callable(getattr(module, "get_config", None)):
    raise InputError(path, expected="a function get_config()", got="none")
  return module


def _at_home(found: re.Match[str]) -> str:
  return os.path.expanduser(found[0])


@contextlib.contextmanager
def _blamed(path: str) -> Iterator[None]:
  """Makes whatever the user's code raises one line with the file and line."""
  try:
    yield
  except Exception as error:  # the code is the user's: it may raise anything
    places = [
      (frame.f_code.co_filename, line)
      for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    if isinstance(error, SyntaxError):
      places.append((error.filename or "", error.lineno or 1))
    here = os.path.abspath(path)
    lines = [line for file, line in places if os.path.abspath(file) == here]
    raise InputError(
      f"{path}:{lines[-1]}" if lines else path,
      expected="Python that makes a configuration",
      got=f"{type(error).__name__}: {' '.join(str(error).split())}",
    ) from error
