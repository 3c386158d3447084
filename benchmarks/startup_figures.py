"""What a process said while it started -> where its seconds went.

Enters: lines of `python -X importtime`, events of benchmarks/started.py. Leaves:
seconds by phase, and the number of programs.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \| \s*(\S+)")
_CORE = "/jax/core/compile/"
_PHASES = {
  f"{_CORE}jaxpr_trace_duration": "tracing",
  f"{_CORE}jaxpr_to_mlir_module_duration": "lowering",
  f"{_CORE}backend_compile_duration": "compiling",
}
"""A program that is taken from the cache is among the last, as JAX books it."""


class Event(NamedTuple):
  phase: str
  began: float
  ended: float
  name: str


def read_events(text: str) -> list[Event]:
  """Events of phases; a line that was cut off by a kill is none."""
  found = []
  for line in text.splitlines():
    try:
      told = json.loads(line)
    except ValueError:
      continue
    if told["event"] in _PHASES:
      phase = _PHASES[told["event"]]
      found.append(Event(phase, told["from"], told["to"], told["name"]))
  return found


def imports(text: str) -> dict[str, float]:
  """Seconds that modules took to import, by package, the slowest first."""
  seconds: dict[str, float] = {}
  for micros, module in _IMPORT.findall(text):
    package = module.partition(".")[0]
    seconds[package] = seconds.get(package, 0) + int(micros) / 1e6
  return dict(sorted(seconds.items(), key=lambda each: -each[1]))


def covered(spans: Iterable[tuple[float, float]]) -> float:
  """Seconds in which at least one span lasts: what nests counts once."""
  total, until = 0.0, float("-inf")
  for began, ended in sorted(spans):
    total += max(0.0, ended - max(began, until))
    until = max(until, ended)
  return total


def shares(
  events: Sequence[Event],
  imported: Mapping[str, float],
  *,
  began: float,
  ended: float,
) -> dict[str, float]:
  """Seconds from start to end, by phase; `rest` is none of them."""
  within = [each for each in events if each.ended <= ended]
  told = {"imports": sum(imported.values())}
  for phase in _PHASES.values():
    spans = [(e.began, e.ended) for e in within if e.phase == phase]
    told[phase] = covered(spans)
  return told | {"rest": ended - began - sum(told.values())}


def programs(events: Sequence[Event], *, ended: float) -> int:
  """How many were compiled, or taken from the cache, until then."""
  return sum(e.phase == "compiling" and e.ended <= ended for e in events)
