"""A step on a table that is divided over devices moves a batch's rows, no table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORKER = Path(__file__).parent / "sharded.py"
PLACED = ("replicated", "divided")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
  folder = tmp_path_factory.mktemp("sharded")
  environment = {
    **os.environ,
    "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} "
    "--xla_force_host_platform_device_count=8",
    "PYTHONPATH": os.pathsep.join(
      [str(WORKER.parent.parent), os.environ.get("PYTHONPATH", "")]
    ),
  }
  done = subprocess.run(
    [sys.executable, str(WORKER), str(folder)],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout.splitlines()[-1]), folder


@pytest.mark.parametrize("placed", PLACED)
def test_no_collective_is_larger_than_the_batch_s_rows(told, placed):
  """Four bytes for each task would be larger already, with 4,093 of them."""
  said, _ = told
  assert said["rows"] == 8 * (8 * 16 + 16) * 4
  assert 0 < max(said[placed]) <= said["rows"] < 4 * 4093


@pytest.mark.parametrize("placed", PLACED)
def test_a_table_stays_where_it_was_and_the_step_is_compiled_once(told, placed):
  """Trained, judged and trained again; tasks that eight don't divide are padded."""
  said, _ = told
  assert said[f"{placed}_stays"]
  assert said[f"{placed}_compilations"] == 1
  assert said[f"{placed}_rows"] == [512 if placed == "divided" else 4093]


def _check_equal(left: Path, right: Path, **tolerances: float) -> None:
  whole, divided = np.load(left), np.load(right)
  assert sorted(whole) == sorted(divided)
  for name in whole:
    np.testing.assert_allclose(
      whole[name], divided[name], err_msg=name, **tolerances
    )
  assert any(np.abs(whole[name]).max() > 0.005 for name in whole)


def test_a_divided_table_trains_as_a_whole_one(told):
  _, folder = told
  left, right = (folder / f"{placed}.npz" for placed in PLACED)
  _check_equal(left, right, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("placed", PLACED)
def test_a_checkpoint_of_one_layout_is_restored_in_the_other(told, placed):
  said, folder = told
  assert said[f"{placed}_restored"]
  saved, restored = folder / f"{placed}.npz", folder / f"{placed}-restored.npz"
  _check_equal(saved, restored, rtol=0, atol=0)
