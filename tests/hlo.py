"""Reads compiled programs, by `hra.planning`."""

from hra.planning.hlo import (
  Array,
  Instruction,
  Program,
  called_by,
  flops,
  parse,
)
from hra.planning.links import instructions as collectives
from hra.planning.traffic import known_trips, traffic

__all__ = [
  "Array",
  "Instruction",
  "Program",
  "called",
  "called_by",
  "collectives",
  "flops",
  "parse",
  "traffic",
  "trip_counts",
]


def trip_counts(program: Program) -> list[int]:
  """Of all loops."""
  return [
    known_trips(program, instruction)
    for _, instruction in program.instructions()
    if instruction.opcode == "while"
  ]


def called(program: Program, instruction: Instruction) -> list[Instruction]:
  """The instructions inside a fusion."""
  (name,) = called_by(instruction, "calls")
  return list(program.computations[name].values())
