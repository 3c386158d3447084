"""What XLA says of a step of many devices, and that frames stay where they are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parent / "compiled_on.py"


@pytest.fixture(scope="module")
def told():
  environment = {
    **os.environ,
    "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} "
    "--xla_force_host_platform_device_count=8",
    "PYTHONPATH": os.pathsep.join(
      [str(WORKER.parent.parent), os.environ.get("PYTHONPATH", "")]
    ),
  }
  done = subprocess.run(
    [sys.executable, str(WORKER)],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout.splitlines()[-1])


def test_xla_is_given_what_was_planned(told):
  assert told["kept"] == pytest.approx(told["arguments"], rel=0.01)
  assert told["fits"]


def test_each_device_computes_its_part(told):
  assert told["flops"] == pytest.approx(told["traced"], rel=0.1)


def test_weights_are_exchanged_and_not_frames(told):
  """XLA, left to itself, divides the width of frames by the axis of weights."""
  assert told["sent"]["all-gather"] > 0
  assert told["largest"] <= max(told["rows"], told["layer"]) < told["frames"]
