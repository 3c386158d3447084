"""`hra sweep` by command: flags in; runs, table, page and exit code out."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import corpus
import pytest

EXPERIMENT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import corpus

def get_config():
  return corpus.config(Path({data!r}), Path({backbone!r}))
"""

PLAIN = """
from hra.config import Config

def get_config():
  return Config()
"""

# `hra sweep` whose runs wait for SIGTERM, or fail.
FAKE = """
import sys
from hra.commands import main
from hra.sweeps import plan
wait = "import signal, sys, time\\n" \\
  "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\\n" \\
  "print('ready', flush=True)\\ntime.sleep(60)"
code = {{"wait": wait, "fail": "import sys; sys.exit('hra train: no luck')"}}
command = [sys.executable, "-c", code[{mode!r}]]
plan.commands = lambda sweep, run: {{"train": command, "evaluate": command}}
main.run_verb("sweep")
"""


def _sweep(*arguments, script=None):
  start = ["-m", "hra.commands.sweep"] if script is None else ["-c", script]
  return [sys.executable, *start, *map(str, arguments)]


def _done(*arguments, **given):
  return subprocess.run(
    _sweep(*arguments, **given),
    env={**os.environ, "PYTHONPATH": str(Path(corpus.__file__).parent)},
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.fixture
def plain(tmp_path):
  path = tmp_path / "plain.py"
  path.write_text(PLAIN)
  return path


@pytest.mark.slow  # its twins: sweeps/test_runner.py
def test_two_runs_end_to_end(tmp_path):
  data = corpus.prepared(tmp_path)
  experiment = tmp_path / "experiment.py"
  experiment.write_text(
    EXPERIMENT.format(
      tests=str(Path(corpus.__file__).parent),
      data=str(data),
      backbone=str(corpus.backbone_folder(tmp_path, data)),
    )
  )
  workdir = tmp_path / "sweep"
  command = [
    f"--config={experiment}",
    f"--workdir={workdir}",
    "--axis=adapter.width=4,8",
    "--jobs=2",
    "--config.train.steps=2",
    "--config.evaluate.bootstrap=100",
  ]
  done = _done(*command)
  logs = [path.read_text() for path in workdir.glob("*/log.txt")]
  assert done.returncode == 0, (done.stderr, logs)
  assert done.stderr == ""
  entries = json.loads((workdir / "sweep.json").read_text())["runs"]
  assert [entry["status"] for entry in entries] == ["done", "done"]
  sizes = []
  for width in (4, 8):
    folder = workdir / f"adapter.width={width}"
    config = json.loads((folder / "config.json").read_text())["config"]
    assert config["adapter"]["width"] == width
    assert config["train"]["steps"] == 2
    results = json.loads((folder / "results.json").read_text())
    sizes.append(results["parameters"]["per_task"])
    assert re.search(rf"^{width} .* {sizes[-1]:,} ", done.stdout, re.MULTILINE)
  assert sizes[0] < sizes[1]
  assert "2 runs" in (workdir / "report.html").read_text()
  before = {path: path.stat().st_mtime_ns for path in workdir.glob("*/*")}
  again = _done(*command)
  assert again.returncode == 0, again.stderr
  assert before == {path: path.stat().st_mtime_ns for path in before}


def test_runs_that_died_are_named_and_end_with_1(tmp_path, plain):
  done = _done(
    f"--config={plain}",
    f"--workdir={tmp_path / 'sweep'}",
    "--axis=seed=0,1",
    script=FAKE.format(mode="fail"),
  )
  assert done.returncode == 1
  assert done.stderr.count("\n") == 1
  assert "seed=0, seed=1 died" in done.stderr
  assert done.stdout.count("hra train: no luck") == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_ends_with_75(tmp_path, plain, number):
  workdir = tmp_path / "sweep"
  with subprocess.Popen(
    _sweep(
      f"--config={plain}",
      f"--workdir={workdir}",
      "--axis=seed=0,1",
      script=FAKE.format(mode="wait"),
    ),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    log = workdir / "seed=0" / "log.txt"
    while not (log.exists() and "ready\n" in log.read_text()):
      assert process.poll() is None, process.stderr.read()
      time.sleep(0.05)
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
  assert process.returncode == 75
  assert told == (
    "hra sweep: interrupted with 0 of 2 runs done; the same command goes on\n"
  )
  assert not (workdir / "seed=1").exists()


@pytest.mark.parametrize(
  ("text", "arguments", "told"),
  [
    (PLAIN, [], "--axis"),
    (PLAIN, ["--axis=adapter.widht=1"], "did you mean 'width'"),
    (PLAIN, ["--axis=seed=1", "--jobs=-1"], "--jobs"),
    (PLAIN, ["--axis=seed=1", "--workdir="], "--workdir"),
    (PLAIN, ["--axis=seed=1", "--config="], "--config"),
    (f"{PLAIN}\ndef sweep():\n  return 1 / 0\n", [], "plain.py:8"),
    (f"{PLAIN}\ndef sweep():\n  return 3\n", [], "sweep()"),
  ],
)
def test_bad_input_is_one_clear_line(tmp_path, plain, text, arguments, told):
  plain.write_text(text)
  workdir = tmp_path / "sweep"
  done = _done(f"--config={plain}", f"--workdir={workdir}", *arguments)
  assert done.returncode == 2
  assert done.stderr.count("\n") == 1, done.stderr
  assert done.stderr.startswith("hra sweep: ")
  assert told in done.stderr
  assert not workdir.exists()


def test_a_report_of_a_sweep_and_of_runs_is_refused():
  done = subprocess.run(
    [sys.executable, "-m", "hra.commands.report", "--sweep=a", "--run=b"],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert "--sweep: expected a sweep, or runs, got both" in done.stderr


def test_a_run_of_its_own_that_dies_is_worth_another_start(tmp_path, plain):
  """Its exit code is no bad input's; the list afterwards runs nothing."""
  asked = [
    f"--config={plain}",
    f"--workdir={tmp_path / 'sweep'}",
    "--axis=seed=0,1",
  ]
  died = _done(*asked, "--only=seed=0", script=FAKE.format(mode="fail"))
  assert died.returncode == 1
  assert died.stderr.count("\n") == 1
  assert "seed=0 died" in died.stderr
  listed = _done(*asked, "--jobs=0", script=FAKE.format(mode="fail"))
  assert listed.returncode == 2
  assert "expected 2 runs that are done, got 0" in listed.stderr
  assert "failed ones (seed=0)" in listed.stderr
  assert not (tmp_path / "sweep" / "seed=1").exists()
