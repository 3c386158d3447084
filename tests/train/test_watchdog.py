"""Who stalls, and in what."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax._src import compiler

from hra.train import watchdog
from hra.train.watchdog import (
  STALLED,
  Beat,
  Told,
  Watchdog,
  silent_among,
  stalling,
  teller,
)


def _told(position, doing, seconds=60.0):
  return Told(7, position, doing, seconds, "loader.py:9 in read")


@pytest.mark.parametrize(
  ("told", "silent", "stalls"),
  [
    ({0: _told(8, "step"), 1: _told(7, "data")}, set(), [1]),
    ({0: _told(7, "step"), 1: _told(7, "data")}, set(), [1]),
    ({0: _told(7, "step"), 1: _told(7, "step")}, set(), [0, 1]),
    ({0: _told(8, "data"), 1: _told(7, "step")}, set(), [1]),
    ({0: _told(7, "step"), 1: _told(7, "compile")}, set(), []),
    ({0: _told(7, "data"), 1: _told(7, "compile")}, {1}, [1]),
    ({0: _told(7, "step")}, {1}, [1]),
    ({0: _told(9, "save"), 1: _told(8, "ended")}, set(), [0]),
  ],
)
def test_the_one_that_others_wait_for(told, silent, stalls):
  assert stalling(told, silent=silent) == stalls


def test_who_has_ended_is_not_silent():
  said = {0: _told(9, "step"), 1: _told(9, "ended"), 2: _told(9, "save")}
  later = {**said, 2: said[2]._replace(number=8)}
  assert silent_among(range(4), said, later) == {0, 3}


def test_the_first_that_is_still_there_tells():
  told = {0: _told(9, "ended"), 1: _told(8, "save"), 2: _told(9, "step")}
  assert teller(told, silent=set()) == 1
  assert teller(told, silent={1}) == 2


def _watched(beat, *, seconds=0.25, wait=1.2):
  with Watchdog(lambda: beat[0], seconds=seconds, abort=False):
    time.sleep(wait)


def test_a_stall_is_told_once_with_its_place(capsys):
  _watched([Beat(17, "data", time.monotonic())])
  told = capsys.readouterr().err.splitlines()
  (line,) = [each for each in told if "no progress" in each]
  assert "process 0 of 1 made no progress" in line
  assert "at step 17, in data" in line
  assert any("in _watched" in each for each in told)


@pytest.mark.parametrize(
  ("beat", "seconds"),
  [
    (Beat(17, "compile", -1e3), 0.25),
    (Beat(17, "data", 1e12), 0.25),
    (Beat(17, "data", -1e3), 0.0),
  ],
)
def test_nothing_is_told_of_what_goes_on(capsys, beat, seconds):
  _watched([beat], seconds=seconds, wait=0.6)
  assert capsys.readouterr().err == ""


def test_compiling_in_an_evaluation_is_no_stall(monkeypatch, capsys):
  compiled = compiler.backend_compile_and_load

  def takes_its_time(*args, **named):
    time.sleep(1.5)
    return compiled(*args, **named)

  lowered = jax.jit(lambda x: x * 17).lower(jnp.ones(3))
  monkeypatch.setattr(compiler, "backend_compile_and_load", takes_its_time)
  beat = Beat(17, "evaluation", time.monotonic())
  with Watchdog(lambda: beat, seconds=0.5, abort=False):
    lowered.compile()
    beat = beat._replace(since=time.monotonic())
  assert capsys.readouterr().err == ""


def test_a_save_is_told_and_goes_on(monkeypatch, capsys):
  monkeypatch.setattr(os, "_exit", lambda code: pytest.fail(f"exit {code}"))
  beat = Beat(17, "save", time.monotonic())
  with Watchdog(lambda: beat, seconds=0.25, abort=True):
    time.sleep(0.8)
  told = capsys.readouterr().err
  assert "at step 17, in save" in told
  assert "gives up" not in told


WORKER = """
import sys, time
import jax
process, address = int(sys.argv[1]), sys.argv[2]
jax.distributed.initialize(
  address, num_processes=2, process_id=process, local_device_ids=[0],
  cluster_detection_method="deactivate", coordinator_bind_address=address)
from hra.train.watchdog import Beat, Watchdog

def hears_nobody():
  time.sleep(60)

doing = ("step", "data")[process]
beat = Beat(5 - process, doing, time.monotonic())
with Watchdog(lambda: beat, seconds=1.0, abort=True):
  hears_nobody()
"""


def test_of_two_processes_the_sleeping_one_is_named_and_both_give_up():
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  both = [
    subprocess.Popen(
      [sys.executable, "-c", WORKER, str(process), address],
      env={**os.environ, "JAX_PLATFORMS": "cpu"},
      stderr=subprocess.PIPE,
      text=True,
    )
    for process in range(2)
  ]
  errors = [each.communicate(timeout=60)[1] for each in both]
  assert [each.returncode for each in both] == [STALLED, STALLED], errors
  (line,) = [each for each in errors[0].splitlines() if "no progress" in each]
  assert "process 1 of 2 made no progress" in line
  assert "at step 4, in data" in line
  assert line.endswith("others: 1 in step")
  assert "process 1 of 2 is here:" in errors[1]
  assert "in hears_nobody\n" in errors[1]
  assert "is here:" not in errors[0]


def test_where_names_the_program(monkeypatch):
  monkeypatch.setattr(watchdog, "_PACKAGE", str(Path(__file__).parent))
  place = watchdog._where(sys._getframe())
  assert place.startswith("test_watchdog.py:")
  assert place.endswith("in test_where_names_the_program")
