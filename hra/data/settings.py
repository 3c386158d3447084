"""How each task trains: its own learning rate, schedule, decay and clipping.

Enters: what a configuration says of all rows, and a JSON file that says otherwise
of some tasks. Leaves: `Settings`, a number of each kind for every task, which go
with a batch to the device: thousands of tasks that train unlike each other are
one compiled program.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from hra import config_tree
from hra.config import OptimizerConfig
from hra.config_tree import nearest
from hra.data import by_task
from hra.errors import InputError

SCHEDULES = ("constant", "cosine", "linear", "exponential")
"""A schedule travels as its place here."""

_COUNTS = {"steps": 1, "patience": 0}
"""Settings that are no field of the rows' optimizer, and their least values."""
_MOST = 2**31 - 1
"""Of what travels as int32."""
_FIELDS = (
  "learning_rate",
  "schedule",
  "warmup_steps",
  "hold_steps",
  "weight_decay",
  "clip_norm",
)
Given = Mapping[str, Mapping[str, Any]]
"""Settings by task, then by name; what is not named is the configuration's."""


class Settings(NamedTuple):
  """How updates are made; of several tasks, each leaf [N] or [K]."""

  steps: Any
  """int32, updates in all: where the schedule ends."""
  learning_rate: Any
  """The schedule's peak."""
  schedule: Any
  """int32 into `SCHEDULES`."""
  warmup_steps: Any
  """int32."""
  hold_steps: Any
  """int32."""
  weight_decay: Any
  clip_norm: Any
  """0 is none."""


def settings(config: OptimizerConfig, *, steps: int) -> Settings:
  """What `config` says of a group whose schedule is `steps` long."""
  return Settings(
    steps=np.int32(steps),
    learning_rate=np.float64(config.learning_rate),
    schedule=np.int32(SCHEDULES.index(config.schedule)),
    warmup_steps=np.int32(min(config.warmup_steps, _MOST)),
    hold_steps=np.int32(min(config.hold_steps, _MOST)),
    weight_decay=np.float64(config.weight_decay),
    clip_norm=np.float64(config.clip_norm),
  )


def of_tasks(
  names: Sequence[str],
  config: OptimizerConfig,
  *,
  steps_N: Sequence[int] | np.ndarray,
  given: Given,
) -> Settings:
  """The settings of the tasks `names`, each leaf [N].

  Args:
    steps_N: int, own steps of each.
  """
  everyone = settings(config, steps=0)
  every_N = Settings(*(np.repeat(leaf, len(names)) for leaf in everyone))
  every_N = every_N._replace(steps=np.asarray(steps_N, np.int32))
  for place, name in enumerate(names):
    own = {
      field: value
      for field, value in given.get(name, {}).items()
      if field in _FIELDS
    }
    if own:
      told = settings(dataclasses.replace(config, **own), steps=0)
      for field in own:
        getattr(every_N, field)[place] = getattr(told, field)
  return every_N


def counts(
  names: Sequence[str], field: str, default: Sequence[int], *, given: Given
) -> np.ndarray:
  """`steps` or `patience` of the tasks `names`, int64 [N].

  Args:
    default: of each task, where the file doesn't say.
  """
  return np.asarray(
    [
      given.get(name, {}).get(field, value)
      for name, value in zip(names, default, strict=True)
    ],
    np.int64,
  )


def read_settings(path: epath.PathLike, *, tasks: Sequence[str]) -> Given:
  """The settings of a JSON file {task: {setting: value}}; none for no path.

  Raises:
    InputError: no such file, no such JSON, a task that is none of `tasks`, or a
      setting or a value that can't be.
  """
  given = by_task.read(
    path, tasks=tasks, expected="a JSON object {task: {setting: value}}"
  )
  for name, own in given.items():
    if not isinstance(own, dict):
      raise InputError(
        f"{path}: {name!r}", expected="{setting: value}", got=repr(own)
      )
  return {
    name: _checked(own, path=f"{path}: {name!r}") for name, own in given.items()
  }


def _checked(own: Mapping[str, Any], *, path: str) -> dict[str, Any]:
  for field in own:
    if field not in (*_FIELDS, *_COUNTS):
      raise InputError(
        path,
        expected=f"settings among {', '.join((*_FIELDS, *_COUNTS))}",
        got=repr(field),
        fix=f"did you mean {nearest(field, (*_FIELDS, *_COUNTS))!r}?",
      )
  for field, least in _COUNTS.items():
    value = own.get(field, least)
    if type(value) is not int or not least <= value <= _MOST:
      raise InputError(
        f"{path}: {field}",
        expected=f"a whole number from {least} to {_MOST:,}",
        got=repr(value),
      )
  fields = {field: own[field] for field in _FIELDS if field in own}
  config = config_tree.from_dict(OptimizerConfig, fields, path=path)
  config_tree.validate(config, path=path)
  checked = {field: getattr(config, field) for field in fields}
  return checked | {field: own[field] for field in _COUNTS if field in own}
