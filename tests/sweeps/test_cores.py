"""Sharing a machine: every core and GPU is somebody's, fairly."""

import subprocess
import sys

import pytest

from hra.sweeps import cores


def _shares(jobs, *, count, gpus=()):
  return [
    cores.share(place, jobs=jobs, cores=range(count), gpus=gpus)
    for place in range(jobs)
  ]


@pytest.mark.parametrize("count", [2, 3, 8, 64])
@pytest.mark.parametrize("jobs", [2, 3, 7, 64])
def test_cores_are_dealt_out_whole_and_evenly(count, jobs):
  shares = _shares(jobs, count=count)
  sizes = [len(share.cores) for share in shares]
  assert max(sizes) - min(sizes) <= 1
  assert min(sizes) >= 1
  used = [core for share in shares for core in share.cores]
  assert set(used) == set(range(count))
  if jobs <= count:
    assert used == list(range(count))  # neighbours, none twice
  for share in shares:
    assert share.threads["OMP_NUM_THREADS"] == str(len(share.cores))


def test_one_run_alone_has_the_machine():
  assert cores.share(0, jobs=1, cores=range(8), gpus=["0", "1"]) == ((), {}, {})


def test_gpus_are_dealt_out_or_shared():
  name = "CUDA_VISIBLE_DEVICES"
  two = _shares(2, count=8, gpus=["0", "1", "2", "3"])
  assert [share.devices[name] for share in two] == ["0,1", "2,3"]
  assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in two[0].devices
  five = _shares(5, count=8, gpus=["a", "b"])
  assert [share.devices[name] for share in five] == ["a", "b", "a", "b", "a"]
  fraction = float(five[0].devices["XLA_PYTHON_CLIENT_MEM_FRACTION"])
  assert 3 * fraction <= 1
  assert name not in _shares(2, count=8)[0].devices


def test_gpus_of_this_process(monkeypatch):
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
  assert cores.usable_gpus() == ["3", "1"]
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
  assert cores.usable_gpus() == []


@pytest.mark.skipif(len(cores.usable_cores()) < 2, reason="one core")
def test_a_confined_process_sees_its_cores():
  mine = cores.usable_cores()[:1]
  code = "import os; input(); print(sorted(os.sched_getaffinity(0)))"
  with subprocess.Popen(
    [sys.executable, "-c", code],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    cores.confine(process.pid, mine)
    out, _ = process.communicate("\n", timeout=30)
  assert out.strip() == str(mine)
