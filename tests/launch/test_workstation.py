"""The workstation launcher: restarts what died, nothing else."""

import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "launch" / "workstation.py"


@pytest.fixture(scope="module")
def workstation():
  spec = importlib.util.spec_from_file_location("workstation", PATH)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _job(folder: Path, *codes: str) -> list[str]:
  """A command whose n-th start runs the n-th piece of code."""
  script = folder / "job.py"
  script.write_text(
    textwrap.dedent(f"""
      import os, pathlib, sys
      starts = pathlib.Path({str(folder / "starts")!r})
      number = len(starts.read_text()) if starts.exists() else 0
      starts.write_text("x" * (number + 1))
      exec({list(codes)!r}[number])
    """)
  )
  return [sys.executable, str(script)]


def _starts(folder: Path) -> int:
  return len((folder / "starts").read_text())


DIE = "os.kill(os.getpid(), 9)"


def test_a_job_that_died_is_started_again(workstation, tmp_path):
  job = _job(tmp_path, DIE, "sys.exit(1)", "sys.exit(0)")
  assert workstation.keep_running(job, retries=3, pause=0.0) == 0
  assert _starts(tmp_path) == 3


def test_it_gives_up(workstation, tmp_path):
  job = _job(tmp_path, *[DIE] * 3)
  assert workstation.keep_running(job, retries=2, pause=0.0) == 128 + 9
  assert _starts(tmp_path) == 3


@pytest.mark.parametrize("code", [0, 2, 75])
def test_what_ends_by_itself_is_not_repeated(workstation, tmp_path, code):
  job = _job(tmp_path, f"sys.exit({code})")
  assert workstation.keep_running(job, retries=3, pause=0.0) == code
  assert _starts(tmp_path) == 1


def test_dry_run_prints_the_exact_command():
  done = subprocess.run(
    [sys.executable, PATH, "--dry_run", "--", "--workdir=runs/a b"],
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.strip().endswith(
    "-m hra.commands.train '--workdir=runs/a b'"
  )
