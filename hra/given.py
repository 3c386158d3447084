"""Files about its tasks that a run is given, and their copies beside it.

Enters: what the files say that `KEPT` lists, and fingerprints of recorded noise and
rooms. Leaves: copies in the run's folder, which later calls are held to: a run is
trained under what it began with, wherever the files are by then.
"""

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from hra.claim import has_begun
from hra.config import Config
from hra.data import by_task
from hra.errors import InputError
from hra.files import read_json, write_json

KEPT = {
  "task_weights.json": "data.task_weights",
  "task_shares.json": "data.task_shares",
  "task_parts.json": "data.multistyle.parts",
  "task_settings.json": "train.task_settings",
}
"""The copies, {NAME: ...}, and the fields that name what they are copies of."""

SOUNDS = "sounds.json"
"""Fingerprints of the recorded sounds that perturb a run's utterances."""


def keep(
  workdir: epath.Path, config: Config, told: Iterable[Mapping[str, Any]]
) -> None:
  """Writes the copies, or compares with those of a run that has begun.

  Args:
    told: what each file says of the run's tasks, in the order of `KEPT`.

  Raises:
    InputError: a file says something else than its copy.
  """
  for source, copy, each in zip(
    _sources(config), _copies(workdir), told, strict=True
  ):
    if not source:
      continue
    if not copy.exists() or not has_begun(workdir):
      write_json(copy, each)
    elif read_json(copy) != each:
      raise _others(source, copy)


def keep_sounds(workdir: epath.Path, fingerprints: Mapping[str, str]) -> None:
  """Notes which recordings perturb a run's utterances, or sees that they do.

  Args:
    fingerprints: of recordings, by the field that names them.

  Raises:
    InputError: they are others than the run began with.
  """
  path = workdir / SOUNDS
  if not path.exists() or not has_begun(workdir):
    if fingerprints:
      write_json(path, fingerprints)
    return
  before = read_json(path)
  for field, fingerprint in fingerprints.items():
    if before.get(field) != fingerprint:
      raise InputError(
        f"config.data.multistyle.{field}",
        expected="the recordings that the run began with",
        got="others",
        fix="bring those back, or give a fresh --workdir",
      )


def check(workdir: epath.Path, config: Config, tasks: Sequence[str]) -> None:
  """Sees that files about a finished run's tasks say what they said.

  They may be gone, and they may name tasks that the run has forgotten.

  Raises:
    InputError: a file can't be read, or says something else than its copy.
  """
  for source, copy in zip(_sources(config), _copies(workdir), strict=True):
    if not source or not epath.Path(source).exists() or not copy.exists():
      continue
    before = read_json(copy)
    now = by_task.parse(source, expected="a JSON object of tasks")
    names = before.keys() | set(tasks)
    if {name: now[name] for name in names & now.keys()} != before:
      raise _others(source, copy)


def _sources(config: Config) -> list[str]:
  return [operator.attrgetter(field)(config) for field in KEPT.values()]


def _copies(workdir: epath.Path) -> list[epath.Path]:
  return [workdir / name for name in KEPT]


def _others(source: str, copy: epath.Path) -> InputError:
  return InputError(
    source,
    expected=f"the {copy.stem.partition('_')[2]} that the run began with ({copy})",
    got="others",
    fix="give a fresh --workdir, or that file's content",
  )
