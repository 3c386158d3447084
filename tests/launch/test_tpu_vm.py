"""The script that gcloud brings to a TPU VM's workers, run by a stand-in for gcloud."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from launched import HARD

from launch import tpu_vm
from launch.job import Job

ROOT = Path(__file__).parents[2]
GCLOUD = """#!/bin/bash
# Runs --command, and hides how it ended.
echo "$*" | head -1 >> calls
for argument in "$@"; do
  case "$argument" in
  --command=*) bash -c "${argument#--command=}" ;;
  esac
done
exit 0
"""
PYTHON = """#!/bin/bash
trap 'exit 75' TERM
printf x >> starts
printf '%s\\0' "$NOTE" "$@" > words
while [ ! -e code ]; do sleep 0.05; done
echo last word || exit 141
exit "$(cat code)"
"""


class Vm:
  """A worker of a TPU VM, which is a folder."""

  def __init__(self, folder: Path):
    self.folder = folder
    self.name = f"test-{os.getpid()}"
    self.jobs: list[subprocess.Popen[bytes]] = []
    for name, text in (("gcloud", GCLOUD), ("python", PYTHON)):
      path = folder / name
      path.write_text(text)
      path.chmod(0o755)

  def launch(self, *flags: str) -> subprocess.Popen[bytes]:
    """Starts a job there."""
    path = f"{self.folder}:{os.environ['PATH']}"
    job = subprocess.Popen(
      [
        *(sys.executable, "-m", "launch", "--launcher=tpu_vm", "--tpu=mine"),
        *("--zone=here", f"--folder={self.folder}", f"--name={self.name}"),
        *(f"--python={self.folder}/python", f"--env=NOTE={HARD}", *flags),
        *("--pause=0", "--", "train", f"--workdir={HARD}"),
      ],
      cwd=self.folder,
      env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
    )
    self.jobs.append(job)
    return job

  def wait_for_starts(self, number: int) -> None:
    until = time.monotonic() + 60
    path = self.folder / "starts"
    while (
      not self.pid_file.exists()
      or not path.exists()
      or len(path.read_text()) < number
    ):
      assert time.monotonic() < until
      time.sleep(0.05)

  def end_with(self, code: int) -> None:
    (self.folder / "code").write_text(str(code))

  @property
  def pid_file(self) -> Path:
    return Path(f"/tmp/hra-{self.name}.pid")

  @property
  def log(self) -> Path:
    return self.pid_file.with_suffix(".log")


@pytest.fixture
def vm(tmp_path) -> Iterator[Vm]:
  made = Vm(tmp_path)
  yield made
  made.end_with(0)
  for job in made.jobs:
    job.kill()
    job.wait()
  made.pid_file.unlink(missing_ok=True)
  made.log.unlink(missing_ok=True)


def test_workers_say_how_they_ended(vm):
  """Whatever gcloud makes of it: bad input is not tried again."""
  vm.end_with(2)
  assert vm.launch().wait(60) == 2
  words = (vm.folder / "words").read_text().split("\0")[:-1]
  assert words == [HARD, "-m", "hra.commands.train", f"--workdir={HARD}"]
  [call] = (vm.folder / "calls").read_text().splitlines()
  assert "tpu-vm ssh mine --zone=here --worker=all --command=" in call


def test_what_a_worker_prints_is_shown(vm, capfd):
  vm.log.write_text("of an earlier start\n")
  vm.end_with(0)
  assert vm.launch().wait(60) == 0
  assert capfd.readouterr().out == "last word\nhra ended with 0\n"
  assert vm.log.read_text() == "of an earlier start\nlast word\n"


def test_a_worker_whose_connection_is_lost_goes_on(vm):
  job = Job(
    arguments=("train",),
    name=vm.name,
    python=f"{vm.folder}/python",
    folder=str(vm.folder),
  )
  shell = subprocess.Popen(
    ["bash", "-c", tpu_vm.script(job)], stdout=subprocess.PIPE
  )
  shell.stdout.close()
  vm.wait_for_starts(1)
  vm.end_with(7)
  shell.wait(60)
  assert vm.log.read_text() == "last word\n"


def test_what_died_is_started_again(vm):
  vm.end_with(1)
  assert vm.launch("--retries=1").wait(60) == 1
  assert (vm.folder / "starts").read_text() == "xx"


def test_a_signal_reaches_the_workers(vm):
  job = vm.launch()
  vm.wait_for_starts(1)
  os.kill(job.pid, signal.SIGTERM)
  assert job.wait(60) == 75
  assert (vm.folder / "starts").read_text() == "x"


def test_what_an_earlier_start_left_is_ended_first(vm):
  """As after a connection that was lost: it would hold the chips."""
  left = subprocess.Popen(
    [f"{vm.folder}/python", "-m", "hra.commands.train"], cwd=vm.folder
  )
  vm.pid_file.write_text(str(left.pid))
  vm.wait_for_starts(1)
  job = vm.launch()
  assert left.wait(60) == 75
  vm.wait_for_starts(2)
  vm.end_with(0)
  assert job.wait(60) == 0
