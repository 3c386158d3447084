"""Where a job may run: each place's renderer, in one table."""

from collections.abc import Callable
from typing import NamedTuple

from launch import jobset, slurm, tpu_vm, workstation
from launch.job import Job, Submission


class Launcher(NamedTuple):
  """One place."""

  render: Callable[[Job], str | Submission]
  """What would be run, as a shell runs it, or what a scheduler would be given."""
  launch: Callable[[Job], int]
  """Does it; the exit code."""


LAUNCHERS = {
  "workstation": Launcher(workstation.render, workstation.launch),
  "tpu_vm": Launcher(tpu_vm.render, tpu_vm.launch),
  "slurm": Launcher(slurm.render, slurm.launch),
  "jobset": Launcher(jobset.render, jobset.launch),
}
