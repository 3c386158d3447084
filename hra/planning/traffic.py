"""The text of a compiled program -> bytes that a run moves.

XLA's own analysis counts the whole table where a fusion gathers from it or scatters into
it in place; here the rows are counted. Caches may hold what is read again.
"""

from collections.abc import Mapping

from hra.planning.hlo import (
  Computation,
  Instruction,
  Program,
  called_by,
  trips,
)


def traffic(program: Program) -> int:
  """Bytes that a run reads and writes outside fusions, loops counted.

  Of what is gathered from, sliced or written into in place, only that part.
  """

  def of(name: str) -> int:
    computation = program.computations[name]
    total = 0
    for instruction in computation.values():
      if instruction.opcode == "while":
        (body,) = called_by(instruction, "body")
        total += known_trips(program, instruction) * of(body)
      elif instruction.opcode == "call":
        total += sum(map(of, called_by(instruction, "to_apply")))
      elif instruction.opcode not in _FREE:
        total += _moved(instruction, computation, program)
    return total

  return of(program.entry)


def known_trips(program: Program, loop: Instruction) -> int:
  """How often a loop's body runs.

  Raises:
    ValueError: nobody knows.
  """
  known = trips(program, loop)
  if known is None:
    raise ValueError(f"{loop.name}: the trip count isn't known")
  return known


_FREE = frozenset(
  [
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
  ]
)
_SLICES = frozenset({"gather", "dynamic-slice"})
_WRITES = {"scatter": 2, "dynamic-update-slice": 1}
"""In-place operations, and where among their operands the update stands."""


def _moved(
  instruction: Instruction, computation: Computation, program: Program
) -> int:
  if instruction.opcode != "fusion":
    alone = {instruction.name: instruction} | {
      name: computation[name]._replace(opcode="parameter")
      for name in instruction.operands
    }
    return _inner_traffic(alone, instruction.name)
  (called,) = called_by(instruction, "calls")
  inner = program.computations[called]
  return _inner_traffic(inner, list(inner)[-1])


def _inner_traffic(inner: Mapping[str, Instruction], root: str) -> int:
  """Of a fusion: its parameters as far as they are used, and what it leaves."""
  users: dict[str, list[tuple[Instruction, int]]] = {}
  for instruction in inner.values():
    if instruction.opcode == "parameter":
      continue
    for place, operand in enumerate(instruction.operands):
      users.setdefault(operand, []).append((instruction, place))

  def read(name: str) -> int:
    whole = sum(array.bytes for array in inner[name].arrays)
    total = 0
    for user, place in users.get(name, []):
      if place == 0 and user.opcode in _SLICES:
        total += user.arrays[0].bytes
      elif place == 0 and user.opcode in _WRITES:
        continue
      elif user.opcode == "bitcast":
        total += read(user.name)
      else:
        return whole
    return min(total, whole)

  def written(name: str) -> int:
    instruction = inner[name]
    if instruction.opcode in _WRITES:
      update = instruction.operands[_WRITES[instruction.opcode]]
      return inner[update].arrays[0].bytes
    if instruction.opcode == "bitcast":
      return written(instruction.operands[0])
    if instruction.opcode == "tuple":
      return sum(map(written, instruction.operands))
    return sum(array.bytes for array in instruction.arrays)

  reads = sum(
    read(name)
    for name, instruction in inner.items()
    if instruction.opcode == "parameter"
  )
  return reads + written(root)
