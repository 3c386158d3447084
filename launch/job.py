"""One job, whatever runs it: what `hra` is asked, by how many processes, how often.

Enters: fields, as the flags of `python -m launch` set them. Leaves: a checked `Job`,
and the command and the variables that all its processes have in common. Renderers
(`launch.launchers`) make of it what a machine or a scheduler reads.
"""

import dataclasses
import math
import re
import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from hra.commands.main import VERBS
from hra.config_tree import nearest
from hra.errors import InputError
from launch import accelerators

BAD_INPUT = 2
INTERRUPTED = 75
TERMINATED = 143
"""By SIGTERM, before there was anything to save."""

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
_DETERMINISTIC_VERBS = ("train",)
"""They have a flag for it, which adds to what $XLA_FLAGS says there."""

_PORT_LIMIT = 2**16 - 1
_LEAST_SECONDS = 60
"""Of an allocation, beside those for saving."""

_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(
  r"(?:^|_)(?:(?:api|access|private)?keys?|(?:auth)?tokens?|secrets?|auth|pwd"
  r"|pass|password|passwd|passphrase|credentials?)(?:_|$)",
  re.I,
)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@,+-]*")
_FORMS = {
  "options": (
    re.compile(r"--[a-z][a-z-]*(=[A-Za-z0-9._:/@,+%*=\[\]-]+)?"),
    "an option of sbatch, such as --qos=high",
  ),
  "mounts": (
    re.compile(r"[a-z0-9][a-z0-9.-]*:/[A-Za-z0-9._/-]*"),
    "CLAIM:/FOLDER",
  ),
  "selectors": (
    re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*=[A-Za-z0-9][A-Za-z0-9._-]*"),
    "LABEL=VALUE",
  ),
}


def _field(default: Any, says: str) -> Any:
  return dataclasses.field(default=default, metadata={"says": says})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slurm:
  """What only Slurm asks for."""

  partition: str = _field("", "Slurm's partition.")
  account: str = _field("", "Who pays, in Slurm.")
  options: tuple[str, ...] = _field(
    (), "A further option of sbatch, such as --qos=high; repeated."
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kubernetes:
  """What only Kubernetes asks for."""

  image: str = _field("", "The image that holds Python and hra.")
  namespace: str = _field("default", "Kubernetes' namespace.")
  queue: str = _field("", "Kueue's LocalQueue; without one nothing queues.")
  priority: str = _field("", "Kubernetes' PriorityClass.")
  service_account: str = _field("", "Whom the pods speak for, as to buckets.")
  secret: str = _field("", "The Secret that holds what --secrets names.")
  mounts: tuple[str, ...] = _field(
    (), "CLAIM:/FOLDER, a PersistentVolumeClaim and where it is; repeated."
  )
  selectors: tuple[str, ...] = _field(
    (), "LABEL=VALUE of the nodes to run on; repeated."
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuVm:
  """What only TPU VMs ask for."""

  tpu: str = _field("", "The TPU VM's name.")
  zone: str = _field("", "Its zone.")
  project: str = _field("", "Its project, if it isn't gcloud's own.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """What runs; every default of a launcher stands here."""

  arguments: tuple[str, ...]
  """What follows `hra`: a verb and its flags."""
  name: str = _field("hra", "The job's name, for the scheduler.")
  hosts: int = _field(
    0, "Machines; 0 is one, or as many as a slice of TPUs has."
  )
  processes: int = _field(
    0, "Processes on each machine; 0 is one, under Slurm one for each GPU."
  )
  accelerator: str = _field(
    "", "v5e:16x16, 2*v4:4x4x8 (two slices), or gpu:8 on each machine."
  )
  cpus: int = _field(0, "CPU cores for each process; 0 asks for none.")
  memory_gib: int = _field(0, "Memory of each machine; 0 asks for none.")
  python: str = _field("", "The interpreter where the job runs.")
  folder: str = _field("", "The folder that it runs in.")
  env: tuple[str, ...] = _field((), "NAME=VALUE of its environment; repeated.")
  secrets: tuple[str, ...] = _field(
    (), "NAME of a variable whose value is never written down; repeated."
  )
  deterministic: bool = _field(
    False, "Restarts are bit-exact on GPUs too, which costs time."
  )
  retries: int = _field(3, "How often a job that died is started again.")
  pause: float = _field(
    5.0, "Seconds before a new start on this machine; doubled each time."
  )
  hours: float = _field(0.0, "The longest that it may hold machines; 0: any.")
  grace: int = _field(120, "Seconds to save in, from SIGTERM to SIGKILL.")
  port: int = _field(0, "The first process's port; 0 is any that is free.")
  slurm: Slurm = dataclasses.field(default_factory=Slurm)
  kubernetes: Kubernetes = dataclasses.field(default_factory=Kubernetes)
  tpu_vm: TpuVm = dataclasses.field(default_factory=TpuVm)

  def __post_init__(self) -> None:
    _check(self)

  @property
  def devices(self) -> accelerators.Tpus | accelerators.Gpus | None:
    return accelerators.parse(self.accelerator)


class Submission(NamedTuple):
  """What a renderer leaves for a scheduler."""

  command: tuple[str, ...]
  text: str
  """Its standard input: a script, a manifest."""


def command(job: Job, *, python: str = "python3") -> tuple[str, ...]:
  """The command line of each process; `python` where the job names none."""
  verb, *flags = job.arguments
  if job.deterministic and verb in _DETERMINISTIC_VERBS:
    flags.insert(0, "--deterministic")
  return (job.python or python, "-m", f"hra.commands.{verb}", *flags)


def environment(
  job: Job, *, inherited: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
  """The variables that the job sets for each process.

  Args:
    inherited: those that it has there anyhow.
  """
  variables = dict(each.split("=", 1) for each in job.env)
  if job.deterministic and job.arguments[0] not in _DETERMINISTIC_VERBS:
    given = variables.get("XLA_FLAGS", inherited.get("XLA_FLAGS", ""))
    variables["XLA_FLAGS"] = f"{given} {DETERMINISTIC}".strip()
  return variables


def shell(words: tuple[str, ...], variables: Mapping[str, str]) -> str:
  """One line that a POSIX shell runs."""
  settings = (
    f"{name}={shlex.quote(value)}" for name, value in variables.items()
  )
  return " ".join((*settings, shlex.join(words)))


def check_unused(job: Job, fields: tuple[str, ...], launcher: str) -> None:
  """Refuses what was set and a launcher can't honour.

  Args:
    fields: of `Job`, or of a part of it, as `tpu_vm`.
  """
  for name in fields:
    default = Job.__dataclass_fields__[name]
    value = getattr(job, name)
    if dataclasses.is_dataclass(value):
      for part in dataclasses.fields(value):
        _check_default(part, getattr(value, part.name), launcher)
    else:
      _check_default(default, value, launcher)


def required(value: str, flag: str, launcher: str, fix: str) -> str:
  """A field that one launcher needs."""
  if not value:
    raise InputError(
      f"--{flag}",
      expected=f"a value for --launcher={launcher}",
      got="nothing",
      fix=fix,
    )
  return value


def _check_default(
  field: dataclasses.Field[Any], value: object, launcher: str
) -> None:
  if value != field.default:
    raise InputError(
      f"--{field.name}",
      expected=f"nothing, as --launcher={launcher} has no use for it",
      got=repr(value),
    )


def _check(job: Job) -> None:
  _check_arguments(job.arguments)
  if not _LABEL.fullmatch(job.name):
    raise InputError(
      "--name",
      expected="lower-case letters, digits and - that begin with a letter",
      got=repr(job.name),
      fix="such as adapt-1",
    )
  for flag, value, least in (
    ("hosts", job.hosts, 0),
    ("processes", job.processes, 0),
    ("cpus", job.cpus, 0),
    ("memory_gib", job.memory_gib, 0),
    ("retries", job.retries, 0),
    ("pause", job.pause, 0),
    ("hours", job.hours, 0),
    ("grace", job.grace, 1),
    ("port", job.port, 0),
  ):
    if not math.isfinite(value):
      raise InputError(
        f"--{flag}", expected="a finite number", got=f"{value:g}"
      )
    if value < least:
      raise InputError(
        f"--{flag}", expected=f"{least} or more", got=f"{value:g}"
      )
  if job.port > _PORT_LIMIT:
    raise InputError(
      "--port", expected=f"at most {_PORT_LIMIT}", got=str(job.port)
    )
  _check_hours(job)
  _check_variables(job)
  _check_words(job)
  accelerators.parse(job.accelerator)


def _check_hours(job: Job) -> None:
  """Who is asked to save as soon as it begins gets nowhere, however often."""
  least = job.grace + _LEAST_SECONDS
  if 0 < job.hours * 3600 <= least:
    raise InputError(
      "--hours",
      expected=f"more than --grace={job.grace} and {_LEAST_SECONDS} seconds: "
      f"{least / 3600:.2g}",
      got=f"{job.hours:g}",
      fix="0 sets no limit",
    )


def _check_arguments(arguments: tuple[str, ...]) -> None:
  if not arguments or arguments[0] not in VERBS:
    got = arguments[0] if arguments else ""
    meant = nearest(got, VERBS) if got[:1] not in ("", "-") else "train"
    raise InputError(
      "--",
      expected="a verb of hra and its flags after --",
      got=repr(got) if got else "nothing",
      fix=f"such as -- {meant} --workdir=runs/mine",
    )
  for argument in arguments:
    if "\0" in argument:
      raise InputError("--", expected="text", got=repr(argument))


def _check_variables(job: Job) -> None:
  for setting in job.env:
    name, equals, value = setting.partition("=")
    if not _VARIABLE.fullmatch(name) or not equals or "\0" in value:
      raise InputError("--env", expected="NAME=VALUE", got=repr(name))
    if _SECRET.search(name):
      raise InputError(
        "--env",
        expected="no secrets: what is rendered can be read by others",
        got=name,
        fix=f"give --secrets={name} in its place",
      )
  for name in job.secrets:
    if not _VARIABLE.fullmatch(name):
      raise InputError(
        "--secrets",
        expected="the NAME of a variable alone",
        got=repr(name.partition("=")[0]),
      )


def _check_words(job: Job) -> None:
  """What stands in scripts and manifests as it is."""
  for part in (job.slurm, job.kubernetes, job.tpu_vm):
    for field in dataclasses.fields(part):
      value = getattr(part, field.name)
      form, such_as = _FORMS.get(field.name, (_WORD, "one word"))
      for word in value if isinstance(value, tuple) else filter(None, (value,)):
        if not form.fullmatch(word):
          raise InputError(f"--{field.name}", expected=such_as, got=repr(word))
