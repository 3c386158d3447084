"""A job -> processes on this machine, kept running until it is done.

A job that was interrupted (exit code 75: it saved first) ends here too; when one of
its processes was killed or crashed, all are started again and go on from their last
checkpoint. Bad input (exit code 2) is not tried again.
"""

import os
import shlex
import socket
import sys

from hra import cluster
from hra.errors import InputError
from launch import accelerators, running, submitting
from launch.job import Job, check_unused, command, environment, shell

_NAME = "workstation"


def render(job: Job) -> str:
  """A line for each process, as a shell would start it."""
  there = f"cd {shlex.quote(job.folder)} && " if job.folder else ""
  return "".join(
    f"{there}{shell(each.words, each.variables)}\n" for each in commands(job)
  )


def launch(job: Job) -> int:
  """Runs the job to its end."""
  submitting.check_set(job.secrets)
  commands(job)  # refuses before anything is started
  return running.keep_running(
    lambda: running.together(commands(job), grace=job.grace),
    retries=job.retries,
    pause=job.pause,
  )


def commands(job: Job) -> list[running.Command]:
  """The processes of one start; they meet at a port that is free now."""
  check_unused(
    job,
    ("cpus", "memory_gib", "hours", "slurm", "kubernetes", "tpu_vm"),
    _NAME,
  )
  if job.hosts > 1 or isinstance(job.devices, accelerators.Tpus):
    raise InputError(
      "--hosts" if job.hosts > 1 else "--accelerator",
      expected=f"this machine alone with --launcher={_NAME}",
      got=str(job.hosts) if job.hosts > 1 else repr(job.accelerator),
      fix="--launcher=slurm, jobset or tpu_vm for others",
    )
  count = job.processes or 1
  words = command(job, python=sys.executable)
  port = 0 if count == 1 else job.port or _free_port()
  return [
    running.Command(words, _variables(job, index, count, port), job.folder)
    for index in range(count)
  ]


def _variables(job: Job, index: int, count: int, port: int) -> dict[str, str]:
  gpus = _gpus(job, index, count)
  if count == 1:
    alone = {"JAX_CUDA_VISIBLE_DEVICES": gpus} if gpus else {}
    return {**alone, **environment(job, inherited=os.environ)}
  return {
    cluster.ADDRESS: f"127.0.0.1:{port}",
    cluster.COUNT: str(count),
    cluster.INDEX: str(index),
    **environment(job, inherited=os.environ),
    **({"JAX_LOCAL_DEVICE_IDS": gpus} if gpus else {}),
  }


def _gpus(job: Job, index: int, count: int) -> str:
  """One process's share of those that this one may see; empty where none is named."""
  if not isinstance(job.devices, accelerators.Gpus):
    return ""
  share, rest = divmod(job.devices.per_host, count)
  if rest or not share:
    raise InputError(
      "--processes",
      expected=f"a number that divides {job.devices.per_host} GPUs",
      got=str(count),
    )
  return ",".join(map(str, range(index * share, (index + 1) * share)))


def _free_port() -> int:
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    return listener.getsockname()[1]
