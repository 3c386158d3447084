"""Jobs that a real Slurm runs, on this machine's loopback."""

import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import corpus
import pytest
import slurm_here

from launch import slurm
from launch.job import Job

ROOT = Path(__file__).parents[2]
EXPERIMENT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import corpus

def get_config():
  config = corpus.config(Path({data!r}), Path({backbone!r}))
  config.train.steps = 40
  config.train.log_every = 1
  return config
"""
TERMINABLE = "trap 'exit 75' TERM; touch begun; while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
  with slurm_here.running(tmp_path_factory.mktemp("slurm")) as running:
    yield running


def _interpreter(folder: Path, *lines: str) -> str:
  """What runs in place of Python; each start adds an x to `starts`."""
  path = folder / "python"
  path.write_text(
    "\n".join(["#!/bin/sh", f"cd {shlex.quote(str(folder))}", *lines, ""])
  )
  path.chmod(0o755)
  return str(path)


def _job(folder: Path, *lines: str, **fields) -> Job:
  python = _interpreter(folder, "printf x >> starts", *lines)
  return Job(
    arguments=("train", "--workdir=runs/mine"),
    python=python,
    folder=str(folder),
    **fields,
  )


def _submit(here, job: Job, monkeypatch) -> str:
  monkeypatch.chdir(here.folder)
  monkeypatch.setenv("SLURM_CONF", here.environment["SLURM_CONF"])
  return slurm.submit(slurm.render(job))


def _launch(here, folder: Path, *flags: str) -> str:
  """Submits two tasks by the command; the job's number."""
  said = subprocess.run(
    [
      *(sys.executable, "-m", "launch", "--launcher=slurm", "--processes=2"),
      *("--env=JAX_PLATFORMS=cpu", *flags),
    ],
    cwd=ROOT,
    env={**here.environment, "SBATCH_OUTPUT": str(folder / "log")},
    capture_output=True,
    text=True,
  )
  assert said.returncode == 0, said.stderr
  return said.stdout.split(":")[0].removeprefix("job ")


def _starts(folder: Path) -> int:
  path = folder / "starts"
  return len(path.read_text()) if path.exists() else 0


def test_two_tasks_find_each_other_save_and_go_on(here, tmp_path, monkeypatch):
  """Argument-free `jax.distributed`, SIGTERM, and back into the queue."""
  worker = Path(__file__).with_name("resuming.py")
  run = shlex.join([sys.executable, str(worker), str(tmp_path)])
  python = _interpreter(tmp_path, f"export PYTHONPATH={ROOT}", f"exec {run}")
  said = subprocess.run(
    [
      *(sys.executable, "-m", "launch", "--launcher=slurm", "--name=resuming"),
      *("--processes=2", f"--python={python}", "--env=HARD=it's a\n'b'"),
      *("--env=JAX_PLATFORMS=cpu", "--", "train", "--workdir=runs/mine"),
    ],
    cwd=ROOT,
    env={**here.environment, "SBATCH_OUTPUT": str(tmp_path / "log")},
    capture_output=True,
    text=True,
  )
  assert said.returncode == 0, said.stderr
  job = said.stdout.split(":")[0].removeprefix("job ")
  log = tmp_path / "log"
  here.wait_for(
    lambda: all((tmp_path / f"begun{index}").exists() for index in range(2)),
    log=log,
  )
  here.ask("scancel", "--signal=TERM", job)
  here.wait_for(
    lambda: here.restarts(job) == 1 and here.state(job) == "PENDING", log=log
  )
  steps = json.loads((tmp_path / "saved.json").read_text())["step"]
  here.hasten(job)
  here.wait_for(lambda: here.state(job) == "COMPLETED", log=log)
  saved = json.loads((tmp_path / "saved.json").read_text())
  assert saved["starts"] == 2
  assert saved["step"] == steps + 5
  assert saved["total"] == sum(1 + 2 * step for step in range(steps + 5))
  lines = log.read_text().splitlines()
  assert sorted(line for line in lines if "saved" in line) == [
    *("0: saved", "0: saved", "1: saved", "1: saved"),
  ]


@pytest.mark.parametrize(
  ("code", "state", "starts"),
  [(0, "COMPLETED", 1), (2, "FAILED", 1), (1, "FAILED", 2)],
)
def test_only_what_died_is_started_again(
  here, tmp_path, monkeypatch, code, state, starts
):
  job = _submit(here, _job(tmp_path, f"exit {code}", retries=1), monkeypatch)
  here.wait_for(lambda: here.state(job) == state)
  assert _starts(tmp_path) == starts
  assert here.restarts(job) == 0


def test_a_task_that_died_is_started_again_with_its_other(
  here, tmp_path, monkeypatch
):
  dies = "{ touch died; kill -KILL $$; }"
  line = f'[ "$SLURM_PROCID" = 0 ] || [ -e died ] || {dies}'
  spec = _job(tmp_path, line, processes=2)
  job = _submit(here, spec, monkeypatch)
  here.wait_for(lambda: here.state(job) == "COMPLETED")
  assert _starts(tmp_path) == 4


def test_what_is_cancelled_stays_so(here, tmp_path, monkeypatch):
  job = _submit(here, _job(tmp_path, TERMINABLE), monkeypatch)
  here.wait_for((tmp_path / "begun").exists)
  here.ask("scancel", job)
  here.wait_for(lambda: here.state(job) == "CANCELLED")
  time.sleep(1)
  assert (here.state(job), here.restarts(job)) == ("CANCELLED", 0)


def test_an_array_runs_each_of_its_elements(here, tmp_path, monkeypatch):
  jobs = []
  for index in range(3):
    folder = tmp_path / str(index)
    folder.mkdir()
    jobs.append(_job(tmp_path, 'touch "$4"', name=f"run-{index}"))
  jobs = [
    dataclasses.replace(job, arguments=("sweep", "--only", f"it's {index}"))
    for index, job in enumerate(jobs)
  ]
  monkeypatch.chdir(here.folder)
  monkeypatch.setenv("SLURM_CONF", here.environment["SLURM_CONF"])
  number = slurm.submit(slurm.render_array(jobs, name="runs", at_once=2))
  wanted = {f"it's {index}" for index in range(3)}
  here.wait_for(
    lambda: (
      wanted <= {path.name for path in tmp_path.iterdir()}
      and not here.ask("squeue", "--noheader", f"--jobs={number}")
    )
  )
  logs = sorted(path.name for path in here.folder.glob("runs-*.out"))
  assert logs == [f"runs-{number}_{index}.out" for index in range(3)]


@pytest.mark.slow
def test_training_goes_on_where_slurm_stopped_it(here, tmp_path):
  """Bit for bit as two processes that this machine's launcher kept running."""
  data = corpus.prepared(tmp_path)
  backbone = corpus.backbone_folder(tmp_path, data)
  tests = str(Path(corpus.__file__).parent)
  experiment = tmp_path / "experiment.py"
  experiment.write_text(
    EXPERIMENT.format(tests=tests, data=str(data), backbone=str(backbone))
  )
  train = ("--", "train", f"--config={experiment}")
  whole, stopped = (tmp_path / name for name in ("whole", "stopped"))
  done = subprocess.run(
    [
      *(sys.executable, "-m", "launch", "--processes=2"),
      *("--env=JAX_PLATFORMS=cpu", *train, f"--workdir={whole}"),
    ],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout
  here.environment["PYTHONPATH"] = str(ROOT)
  job = _launch(here, tmp_path, *train, f"--workdir={stopped}")
  log = tmp_path / "log"
  here.wait_for(lambda: len(_losses(stopped)) > 5, log=log)
  here.ask("scancel", "--signal=TERM", job)
  here.wait_for(
    lambda: here.restarts(job) == 1 and here.state(job) == "PENDING", log=log
  )
  assert len(_losses(stopped)) < len(_losses(whole))
  here.hasten(job)
  here.wait_for(lambda: here.state(job) == "COMPLETED", log=log)
  assert "stopped by SIGTERM at step" in log.read_text(errors="replace")
  assert _losses(stopped) == _losses(whole)
  submodels = sorted((whole / "submodels").glob("*.safetensors"))
  assert submodels
  for path in submodels:
    other = stopped / "submodels" / path.name
    assert other.read_bytes() == path.read_bytes()


def _losses(workdir: Path) -> list[tuple]:
  path = workdir / "metrics.jsonl"
  lines = path.read_text().splitlines() if path.exists() else []
  return [
    (each["step"], each["loss"])
    for each in map(json.loads, lines)
    if "loss" in each
  ]
