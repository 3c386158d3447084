"""A sweep that a real Slurm does, on this machine's loopback."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import slurm_here

ROOT = Path(__file__).parents[2]

EXPERIMENT = """
from hra.config import Config

def get_config():
  return Config()
"""

# `hra sweep` whose runs are those of test_runner.py: one fails by bad input, one
# dies, one waits for SIGTERM until it has saved once.
SCRIPT = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
import test_runner
from hra.commands import main
from hra.sweeps import plan

def commands(sweep, run):
  saved = "saved" in test_runner._calls(run.folder.parent, run.name)
  modes = {{1: "fail", 2: "die", 3: "work" if saved else "hang"}}
  return test_runner._commands(modes)(run)

plan.commands = commands
main.run_verb("sweep")
"""


@pytest.mark.slow
def test_six_runs_as_an_array_then_what_is_left(tmp_path):
  (tmp_path / "slurm").mkdir()
  with slurm_here.running(tmp_path / "slurm") as here:
    _check(here, tmp_path)


def _tried(do, *words):
  """Whether Slurm does it; of a job that changes it says: try again later."""
  try:
    do(*words)
  except subprocess.CalledProcessError:
    return False
  return True


def _check(here, folder):
  script = SCRIPT.format(root=str(ROOT), tests=str(ROOT / "tests" / "sweeps"))
  python = folder / "python"
  run = shlex.join([sys.executable, "-c", script])
  python.write_text(f'#!/bin/sh\nshift 2\nexec {run} "$@"\n')
  python.chmod(0o755)
  (folder / "mine.py").write_text(EXPERIMENT)
  workdir = folder / "sweep"

  def submit():
    said = subprocess.run(
      [
        *(sys.executable, "-m", "launch.sweep", "--launcher=slurm"),
        *(f"--python={python}", f"--folder={folder}", "--retries=1"),
        *("--env=JAX_PLATFORMS=cpu", "--at_once=2", "--"),
        *(f"--config={folder / 'mine.py'}", f"--workdir={workdir}"),
        "--axis=seed=0,1,2,3,4,5",
      ],
      cwd=folder,  # where Slurm leaves its logs
      env={**here.environment, "PYTHONPATH": str(ROOT)},
      capture_output=True,
      text=True,
      check=False,
    )
    assert said.returncode == 0, said.stderr
    return said.stdout

  def calls(seed):
    path = workdir / f"seed={seed}" / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split()[0] for line in lines]

  said = submit()
  assert said.startswith("6 runs: ")
  array = said.split("--job=")[1].split(";")[0]
  here.wait_for(lambda: "ready" in calls(3))
  told = False

  def saved():
    nonlocal told
    if "saved" in calls(3):
      return True
    # It may refuse and tell the run all the same.
    told = told or _tried(here.ask, "scancel", "--signal=TERM", f"{array}_3")
    return False

  here.wait_for(saved)

  hastened = False

  def ended():
    nonlocal hastened
    waiting = ("squeue", "--noheader", "--states=PENDING", "--format=%i")
    back = f"{array}_3"
    # Once: each time puts the start off.
    if not hastened and back in here.ask(*waiting).split():
      hastened = _tried(here.hasten, back)
    return not here.ask("squeue", "--noheader")

  for seed in (0, 4, 5, 3):  # each within the time that is for one thing
    here.wait_for(lambda seed=seed: ended() or "evaluate" in calls(seed))
  last = said.split("; job ")[1].split()[0]
  here.wait_for(lambda: ended() or here.state(last) != "PENDING")
  here.wait_for(ended)
  runs = json.loads((workdir / "sweep.json").read_text())["runs"]
  statuses = [each["status"] for each in runs]
  assert statuses == ["done", "failed", "failed", *["done"] * 3]
  assert calls(0) == ["train", "trained", "evaluate"]
  assert calls(1) == ["train"]  # bad input: once
  assert calls(2) == ["train", "train"]  # it died: twice
  assert calls(3)[:3] == ["train", "ready", "saved"]
  assert submit().startswith("2 runs: ")
