"""How runs that go on at once share a machine: cores, and GPUs where there are any.

XLA's CPU backend, BLAS and the program's own pools size themselves by the cores
that a process may use, so a run gets its own; two runs that both take all of them
wait for each other's threads.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_MEMORY = 0.9
"""Part of a GPU's memory that the runs on it share."""


_THREADS = ("NPROC", "PJRT_NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables that XLA and BLAS take for the number of cores."""


class Share(NamedTuple):
  """What the run of one place gets."""

  cores: tuple[int, ...]
  """Of this machine; empty means all."""
  threads: Mapping[str, str]
  """Environment variables that yield to those that the user has set."""
  devices: Mapping[str, str]
  """Environment variables that don't."""


def share(
  place: int, *, jobs: int, cores: Sequence[int], gpus: Sequence[str]
) -> Share:
  """The part of one of `jobs` runs at once.

  Cores and GPUs are dealt out in runs of neighbours. More runs than GPUs put
  several on one, each with a part of its memory: JAX would take 75% at once.

  Args:
    place: in [0, jobs).
    jobs: runs at once; one alone has all.
    cores: that this process may use, neighbours side by side.
    gpus: names as CUDA_VISIBLE_DEVICES has them.
  """
  if jobs == 1:
    return Share((), {}, {})
  mine = _part(cores, place, jobs)
  # Where processes can't be bound to cores (macOS), threads are what is left.
  threads = dict.fromkeys(_THREADS, str(len(mine)))
  devices = {}
  if gpus:
    devices["CUDA_VISIBLE_DEVICES"] = ",".join(_part(gpus, place, jobs))
    if jobs > len(gpus):
      together = -(-jobs // len(gpus))
      devices["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{_MEMORY / together:.3f}"
  return Share(tuple(mine), threads, devices)


def usable_cores() -> list[int]:
  """Cores of this process; threads of one core, and cores of one socket, adjoin."""
  if not hasattr(os, "sched_getaffinity"):
    return list(range(os.cpu_count() or 1))
  return sorted(os.sched_getaffinity(0), key=_topology)


def usable_gpus() -> list[str]:
  """Nvidia GPUs of this process, without starting CUDA."""
  given = os.environ.get("CUDA_VISIBLE_DEVICES")
  if given is not None:
    return [name for name in given.split(",") if name]
  found = pathlib.Path("/proc/driver/nvidia/gpus")
  count = len(list(found.iterdir())) if found.is_dir() else 0
  return [str(number) for number in range(count)]


def confine(pid: int, cores: Sequence[int]) -> None:
  """Binds a process that has just started, and the threads it will start."""
  if cores and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(pid, cores)


def _part(items: Sequence, place: int, jobs: int) -> Sequence:
  """The neighbours of one place; of fewer items than jobs, one each."""
  if len(items) <= jobs:
    return [items[place % len(items)]]
  start = place * len(items) // jobs
  return items[start : (place + 1) * len(items) // jobs]


def _topology(core: int) -> tuple[int, int, int]:
  folder = pathlib.Path(f"/sys/devices/system/cpu/cpu{core}/topology")
  names = ("physical_package_id", "core_id")
  if not all((folder / name).exists() for name in names):
    return (0, core, core)
  package, physical = (int((folder / name).read_text()) for name in names)
  return (package, physical, core)
