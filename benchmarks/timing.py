"""Cases that take turns in one process: what disturbs one disturbs all of them.

Enters: functions that start some work on the devices. Leaves: seconds, block by block.
"""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import tqdm

Run = Callable[[], Any]
"""One step; returns what is ready when it is done."""
Name = TypeVar("Name", bound=Hashable)


class Times(NamedTuple):
  """Seconds of a step, of each block."""

  walls: list[float]
  cpus: list[float]

  @property
  def wall(self) -> float:
    return statistics.median(self.walls)

  @property
  def cpu(self) -> float:
    return statistics.median(self.cpus)


def take_turns(
  runs: Mapping[Name, Run], *, blocks: int, steps: int
) -> dict[Name, Times]:
  """Times of `blocks` blocks of `steps` steps of every case.

  One block of each is done before, and not counted. Every other round goes
  backwards.
  """
  times = {name: Times([], []) for name in runs}
  for block in tqdm.trange(blocks + 1, desc="blocks"):
    for name in runs if block % 2 else reversed(runs):
      wall, cpu = time.perf_counter(), time.process_time()
      for _ in range(steps):
        last = runs[name]()
      jax.block_until_ready(last)
      if block:
        times[name].walls.append((time.perf_counter() - wall) / steps)
        times[name].cpus.append((time.process_time() - cpu) / steps)
  return times


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
  """The median of each block's quotient by the block beside it."""
  return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
