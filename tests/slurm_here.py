"""A Slurm of one node on this machine's loopback, for tests."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_SECONDS = 300
"""For anything to happen, on a machine that does much else."""


class Slurm:
  """Its commands."""

  def __init__(self, folder: Path, environment: dict[str, str]):
    self.folder = folder
    self.environment = environment

  def ask(self, *words: str) -> str:
    """What one of them prints."""
    return subprocess.run(
      words, env=self.environment, capture_output=True, text=True, check=True
    ).stdout.strip()

  def state(self, job: str) -> str:
    """Such as PENDING, RUNNING, COMPLETED or FAILED."""
    return self._shown(job)["JobState"]

  def restarts(self, job: str) -> int:
    return int(self._shown(job)["Restarts"])

  def wait_for(self, what, *, log: Path | None = None) -> None:
    """Until it is true."""
    until = time.monotonic() + _SECONDS
    while not what():
      said = log.read_text(errors="replace") if log and log.exists() else ""
      assert time.monotonic() < until, f"{self.ask('squeue')}\n{said}"
      time.sleep(0.1)

  def hasten(self, job: str) -> None:
    """Lets a job that was put back start soon, and not in two minutes.

    Within the second in which it was ended, the node would refuse it.
    """
    self.ask("scontrol", "update", f"JobId={job}", "StartTime=now+5")

  def _shown(self, job: str) -> dict[str, str]:
    words = self.ask("scontrol", "--oneliner", "show", "job", job).split()
    return dict(word.split("=", 1) for word in words if "=" in word)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Slurm]:
  """Starts it, and ends it with all its jobs."""
  for program in ("slurmctld", "slurmd", "sbatch", "srun"):
    if shutil.which(program) is None:
      pytest.skip(f"Slurm isn't here: no {program} (Debian: slurm-wlm)")
  conf = folder / "slurm.conf"
  conf.write_text(_configuration(folder))
  slurm = Slurm(folder, {**os.environ, "SLURM_CONF": str(conf)})
  with contextlib.ExitStack() as stack:
    for name in ("slurmctld", "slurmd"):
      log = stack.enter_context((folder / f"{name}.out").open("w"))
      daemon = subprocess.Popen(
        [name, "-D"], env=slurm.environment, stdout=log, stderr=log
      )
      stack.callback(daemon.wait, 30)
      stack.callback(daemon.terminate)
    slurm.wait_for(lambda: _is_idle(slurm), log=folder / "slurmd.out")
    try:
      yield slurm
    finally:
      slurm.ask("scancel", "--user", getpass.getuser())
      slurm.wait_for(lambda: not slurm.ask("squeue", "--noheader"))


def _is_idle(slurm: Slurm) -> bool:
  try:
    return slurm.ask("sinfo", "--noheader", "--format=%t") == "idle"
  except subprocess.CalledProcessError:  # not yet listening
    return False


def _configuration(folder: Path) -> str:
  user, controller, daemon = getpass.getuser(), _free_port(), _free_port()
  for name in ("state", "spool"):
    (folder / name).mkdir()
  return f"""
ClusterName=here
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=10
NodeName=localhost NodeAddr=127.0.0.1 CPUs=4
PartitionName=main Nodes=ALL Default=YES State=UP
"""


def _free_port() -> int:
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    return listener.getsockname()[1]
