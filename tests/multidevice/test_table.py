"""A step on a table that is divided over devices moves a batch's rows, no table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORKER = Path(__file__).parent / "sharded.py"


@pytest.fixture(scope="module")
def told(tmp_path_factory):
  folder = tmp_path_factory.mktemp("sharded")
  environment = {
    **os.environ,
    "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} "
    "--xla_force_host_platform_device_count=8",
    "PYTHONPATH": str(WORKER.parent.parent),
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


@pytest.mark.parametrize("placed", ["divided", "replicated"])
def test_no_collective_is_larger_than_the_batch_s_rows(told, placed):
  """Four bytes for each task would be larger already, with 4,096 of them."""
  said, _ = told
  assert said["rows"] == 8 * (8 * 16 + 16) * 4
  assert 0 < max(said[placed]) <= said["rows"] < 4 * 4096


def test_a_divided_table_trains_as_a_whole_one(told):
  said, folder = told
  assert (said["replicated_shards"], said["divided_shards"]) == (4096, 512)
  whole = np.load(folder / "replicated.npz")
  divided = np.load(folder / "divided.npz")
  assert sorted(whole) == sorted(divided)
  for name in whole:
    np.testing.assert_allclose(
      whole[name], divided[name], rtol=1e-4, atol=1e-6, err_msg=name
    )
  assert any(np.abs(whole[name]).max() > 0.005 for name in whole)
