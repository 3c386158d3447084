"""A job -> a script that gcloud's ssh runs on all workers of a TPU VM.

Each worker has one process, and `jax.distributed` finds the others in the VM's own
metadata. It writes to a log on its worker, of which the connection shows what is new:
one that is lost doesn't end what runs. So each start first ends what an earlier one
left, which would hold the chips. SIGTERM and Ctrl-C here are handed on to all workers,
and what died is started again.
"""

import re
import shlex
import subprocess

from hra.errors import InputError
from launch import accelerators, running
from launch.job import (
  BAD_INPUT,
  Job,
  check_unused,
  command,
  environment,
  required,
)

_NAME = "tpu_vm"
_UNUSED = (
  "processes",
  "cpus",
  "memory_gib",
  "hours",
  "port",
  "secrets",
  "slurm",
  "kubernetes",
)
_ENDED = re.compile(r"hra ended with ([0-9]+)$")


def render(job: Job) -> str:
  """The command line of gcloud, as a shell would run it."""
  return f"{shlex.join(gcloud(job, script(job)))}\n"


def launch(job: Job) -> int:
  """Runs the job to its end."""
  return running.keep_running(
    lambda: _run(job), retries=job.retries, pause=job.pause
  )


def gcloud(job: Job, remote: str) -> tuple[str, ...]:
  """Runs a script on all workers."""
  check_unused(job, _UNUSED, _NAME)
  devices = job.devices
  if isinstance(devices, accelerators.Gpus) or (devices and devices.slices > 1):
    raise InputError(
      "--accelerator",
      expected=f"one slice of TPUs with --launcher={_NAME}",
      got=repr(job.accelerator),
      fix="--launcher=jobset for several",
    )
  if devices and job.hosts not in (0, devices.hosts):
    raise InputError(
      "--hosts", expected=f"{devices.hosts}, or none", got=str(job.hosts)
    )
  vm = job.tpu_vm
  project = (f"--project={vm.project}",) if vm.project else ()
  return (
    *("gcloud", "compute", "tpus", "tpu-vm", "ssh"),
    required(vm.tpu, "tpu", _NAME, "the TPU VM's name"),
    f"--zone={required(vm.zone, 'zone', _NAME, 'such as --zone=us-central2-b')}",
    *project,
    "--worker=all",
    f"--command={remote}",
  )


def script(job: Job) -> str:
  """What each worker runs; it says how the process ended, as gcloud may not."""
  words = shlex.join(command(job))
  lines = [
    *(
      [f"cd {shlex.quote(job.folder)} || exit {BAD_INPUT}"]
      if job.folder
      else []
    ),
    f"pid={_file(job, 'pid')}",
    'left=$(cat "$pid" 2>/dev/null)',
    'if [ -n "$left" ] && grep -qs hra.commands "/proc/$left/cmdline"; then',
    '  kill -TERM "$left"',
    f"  for _ in $(seq {job.grace}); do",
    '    kill -0 "$left" 2>/dev/null || break',
    "    sleep 1",
    "  done",
    '  kill -KILL "$left" 2>/dev/null',
    "fi",
    *(
      f"export {name}={shlex.quote(value)}"
      for name, value in environment(job).items()
    ),
    f"log={_file(job, 'log')}",
    ': >> "$log"',
    'shown=$(wc -c < "$log")',
    f'{words} >> "$log" 2>&1 &',
    'echo "$!" > "$pid"',
    'tail --pid="$!" --sleep-interval=0.5 -f -c "+$((shown + 1))" "$log"',
    'wait "$!"',
    "code=$?",
    'echo "hra ended with $code"',
    'exit "$code"',
  ]
  return "\n".join(lines)


def _run(job: Job) -> running.Ended:
  codes: list[int] = []

  def read(line: str) -> None:
    if ended := _ENDED.search(line):
      codes.append(int(ended[1]))

  def stop(number: int) -> None:
    del number
    ending = f'kill -TERM "$(cat {_file(job, "pid")})"'
    subprocess.Popen(gcloud(job, ending), start_new_session=True)

  ended = running.together(
    [running.Command(gcloud(job, script(job)), {})],
    grace=job.grace,
    stop=stop,
    read=read,
  )
  return ended._replace(code=running.outcome(codes)) if codes else ended


def _file(job: Job, suffix: str) -> str:
  return f"/tmp/hra-{job.name}.{suffix}"
