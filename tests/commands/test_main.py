"""How a verb ends: stopped, stopped twice, or on a full disk; always one line."""

import _thread
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import corpus
import disk
import pytest

from hra.checkpoint import Checkpoints
from hra.commands import main as cli
from hra.config_tree import to_dict

BLOCKED = """
import time
from hra.commands import {verb} as command, main
def wait(argv):
  try:
    print("ready", flush=True)
    time.sleep(60)
  finally:
    print("unwound", flush=True)
command.main = wait
main.run_verb("{verb}")
"""

# A save that never gets its name, by the third one.
STUCK = """
import os, sys, time
names = []
def hook(event, arguments):
  if event == "os.rename" and "checkpoint-tmp" in os.fspath(arguments[0]):
    if os.path.dirname(os.fspath(arguments[0])).endswith("checkpoints"):
      names.append(arguments[0])
      if len(names) == 3:
        print("stuck", flush=True)
        time.sleep(60)
sys.addaudithook(hook)
from hra.commands import main
main.run_verb("train")
"""

EXPERIMENT = """
import json
from hra import config, config_tree
def get_config():
  return config_tree.from_dict(config.Config, json.loads({described!r}))
"""


@contextlib.contextmanager
def _started(script: str, *arguments: str):
  with subprocess.Popen(
    [sys.executable, "-c", script, *map(str, arguments)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    try:
      yield process
    finally:
      process.kill()


def _wait_for(process: subprocess.Popen, line: str) -> None:
  for told in process.stdout:
    if line in told:  # a progress bar may stand before it
      return
  raise AssertionError(process.stderr.read())


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
  folder = tmp_path_factory.mktemp("material")
  data = corpus.prepared(folder)
  config = corpus.config(data, corpus.backbone_folder(folder, data))
  path = folder / "experiment.py"
  described = json.dumps(to_dict(config))
  path.write_text(EXPERIMENT.format(described=described))
  return path


@pytest.mark.parametrize(
  ("verb", "number", "code"),
  [
    ("prepare", signal.SIGINT, 130),
    ("prepare", signal.SIGTERM, 143),
    ("evaluate", signal.SIGINT, 130),
  ],
)
def test_stopped_outside_of_training(verb, number, code):
  with _started(BLOCKED.format(verb=verb)) as process:
    _wait_for(process, "ready")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
  again = "; the same command goes on from what is done"
  assert err == f"hra {verb}: stopped{again if verb == 'prepare' else ''}\n"
  assert process.returncode == code
  assert out == "unwound\n"


def _children(pid: int) -> list[int]:
  tasks = Path(f"/proc/{pid}/task").glob("*/children")
  return [int(child) for task in tasks for child in task.read_text().split()]


def _runs(pid: int) -> bool:
  try:
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
  except (FileNotFoundError, ProcessLookupError):
    return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc")
def test_sigterm_ends_the_processes_that_it_started(tmp_path):
  pytest.importorskip("espeakng_loader")
  script = "from hra.commands.main import run_verb; run_verb('quickstart')"
  with _started(script, f"--workdir={tmp_path / 'run'}") as process:
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("run/data/corpus/audio/train/*/*.wav")):
      assert process.poll() is None, process.stderr.read()
      assert time.monotonic() < deadline
      time.sleep(0.05)
    children = _children(process.pid)
    assert children
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert not [child for child in children if _runs(child)]


def test_a_second_ctrl_c_leaves_a_save_at_once(experiment, tmp_path):
  workdir = tmp_path / "run"
  with _started(
    STUCK, f"--config={experiment}", f"--workdir={workdir}"
  ) as process:
    _wait_for(process, "stuck")
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
      process.wait(timeout=2)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
  assert time.monotonic() - start < 10
  assert process.returncode == 130
  assert err == (
    "hra train: stopped; the same command goes on from what is done\n"
  )
  assert list((workdir / "checkpoints").glob("3*tmp*"))
  checkpoints = Checkpoints(workdir / "checkpoints", access="read")
  assert checkpoints.latest == 2
  checkpoints.close()


def test_what_c_code_prints_in_its_threads_is_left_out():
  told = io.StringIO()
  stream = cli._KnownThreads(told)
  done = _thread.allocate_lock()
  done.acquire()

  def print_and_end(name):
    print(name, file=stream)
    done.release()

  # Not by `threading`: as C code's threads, this one is unknown to it.
  _thread.start_new_thread(print_and_end, ("stranger",))
  done.acquire()
  known = threading.Thread(target=print_and_end, args=("known",))
  known.start()
  known.join()
  print("main", file=stream)
  assert told.getvalue() == "known\nmain\n"


def test_a_full_disk_is_one_line(experiment, tmp_path):
  with disk.mounted(tmp_path / "small", options="size=400k") as small:
    done = subprocess.run(
      [
        sys.executable,
        "-c",
        "from hra.commands.main import run_verb; run_verb('train')",
        f"--config={experiment}",
        f"--workdir={small / 'run'}",
        "--config.train.keep=9",
      ],
      capture_output=True,
      text=True,
      check=False,
      timeout=120,
      env={**os.environ},
    )
  assert done.returncode == 2, done.stderr
  assert done.stderr.count("\n") == 1, done.stderr
  assert done.stderr.startswith(f"hra train: {small / 'run'}")
  assert "No space left on device; free some space and" in done.stderr


def test_what_a_terminal_cannot_show_is_escaped():
  script = """
from hra.commands import main, report as command
command.main = lambda argv: print("caf\\u00e9")
main.run_verb("report")
"""
  done = subprocess.run(
    [sys.executable, "-c", script],
    env={**os.environ, "PYTHONIOENCODING": "ascii"},
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout == "caf\\xe9\n"


def test_who_stops_reading_gets_no_traceback():
  script = """
from hra.commands import main, report as command
command.main = lambda argv: print("x" * 100_000)
main.run_verb("report")
"""
  with subprocess.Popen(
    [sys.executable, "-c", script],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  ) as process:
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 128 + signal.SIGPIPE


@pytest.mark.parametrize("verb", cli.VERBS)
def test_each_verb_is_a_module_that_runs(verb):
  source = Path(cli.__file__).with_name(f"{verb}.py").read_text()
  assert source.endswith(f'  cli.run_verb("{verb}")\n')
