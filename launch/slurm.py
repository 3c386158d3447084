"""A job -> a batch script of Slurm; several jobs that differ in little -> an array.

The script starts one task a process and looks at how they ended: what was interrupted
(75: it saved first) is put back into the queue, what died is started again at once, bad
input (2) ends. `jax.distributed` finds hosts and ranks in Slurm's own variables.
"""

import dataclasses
import math
import os
import shlex
import sys
from collections.abc import Sequence

from hra import cluster
from hra.errors import InputError
from launch import accelerators, submitting
from launch.job import (
  BAD_INPUT,
  INTERRUPTED,
  TERMINATED,
  Job,
  Submission,
  check_unused,
  command,
  environment,
)

_NAME = "slurm"
MOST_ELEMENTS = 1000
"""Of an array, where Slurm's MaxArraySize is what it is by default."""
_GRACE_LIMIT = 2**16 - 1
"""Of the seconds of sbatch's --signal."""
_OTHERS = (cluster.ADDRESS, cluster.COUNT, cluster.INDEX)
"""Of a job that is no job of Slurm's."""


def render(job: Job) -> Submission:
  """What `sbatch` reads."""
  return _submission(job, _words(job), output="%j")


def render_array(
  jobs: Sequence[Job], *, name: str, at_once: int = 0
) -> Submission:
  """One array, whose elements are the jobs in their order.

  Args:
    jobs: alike but for their names and what they run; at most `MOST_ELEMENTS`.
    name: the array's.
    at_once: how many may run at a time; 0 is any number.
  """
  first = dataclasses.replace(jobs[0], name=name)
  for job in jobs:
    same = dataclasses.replace(job, name=first.name, arguments=first.arguments)
    if same != first:
      raise ValueError(f"{job.name} is unlike {jobs[0].name}")
  lines = ['case "$SLURM_ARRAY_TASK_ID" in']
  for number, job in enumerate(jobs):
    lines += [f"{number}) {_words(job)[0]} ;;"]
  limit = f"%{at_once}" if at_once else ""
  return _submission(
    first,
    [*lines, "esac"],
    output="%A_%a",
    options=[f"--array=0-{len(jobs) - 1}{limit}"],
  )


def launch(job: Job) -> int:
  """Submits the job."""
  number = submit(render(job), secrets=job.secrets)
  print(f"job {number}: squeue --job={number}")
  return 0


def submit(submission: Submission, *, secrets: Sequence[str] = ()) -> str:
  """Slurm's number of the job.

  Raises:
    InputError: there is no Slurm here, or it refuses; a secret is not set.
  """
  submitting.check_set(secrets)
  return submitting.submit(submission, "Slurm").split(";")[0]


def _words(job: Job) -> list[str]:
  return [f"hra=({shlex.join(command(job, python=sys.executable))})"]


def _submission(
  job: Job, words: list[str], *, output: str, options: Sequence[str] = ()
) -> Submission:
  lines = [
    "#!/bin/bash",
    *(f"#SBATCH {each}" for each in (*_options(job, output), *options)),
    "set -u",
    *(
      [f"cd {shlex.quote(job.folder)} || exit {BAD_INPUT}"]
      if job.folder
      else []
    ),
    f"unset {' '.join(_OTHERS)}",
    *(
      f"export {name}={shlex.quote(value)}"
      for name, value in _variables(job).items()
    ),
    *words,
    *_loop(job),
  ]
  return Submission(("sbatch", "--parsable"), "\n".join([*lines, ""]))


def _options(job: Job, output: str) -> list[str]:
  check_unused(job, ("pause", "port", "kubernetes", "tpu_vm"), _NAME)
  devices = job.devices
  if isinstance(devices, accelerators.Tpus):
    raise InputError(
      "--accelerator",
      expected=f"gpu:N with --launcher={_NAME}",
      got=repr(job.accelerator),
      fix="--launcher=jobset or tpu_vm for TPUs",
    )
  if job.grace > _GRACE_LIMIT:
    raise InputError(
      "--grace",
      expected=f"at most {_GRACE_LIMIT} seconds with --launcher={_NAME}",
      got=str(job.grace),
    )
  gpus = devices.per_host if devices else 0
  slurm = job.slurm
  chosen = {
    "job-name": job.name,
    "partition": slurm.partition,
    "account": slurm.account,
    "nodes": job.hosts or 1,
    "ntasks-per-node": _tasks(job, gpus),
    "cpus-per-task": job.cpus,
    "mem": f"{job.memory_gib}G" if job.memory_gib else "",
    "gpus-per-node": gpus,
    "time": math.ceil(job.hours * 60),
    "signal": f"TERM@{job.grace}",
    "output": f"{job.name}-{output}.out",
    "open-mode": "append",
    "export": "ALL",
  }
  return [
    *(f"--{name}={value}" for name, value in chosen.items() if value),
    "--requeue",
    *slurm.options,
  ]


def _tasks(job: Job, gpus: int) -> int:
  """Processes a node: one for each GPU, or one for all of them."""
  tasks = job.processes or max(gpus, 1)
  if gpus and tasks not in (1, gpus):
    raise InputError(
      "--processes",
      expected=f"1 or {gpus} on nodes of {gpus} GPUs",
      got=str(tasks),
    )
  return tasks


def _variables(job: Job) -> dict[str, str]:
  variables = environment(job, inherited=os.environ)
  devices = job.devices
  if isinstance(devices, accelerators.Gpus) and job.processes == 1:
    # JAX gives a task of Slurm one GPU unless it is told otherwise.
    every = ",".join(str(each) for each in range(devices.per_host))
    variables.setdefault("JAX_LOCAL_DEVICE_IDS", every)
  return variables


def _loop(job: Job) -> list[str]:
  """Runs the tasks until they end well, are interrupted or have died too often.

  Nobody kills the tasks that are left when one ends: they notice it themselves,
  and would hide its exit code. SIGTERM reaches the script itself where Slurm ends
  the job, by scancel or for another one: what follows is Slurm's affair then.
  """
  cpus = f" --cpus-per-task={job.cpus}" if job.cpus else ""
  return [
    "ending=",
    "trap 'ending=yes' TERM",
    f"for start in $(seq {job.retries + 1}); do",
    f'  srun --label --kill-on-bad-exit=0 --wait=0{cpus} "${{hra[@]}}"',
    "  code=$?",
    '  [ -z "$ending" ] || exit "$code"',
    '  case "$code" in',
    f'  0|{BAD_INPUT}) exit "$code" ;;',
    f'  {INTERRUPTED}|{TERMINATED}) exec scontrol requeue "$SLURM_JOB_ID" ;;',
    "  esac",
    f'  echo "start $start of {job.retries + 1} died (exit code $code)" >&2',
    "done",
    'exit "$code"',
  ]
