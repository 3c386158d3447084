"""Killed at any moment and run again, training ends with the same bits."""

import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import corpus
import numpy as np
import pytest

from hra.config_tree import to_dict

DRIVER = Path(__file__).parent / "killed.py"


def _run(
  folder: Path, workdir: Path, *, kill_after: float | None = None, die: str = ""
) -> tuple[int, float]:
  """The exit code, and the seconds since training started."""
  process = subprocess.Popen(
    [sys.executable, DRIVER, folder / "config.json", workdir, *die.split()],
    stdout=subprocess.PIPE,
    text=True,
  )
  with process:
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    start = time.monotonic()
    if kill_after is not None:
      timer = threading.Timer(kill_after, process.kill)
      timer.start()
      process.wait()
      timer.cancel()
    process.wait(timeout=300)
  return process.returncode, time.monotonic() - start


def _material(folder: Path, *, steps: int) -> None:
  data = corpus.prepared(folder)
  config = corpus.config(
    data,
    corpus.backbone_folder(folder, data),
    eval_every=steps // 4,
    select="best",
  )
  config.train.steps = steps
  (folder / "config.json").write_text(json.dumps(to_dict(config)))


def _batches(workdir: Path) -> dict[int, list[dict]]:
  """All that was loaded for each position, in whichever process."""
  lines = (workdir / "batches.jsonl").read_text().splitlines()
  loaded: dict[int, list[dict]] = {}
  for line in map(json.loads, lines):
    loaded.setdefault(line["position"], []).append(line)
  return loaded


def _metrics(workdir: Path) -> list[dict]:
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def _assert_as_if_never_killed(killed: Path, whole: Path) -> None:
  first, second = np.load(whole / "final.npz"), np.load(killed / "final.npz")
  assert set(first) == set(second)
  for path in first:
    np.testing.assert_array_equal(first[path], second[path], err_msg=path)
  wanted = _batches(whole)
  loaded = _batches(killed)
  assert set(loaded) == set(wanted)
  for position, (line,) in wanted.items():
    assert all(again == line for again in loaded[position])
  expected, got = _metrics(whole), _metrics(killed)
  assert [line["step"] for line in got] == [line["step"] for line in expected]
  for ours, theirs in zip(got, expected, strict=True):
    assert ours.get("dev_wer") == theirs.get("dev_wer")
  assert any("dev_wer" in line for line in expected)


def _check(folder: Path, *, steps: int, kills: int, seed: int) -> None:
  _material(folder, steps=steps)
  whole, killed = folder / "whole", folder / "killed"
  code, duration = _run(folder, whole)
  assert code == 0
  for where in ("save:7", "data:25"):
    code, _ = _run(folder, killed, die=where)
    assert code == -signal.SIGKILL
    name = where.split(":")[0]
    assert (killed / f"killed-in-{name}").exists()
    left = list((killed / "checkpoints").glob("*tmp*"))
    assert left or name == "data"
  # At uniformly random times of the training's own time, over all processes.
  rng = np.random.default_rng(seed)
  times = [0.0, *sorted(rng.uniform(0, duration, kills - 2))]
  struck = 0
  for before, after in itertools.pairwise(times):
    code, _ = _run(folder, killed, kill_after=after - before)
    if code == 0:
      break
    assert code == -signal.SIGKILL
    struck += 1
  assert struck >= (kills - 2) // 2
  assert _run(folder, killed)[0] == 0
  assert not list((killed / "checkpoints").glob("*tmp*"))
  _assert_as_if_never_killed(killed, whole)


def test_three_kills(tmp_path):
  _check(tmp_path, steps=32, kills=3, seed=0)


@pytest.mark.slow
def test_thirty_kills(tmp_path):
  _check(tmp_path, steps=400, kills=30, seed=1)
