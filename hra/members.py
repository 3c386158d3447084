"""A run's tasks: their names, and those that it does without.

Enters: a run's folder, names. Leaves: tasks.json. Of a task that left, a hash stays
and its name does not.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath

from hra.files import read_json, storage, write_json
from hra.keys import stable_hash

TASKS = "tasks.json"
"""The names of a run's tasks, in the order of the table's rows."""

_FORGOTTEN, _LEFT_OUT = "forgotten", "left_out"
"""Hashes, in tasks.json: of tasks that left the run, and of those that it was to do
without from its beginning."""


def tasks_of(workdir: epath.Path) -> list[str]:
  """The names of a run's tasks; none where no run has begun."""
  return _told(workdir).get("tasks", [])


def name_tasks(workdir: epath.Path, tasks: Sequence[str]) -> None:
  """Says which tasks a run that has not begun is to have."""
  write_json(workdir / TASKS, {**_told(workdir), "tasks": list(tasks)})


def _told(workdir: epath.Path) -> dict[str, Any]:
  """What tasks.json says; nothing where no run has begun."""
  path = workdir / TASKS
  return read_json(path, keys=("tasks",)) if path.exists() else {}


def forget(workdir: epath.Path, task: str) -> None:
  """Takes a task out; its hash stays."""
  told = _told(workdir)
  hashes = sorted({*told.get(_FORGOTTEN, ()), task_hash(task)})
  left = [name for name in told["tasks"] if name != task]
  write_json(workdir / TASKS, {**told, "tasks": left, _FORGOTTEN: hashes})


def leave_out(workdir: epath.Path, hashes: Iterable[str]) -> None:
  """Begins a run that does without some tasks of its data."""
  with storage(workdir, expected="a run's folder that can be made"):
    workdir.mkdir(parents=True, exist_ok=True)
  write_json(workdir / TASKS, {"tasks": [], _LEFT_OUT: sorted(hashes)})


def task_hash(task: str) -> str:
  """How a forgotten task is remembered: so that its name is not."""
  return f"{stable_hash(task):016x}"


def forgotten(workdir: epath.Path) -> frozenset[str]:
  """The hashes of the tasks that a run has forgotten."""
  return frozenset(_told(workdir).get(_FORGOTTEN, ()))


def left_out(workdir: epath.Path) -> frozenset[str]:
  """The hashes of the tasks that a run was to do without from its beginning."""
  return frozenset(_told(workdir).get(_LEFT_OUT, ()))


def absent(workdir: epath.Path) -> frozenset[str]:
  """The hashes of tasks that the data may have and the run has not."""
  return forgotten(workdir) | left_out(workdir)
