"""The same training on 1 and on 8 simulated devices (data x fsdp x tensor)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORKER = Path(__file__).parent / "worker.py"


def _train(dtype: str, out: Path, axes: tuple[int, int, int]) -> dict:
  environment = {
    **os.environ,
    "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} "
    f"--xla_force_host_platform_device_count={np.prod(axes)}",
    "PYTHONPATH": str(WORKER.parent.parent),
  }
  done = subprocess.run(
    [sys.executable, str(WORKER), dtype, str(out), *map(str, axes)],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_eight_devices_train_what_one_does(tmp_path, dtype):
  one = _train(dtype, tmp_path / "one.npz", (1, 1, 1))
  many = _train(dtype, tmp_path / "many.npz", (2, 2, 2))
  # The backbone is really divided, and no step was compiled twice.
  assert (one["shards"], many["shards"]) == (1, 4)
  assert one["compilations"] == many["compilations"] == 1
  first, second = np.array(one["losses"]), np.array(many["losses"])
  assert first[-1].mean() < first[0].mean()
  np.testing.assert_allclose(first, second, rtol=1e-5)
  if dtype == "float64":
    with (
      np.load(tmp_path / "one.npz") as left,
      np.load(tmp_path / "many.npz") as right,
    ):
      for name in left:
        np.testing.assert_allclose(left[name], right[name], rtol=0, atol=1e-9)
