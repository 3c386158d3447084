"""Fields of a job <-> absl flags: `python -m launch` and other scripts define them so."""

import dataclasses
from collections.abc import Callable
from typing import Any

from absl import flags

from launch.job import Job, Kubernetes, Slurm, TpuVm

_PARTS = {"slurm": Slurm, "kubernetes": Kubernetes, "tpu_vm": TpuVm}


def define(*, without: tuple[str, ...] = ()) -> None:
  """Defines a flag for each field of a job and of its parts.

  Args:
    without: fields that a script sets itself.
  """
  for cls in (Job, *_PARTS.values()):
    for field in dataclasses.fields(cls):
      if "says" in field.metadata and field.name not in without:
        _define(field)


def job(arguments: tuple[str, ...], **fields: Any) -> Job:
  """The job that the flags describe.

  Args:
    arguments: a verb of hra and its flags.
    **fields: of the job itself, in place of flags.
  """
  parts = {name: cls(**_given(cls)) for name, cls in _PARTS.items()}
  return Job(arguments=arguments, **{**_given(Job), **parts, **fields})


def _given(cls: type) -> dict[str, Any]:
  given = {}
  for field in dataclasses.fields(cls):
    if "says" in field.metadata and field.name in flags.FLAGS:
      value = flags.FLAGS[field.name].value
      given[field.name] = tuple(value) if isinstance(value, list) else value
  return given


def _define(field: dataclasses.Field[Any]) -> None:
  says = field.metadata["says"]
  kinds: dict[type, Callable[..., Any]] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    tuple: flags.DEFINE_multi_string,
  }
  default = field.default
  kinds[type(default)](
    field.name, list(default) if default == () else default, says
  )
