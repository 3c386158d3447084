"""Processes on this machine: started, ended and started again together."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from hra.errors import InputError
from launch import running

ROOT = Path(__file__).parents[2]

DIE = "os.kill(os.getpid(), 9)"
AFTER = """
while not (folder / "starts0").exists():
  time.sleep(0.05)
"""
STAY = "time.sleep(100); (folder / 'stayed').touch()"
END = """
  signal.signal(signal.SIGTERM, lambda *_: sys.exit({code}))
  (folder / f"ready{{index}}").touch()
  time.sleep(60)
"""


def _job(folder: Path, *codes: str, index: int = 0) -> running.Command:
  """A process whose n-th start runs the n-th piece of code."""
  script = folder / f"job{index}.py"
  pieces = [textwrap.dedent(code) for code in codes]
  script.write_text(
    textwrap.dedent(f"""
      import os, pathlib, signal, sys, time
      index, folder = {index}, pathlib.Path({str(folder)!r})
      starts = folder / "starts{index}"
      number = len(starts.read_text()) if starts.exists() else 0
      starts.write_text("x" * (number + 1))
      exec({pieces!r}[number])
    """)
  )
  return running.Command((sys.executable, str(script)), {})


def _keep(jobs: list[running.Command], *, retries: int, grace=20.0) -> int:
  return running.keep_running(
    lambda: running.together(jobs, grace=grace), retries=retries, pause=0.0
  )


def _launcher(jobs: list[running.Command], **streams) -> subprocess.Popen[str]:
  """A launcher in a process of its own."""
  script = textwrap.dedent(f"""
    import sys
    from launch import running
    jobs = [running.Command(words, {{}}) for words in {[j.words for j in jobs]}]
    sys.exit(running.keep_running(
      lambda: running.together(jobs, grace=20), retries=3, pause=0
    ))
  """)
  return subprocess.Popen(
    [sys.executable, "-c", script], cwd=ROOT, text=True, **streams
  )


def _starts(folder: Path, index: int = 0) -> int:
  return len((folder / f"starts{index}").read_text())


def test_a_job_that_died_is_started_again(tmp_path):
  job = _job(tmp_path, DIE, "sys.exit(1)", "sys.exit(0)")
  assert _keep([job], retries=3) == 0
  assert _starts(tmp_path) == 3


def test_it_gives_up(tmp_path):
  job = _job(tmp_path, *[DIE] * 3)
  assert _keep([job], retries=2) == 128 + 9
  assert _starts(tmp_path) == 3


@pytest.mark.parametrize("code", [0, 2, 75])
def test_what_ends_by_itself_is_not_repeated(tmp_path, code):
  job = _job(tmp_path, f"sys.exit({code})")
  assert _keep([job], retries=3) == code
  assert _starts(tmp_path) == 1


def test_all_are_started_again_when_one_died(tmp_path):
  jobs = [
    _job(tmp_path, STAY, "sys.exit(0)"),
    _job(tmp_path, AFTER + DIE, "sys.exit(0)", index=1),
  ]
  assert _keep(jobs, retries=3, grace=0.2) == 0
  assert not (tmp_path / "stayed").exists()
  assert _starts(tmp_path, 0) == _starts(tmp_path, 1) == 2


def test_who_saves_after_another_died_is_given_time(tmp_path):
  jobs = [
    _job(tmp_path, "time.sleep(.5); (folder / 'saved').touch(); sys.exit(75)"),
    _job(tmp_path, AFTER + DIE, index=1),
  ]
  assert _keep(jobs, retries=0) == 128 + 9
  assert (tmp_path / "saved").exists()


def test_bad_input_of_one_is_never_repeated(tmp_path):
  jobs = [
    _job(tmp_path, STAY),
    _job(tmp_path, AFTER + "sys.exit(2)", index=1),
  ]
  assert _keep(jobs, retries=3, grace=0.2) == 2
  assert _starts(tmp_path, 0) == _starts(tmp_path, 1) == 1


@pytest.mark.parametrize(
  ("codes", "outcome"),
  [
    ([0, 0], 0),
    ([75, 0], 75),
    ([0, 75, 1], 1),
    ([75, -9, 0], -9),
    ([-9, 75, 2], 2),
  ],
)
def test_several_ends_are_one(codes, outcome):
  """Bad input explains all else, then a death does."""
  assert running.outcome(codes) == outcome


@pytest.mark.parametrize(
  ("number", "code"),
  [(signal.SIGTERM, 75), (signal.SIGTERM, 143), (signal.SIGHUP, 75)],
)
def test_signals_are_handed_on_to_all(tmp_path, number, code):
  """What was asked for is not started again, saved or not."""
  jobs = [
    _job(tmp_path, END.format(code=code), index=index) for index in range(2)
  ]
  launcher = _launcher(jobs)
  deadline = time.monotonic() + 60
  while not all((tmp_path / f"ready{index}").exists() for index in range(2)):
    assert time.monotonic() < deadline
    time.sleep(0.05)
  os.kill(launcher.pid, number)
  assert launcher.wait(60) == code
  assert _starts(tmp_path, 0) == _starts(tmp_path, 1) == 1


def test_lines_say_whose_they_are(tmp_path, capsys):
  jobs = [
    _job(tmp_path, f"print('line', {index})", index=index) for index in range(2)
  ]
  lines: list[str] = []
  assert running.together(jobs, grace=20, read=lines.append).code == 0
  assert sorted(lines) == ["line 0\n", "line 1\n"]
  shown = capsys.readouterr().out.splitlines()
  assert sorted(shown) == ["0: line 0", "1: line 1"]


def test_a_job_ends_well_where_nobody_reads_it(tmp_path):
  """As behind `| head`: who prints more than a pipe holds must not wait."""
  jobs = [
    _job(tmp_path, "print('\\u00e9 line' * 40000)", index=index)
    for index in range(2)
  ]
  launcher = _launcher(jobs, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  launcher.stdout.close()
  assert launcher.wait(60) == 0
  assert launcher.stderr.read() == ""


def test_a_signal_while_processes_are_started_reaches_all(
  tmp_path, monkeypatch
):
  start = running._start

  def interrupted(command, **streams):
    process = start(command, **streams)
    if not (tmp_path / "sent").exists():
      (tmp_path / "sent").touch()
      os.kill(os.getpid(), signal.SIGTERM)
    return process

  monkeypatch.setattr(running, "_start", interrupted)
  jobs = [_job(tmp_path, STAY, index=index) for index in range(2)]
  began = time.monotonic()
  assert running.together(jobs, grace=90) == (-signal.SIGTERM, True)
  assert time.monotonic() - began < 60


def test_a_process_runs_in_its_folder(tmp_path):
  words = (sys.executable, "-c", "open('here', 'w')")
  assert _keep([running.Command(words, {}, str(tmp_path))], retries=0) == 0
  assert (tmp_path / "here").exists()


def test_a_program_that_is_not_there_is_bad_input():
  with pytest.raises(InputError, match="/nowhere: expected what"):
    _keep([running.Command(("/nowhere",), {})], retries=3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_for_a_new_start(number, capfd):
  timer = threading.Timer(0.2, os.kill, (os.getpid(), number))

  def run() -> running.Ended:
    timer.start()
    return running.Ended(1, asked=False)

  assert running.keep_running(run, retries=3, pause=60) == 128 + number
  assert "start 2 of 4 in 60 s" in capfd.readouterr().err
