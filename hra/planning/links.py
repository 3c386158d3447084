"""A compiled program -> what its devices send each other, by kind."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from hra.planning.hlo import Instruction, Program, inner, trips

KINDS = (
  "all-gather",
  "all-reduce",
  "all-to-all",
  "collective-broadcast",
  "collective-permute",
  "ragged-all-to-all",
  "reduce-scatter",
)


class Sent(NamedTuple):
  """Of all collectives of a kind, in a run."""

  times: int
  bytes: int
  """That a device sends at least: of n devices, each has an n-th of what is
  gathered or scattered already, and what is summed goes round twice."""


def instructions(program: Program) -> list[Instruction]:
  """Collectives in the text; starts and not ends of asynchronous ones."""
  return [
    instruction
    for _, instruction in program.instructions()
    if _kind(instruction)
  ]


def sent(program: Program) -> dict[str, Sent]:
  """By kind; a loop's body counts as often as it runs.

  A collective that XLA weaves into several fusions is one: its channel says so.
  """
  found: dict[tuple[str, ...], tuple[str, int, int]] = {}
  _walk(program, program.entry, 1, found)
  totals: dict[str, Sent] = {}
  for kind, size, times in found.values():
    before = totals.get(kind, Sent(0, 0))
    totals[kind] = Sent(before.times + times, before.bytes + times * size)
  return dict(sorted(totals.items()))


def _walk(
  program: Program,
  name: str,
  times: int,
  found: dict[tuple[str, ...], tuple[str, int, int]],
) -> None:
  scatters = name.startswith("all-reduce-scatter")
  for instruction in program.computations[name].values():
    kind = _kind(instruction)
    if kind:
      channel = re.search(r"channel_id=(\d+)", instruction.attributes)
      one = (
        instruction.opcode,
        channel[1] if channel else instruction.name,
        str(instruction.arrays),
        str(times),
      )
      size = _bytes(instruction, _devices(program))
      if scatters:  # XLA keeps a part of the sum: half the way
        kind, size = "reduce-scatter", size // 2
      found[one] = (kind, size, times)
    often = times
    if instruction.opcode == "while":
      often *= trips(program, instruction) or 1
    for each in inner(instruction):
      _walk(program, each, often, found)


def _kind(instruction: Instruction) -> str:
  kind = instruction.opcode.removesuffix("-start")
  return kind if kind in KINDS else ""


def _devices(program: Program) -> int:
  """Of all: replicas, and parts of each."""
  counts = re.findall(
    r"\b(?:replica_count|num_partitions)=(\d+)", program.header
  )
  return math.prod(map(int, counts))


def _bytes(instruction: Instruction, devices: int) -> int:
  kind = _kind(instruction)
  members = _members(instruction.attributes, devices)
  sizes = [array.bytes for array in instruction.arrays if array.dims]
  starts = instruction.opcode.endswith("-start")
  if starts and kind != "all-reduce":  # what enters, then what leaves
    half = len(sizes) // 2
    whole = max(sum(sizes[:half]), sum(sizes[half:]))
  else:
    whole = sum(sizes) * (members if kind == "reduce-scatter" else 1)
  if kind in ("collective-permute", "collective-broadcast"):
    return whole
  part = whole * (members - 1) // members
  return 2 * part if kind == "all-reduce" else part


def _members(attributes: str, devices: int) -> int:
  """Devices of a group, in each of the forms that XLA writes."""
  if "replica_groups={}" in attributes:
    return devices
  listed = re.search(r"replica_groups=\{\{([\d,]+)\}", attributes)
  if listed:
    return len(listed[1].split(","))
  counted = re.search(r"replica_groups=\[\d+,(\d+)\]", attributes)
  if counted:
    return int(counted[1])
  named = re.search(
    r"replica_groups=mesh\[([^\]]*)\].*?\{([^}]*)\}", attributes
  )
  if named is None:
    return 1
  sizes: Mapping[str, str] = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
  return math.prod(int(sizes[axis]) for axis in re.findall(r"\w+", named[2]))
