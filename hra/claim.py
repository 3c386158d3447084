"""A run's folder: whose it is, and what it says of itself.

Enters: a configuration, the names of tasks, a backbone's fingerprint. Leaves:
config.json (resolved, with versions and git hash) and tasks.json (`hra.members`); or
an error that says in what the folder's run is another.
"""

import contextlib
import dataclasses
import importlib.metadata
import operator
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from hra import config_tree, members, processes
from hra.config import Config
from hra.errors import InputError
from hra.files import (
  absolute,
  await_shared,
  is_remote,
  locked,
  read_json,
  storage,
  write_json,
)

FREE = (
  "config.mesh.",
  "config.backbone.decoder.chunk",
  "config.data.eval_batch",
  "config.data.max_seconds",  # it only refuses
  "config.data.prefetch",
  "config.data.threads",
  "config.data.test_split",
  "config.train.log_every",
  "config.train.save_seconds",
  "config.train.keep",  # and keep_best
  "config.train.stall",  # stall_seconds, stall_abort
  "config.train.profile_steps",
)
"""Beginnings of fields that change neither what is trained nor its results."""

RESCORED = (
  "config.evaluate.bootstrap",
  "config.evaluate.confidence",
  "config.evaluate.seed",
)
"""Fields that change a trained run's results. Like those above, they may change
between two calls of one run; the normaliser may not: it chose the best rows."""

FILES = (
  "tokenizer",
  "sentences.text",
  "sentences.dev_text",
  "data.task_weights",
  "data.task_shares",
  "data.multistyle.parts",
  "data.multistyle.noise_files",
  "data.multistyle.responses",
  "train.task_settings",
  "train.rows_from",
)
"""Fields that name files which a run is given."""

_FORMER = ("noise_probability", "snr_low", "snr_high")
"""Fields that `data` had before there was `data.multistyle`."""

ENROLLED = "enrolled"
"""The folder, in a run's, of the runs that added tasks to it."""

ENROLMENT = "enrolment.json"
"""How tasks were added to another run: the mark of a run that did that."""

JOURNAL = "forgetting.json"
"""Stands in a run's folder for as long as a task is being removed from it."""

_DATA = "data_fingerprint"
"""Absent where a task was forgotten since: the others' data are known again by
the first who opens the run."""
_BOUNDS = "bucket_bounds"
"""In samples, as a run began with: others, cut from data that changed, would be other
minibatches. Absent from older runs."""
_VERSIONED = ("hra", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")


def claim(
  workdir: epath.Path,
  config: Config,
  tasks: Sequence[str],
  *,
  backbone: str,
  data: str,
  bounds: Sequence[int],
) -> None:
  """Writes config.json and tasks.json, or sees that they say the same.

  Of several processes the first does; the others see that they say the same.

  Args:
    backbone: its fingerprint.
    data: theirs, as trained and judged on.
    bounds: ends of the length buckets, in samples.

  Raises:
    InputError: the folder is another run's; it can't be written, or is not one for
      all processes.
  """
  told = {"backbone": backbone, "data": data}
  processes.first_does(
    lambda: _claim(workdir, config, tasks, bounds=bounds, told=told)
  )
  if processes.is_first():
    return
  path = workdir / "config.json"
  await_shared(path)
  _check_same(path, _without_forgotten(config, workdir), tasks, told)


def _claim(
  workdir: epath.Path,
  config: Config,
  tasks: Sequence[str],
  *,
  bounds: Sequence[int],
  told: Mapping[str, str],
) -> None:
  """Args:
  told: fingerprints of `backbone` and `data`.
  """
  _check_whole(workdir)
  config = _without_forgotten(config, workdir)
  path = workdir / "config.json"
  # What was refused before its first step gives way to what mends it.
  if path.exists() and has_begun(workdir):
    _check_same(path, config, tasks, told)
    described = read(workdir)
    changed = config_of(described, path) != config  # in what may change
    if changed or not described.keys() >= {_DATA, _BOUNDS}:
      kept = {_DATA: told["data"], _BOUNDS: list(bounds), **described}
      write_json(path, {**kept, "config": config_tree.to_dict(config)})
    return
  with storage(workdir, expected="a run's folder that can be made"):
    workdir.mkdir(parents=True, exist_ok=True)
  described = {
    "config": config_tree.to_dict(config),
    "backbone_fingerprint": told["backbone"],
    _DATA: told["data"],
    _BOUNDS: list(bounds),
    "versions": {name: importlib.metadata.version(name) for name in _VERSIONED},
    "git": _git_hash(),
  }
  members.name_tasks(workdir, tasks)
  write_json(path, described)


def alone(
  workdir: epath.Path, *, begins: bool = False
) -> contextlib.AbstractContextManager[Any]:
  """Keeps other commands from changing a run meanwhile, or what was added to it.

  On gs:// and s3:// there are no locks: there one command at a time is up to who
  starts them.

  Of several processes of a job the first keeps others out.

  Args:
    begins: whether the command may begin a run: the folder is made.

  Raises:
    InputError: on entering, another command is at work in the run's folder.
  """
  folder = parent_of(workdir) or workdir
  if is_remote(folder) or not processes.is_first():
    return contextlib.nullcontext()
  if begins:
    with storage(folder, expected="a run's folder that can be made"):
      folder.mkdir(parents=True, exist_ok=True)
  if not folder.is_dir():
    return contextlib.nullcontext()
  return locked(folder, fix="stop it")


def has_begun(workdir: epath.Path) -> bool:
  """Whether a folder holds anything of a job: a checkpoint or a metric."""
  metrics, checkpoints = workdir / "metrics.jsonl", workdir / "checkpoints"
  with storage(workdir, expected="a run's folder that can be read"):
    steps = checkpoints.iterdir() if checkpoints.exists() else ()
    logged = metrics.exists() and bool(metrics.read_bytes())
    return logged or any(each.name.isdigit() for each in steps)


def read(workdir: epath.Path) -> dict[str, Any]:
  """What config.json says.

  Raises:
    InputError: the folder is no run's, or a task is half removed from it.
  """
  _check_whole(workdir)
  return read_config(workdir)


def read_config(workdir: epath.Path) -> dict[str, Any]:
  """`read`, also while a task is being removed."""
  path = workdir / "config.json"
  if not path.exists():
    raise InputError(
      path,
      expected="a run's folder",
      got="no such file",
      fix="give the --workdir of `hra train` or `hra quickstart`",
    )
  return read_json(path, keys=("config", "backbone_fingerprint"))


def bounds_of(workdir: epath.Path) -> tuple[int, ...]:
  """Ends of the length buckets that a run began with; none where none has begun."""
  if not has_begun(workdir) or not (workdir / "config.json").exists():
    return ()
  return tuple(read(workdir).get(_BOUNDS, ()))


def enrolments(workdir: epath.Path) -> list[epath.Path]:
  """The folders of the runs that added tasks to a run."""
  folder = workdir / ENROLLED
  with storage(folder, expected="a folder that can be read"):
    return sorted(folder.iterdir()) if folder.is_dir() else []


def parent_of(workdir: epath.Path) -> epath.Path | None:
  """The run that a run added tasks to, if it is one that does that."""
  if workdir.parent.name != ENROLLED or not (workdir / ENROLMENT).exists():
    return None
  return workdir.parent.parent


def _check_whole(workdir: epath.Path) -> None:
  for folder in (workdir, parent_of(workdir)):
    if folder is not None and (folder / JOURNAL).exists():
      task = read_json(folder / JOURNAL, keys=("task",))["task"]
      command = f"hra forget --workdir={folder} --task={shlex.quote(task)}"
      raise InputError(
        folder,
        expected="a run that nothing is being removed from",
        got=f"one with task {task!r} half forgotten",
        fix=f"give this command again: {command}",
      )


def _without_forgotten(config: Config, workdir: epath.Path) -> Config:
  """The configuration that a run has kept since it forgot tasks."""
  hashes = members.absent(workdir)
  left = tuple(
    t for t in config.data.tasks if members.task_hash(t) not in hashes
  )
  data = dataclasses.replace(config.data, tasks=left)
  return dataclasses.replace(config, data=data)


def forget_task(workdir: epath.Path, task: str) -> None:
  """Takes a task out of tasks.json and config.json; its hash stays."""
  members.forget(workdir, task)
  described = read_config(workdir)
  config = config_of(described, workdir / "config.json")
  config = _without_forgotten(config, workdir)
  described = {**described, "config": config_tree.to_dict(config)}
  described.pop(_DATA, None)
  write_json(workdir / "config.json", described)


def _check_same(
  path: epath.Path,
  config: Config,
  tasks: Sequence[str],
  told: Mapping[str, str],
) -> None:
  described = read(path.parent)
  before = _fields(config_of(described, path))
  before |= {
    "backbone": described["backbone_fingerprint"],
    "tasks": members.tasks_of(path.parent),
    "data": described.get(_DATA, told["data"]),
  }
  now = _fields(config)
  now |= {"tasks": list(tasks), **told}
  for field in sorted(before.keys() | now.keys()):
    if field.startswith((*FREE, *RESCORED)):
      continue
    if before.get(field) != now.get(field):
      raise InputError(
        f"{path}: {field}",
        expected=_short(before.get(field)),
        got=_short(now.get(field)),
        fix=_same_again(path.parent, field),
      )


def _same_again(workdir: epath.Path, field: str) -> str:
  if parent_of(workdir):
    return (
      "give the options and recordings that it began with, or hra forget first"
    )
  if field == "data":
    return (
      "these are other recordings or transcripts than the run began with: bring "
      "those back, or begin another run"
    )
  return "this folder is another run's: give a fresh --workdir, or its config"


def config_of(described: Mapping[str, Any], path: epath.Path) -> Config:
  """What a run's config.json says, with absolute paths to files about tasks."""
  return with_files(stored_config(described["config"], path=str(path)))


def stored_config(fields: Mapping[str, Any], *, path: str) -> Config:
  """A configuration as any version wrote it.

  A field newer than the run has its default. Noise was said by `noise_probability`,
  `snr_low` and `snr_high` in `data`, and SpecAugment came on top of it.

  Raises:
    hra.config_tree.ConfigError: as `hra.config_tree.from_dict`.
  """
  data = fields.get("data") if isinstance(fields, Mapping) else None
  if isinstance(data, Mapping) and not data.keys().isdisjoint(_FORMER):
    former = {name: data[name] for name in _FORMER if name in data}
    left = {name: data[name] for name in data.keys() - set(_FORMER)}
    part = former.pop("noise_probability", 0)
    if part:
      former |= {"part": part, "noise": "coloured", "mix": "both"}
    fields = {**fields, "data": {**left, "multistyle": former}}
  return config_tree.from_dict(Config, fields, path=path)


def _fields(config: Config) -> dict[str, Any]:
  return config_tree.flat(config_tree.to_dict(config), prefix="config.")


def _short(value: Any, *, most: int = 80) -> str:
  text = repr(value)
  return text if len(text) <= most else f"{text[:most]}..."


def _git_hash() -> str | None:
  """The checkout's commit, where the program runs from one."""
  try:
    done = subprocess.run(
      ["git", "rev-parse", "HEAD"],
      cwd=epath.Path(__file__).parent,
      capture_output=True,
      text=True,
      check=True,
    )
  except (OSError, subprocess.CalledProcessError):
    return None
  return done.stdout.strip()


def with_files(config: Config) -> Config:
  """The configuration with absolute paths to the files that it names."""
  for field in FILES:
    given = operator.attrgetter(field)(config)
    if given:
      path = str(absolute(given))
      config = config_tree.replaced(config, field, path)
  return config
