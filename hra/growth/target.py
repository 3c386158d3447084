"""The run that tasks are added to or removed from."""

from etils import epath

from hra import claim, jobs
from hra.config import Config
from hra.errors import InputError


def check(workdir: epath.Path, *, fix: str) -> Config:
  """The configuration of a run whose tasks come and go.

  Args:
    fix: what to do instead with a run that knows no tasks.

  Raises:
    InputError: the folder is no run's, an enrolment's, or of a run that pretrains
      or pools.
  """
  config = claim.config_of(claim.read(workdir), workdir / "config.json")
  parent = claim.parent_of(workdir)
  if parent is not None:
    raise InputError(
      workdir,
      expected="the run whose tasks were trained together",
      got="one that added tasks to it",
      fix=f"give --workdir={parent}",
    )
  if config.train.mode != "adapt" or config.data.grouping != "task":
    raise InputError(
      workdir,
      expected="a run that adapted a frozen backbone to tasks",
      got="one that knows no tasks",
      fix=fix,
    )
  return config


def check_finished(workdir: epath.Path, *, instead: str = "") -> None:
  """Whether nothing is left to train of a run.

  Args:
    instead: what else can be done than to train it to its end.

  Raises:
    InputError: it is not trained and exported.
  """
  if not jobs.is_finished(workdir):
    raise InputError(
      workdir,
      expected="a finished run",
      got="one that was not trained to its end and exported",
      fix=f"give the command that trains it again{instead}",
    )
