"""Reads compiled programs: FLOPs with loops counted, bytes, aliases, collectives.

`cost_analysis()` counts the body of a loop once, whatever its trip count; `flops`
multiplies. It counts what XLA's own analysis counts: 2 M N K of a product, one for
each element of an arithmetic operation, and what a reduction sums. XLA also
counts the whole table where a fusion gathers from it or scatters into it in
place; `traffic` counts the rows.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

BYTES = {
  "pred": 1,
  "s8": 1,
  "u8": 1,
  "bf16": 2,
  "f16": 2,
  "s32": 4,
  "u32": 4,
  "f32": 4,
  "s64": 8,
  "u64": 8,
  "f64": 8,
  "c64": 8,
  "c128": 16,
}
COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "all-to-all",
  "collective-broadcast",
  "collective-permute",
  "ragged-all-to-all",
  "reduce-scatter",
)
_ELEMENTWISE = frozenset(
  [
    "abs",
    "add",
    "and",
    "ceil",
    "clamp",
    "compare",
    "convert",
    "divide",
    "floor",
    "is-finite",
    "maximum",
    "minimum",
    "multiply",
    "negate",
    "not",
    "or",
    "remainder",
    "select",
    "shift-left",
    "shift-right-arithmetic",
    "shift-right-logical",
    "sign",
    "subtract",
    "xor",
  ]
)


class Array(NamedTuple):
  """What an instruction makes, or one element of the tuple that it makes."""

  dtype: str
  dims: tuple[int, ...]

  @property
  def size(self) -> int:
    return math.prod(self.dims)

  @property
  def bytes(self) -> int:
    return self.size * BYTES[self.dtype]


class Instruction(NamedTuple):
  name: str
  arrays: tuple[Array, ...]
  opcode: str
  operands: tuple[str, ...]
  attributes: str


class Program(NamedTuple):
  """Of a module's text: its computations, by name."""

  computations: Mapping[str, Mapping[str, Instruction]]
  entry: str
  header: str

  def instructions(self) -> Iterator[tuple[str, Instruction]]:
    """(computation, instruction) of all computations."""
    for name, computation in self.computations.items():
      for instruction in computation.values():
        yield name, instruction

  @property
  def fused(self) -> set[str]:
    """Computations inside fusions: what they make lies in registers."""
    return {
      called
      for _, instruction in self.instructions()
      if instruction.opcode == "fusion"
      for called in _called(instruction, "calls")
    }

  @property
  def aliases(self) -> dict[int, int]:
    """Places of outputs -> places of the arguments whose buffers they take."""
    found = re.findall(r"\{(\d*)\}: \((\d+), \{\}", self.header)
    return {int(out or 0): int(argument) for out, argument in found}


def parse(text: str) -> Program:
  """The program of a compiled module's `as_text()`."""
  computations: dict[str, dict[str, Instruction]] = {}
  entry, current = "", {}
  lines = text.splitlines()
  for line in lines[1:]:
    opened = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
    if opened:
      current = computations[opened[2]] = {}
      entry = opened[2] if opened[1] else entry
      continue
    instruction = _instruction(line)
    if instruction is not None:
      current[instruction.name] = instruction
  return Program(computations, entry, lines[0])


def flops(program: Program) -> float:
  """FLOPs of a run, every loop's body times its trip count.

  Raises:
    ValueError: for a loop whose trip count isn't known.
  """
  found: dict[str, float] = {}

  def of(name: str) -> float:
    if name not in found:
      computation = program.computations[name]
      found[name] = sum(
        _own(instruction, computation, of)
        for instruction in computation.values()
      )
    return found[name]

  return of(program.entry)


def traffic(program: Program) -> int:
  """Bytes that a run reads and writes outside fusions, loops counted.

  Of what is gathered from, sliced or written into in place, only that part.
  """

  def of(name: str) -> int:
    computation = program.computations[name]
    total = 0
    for instruction in computation.values():
      if instruction.opcode == "while":
        (body,) = _called(instruction, "body")
        total += _trips(instruction) * of(body)
      elif instruction.opcode == "call":
        total += sum(map(of, _called(instruction, "to_apply")))
      elif instruction.opcode not in _FREE:
        total += _moved(instruction, computation, program)
    return total

  return of(program.entry)


def trip_counts(program: Program) -> list[int]:
  """Of all loops."""
  return [
    _trips(instruction)
    for _, instruction in program.instructions()
    if instruction.opcode == "while"
  ]


def called(program: Program, instruction: Instruction) -> list[Instruction]:
  """The instructions inside a fusion."""
  (name,) = _called(instruction, "calls")
  return list(program.computations[name].values())


def collectives(program: Program) -> list[Instruction]:
  """What devices say to each other; starts and not ends of asynchronous ones."""
  return [
    instruction
    for _, instruction in program.instructions()
    if instruction.opcode.removesuffix("-start") in COLLECTIVES
  ]


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


def _moved(instruction: Instruction, computation, program: Program) -> int:
  if instruction.opcode != "fusion":
    inner = {instruction.name: instruction} | {
      name: computation[name]._replace(opcode="parameter")
      for name in instruction.operands
    }
    return _inner_traffic(inner, instruction.name)
  (called,) = _called(instruction, "calls")
  inner = program.computations[called]
  return _inner_traffic(inner, next(reversed(inner)))


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


def _own(instruction: Instruction, computation, of) -> float:
  opcode = instruction.opcode
  if opcode == "while":
    (body,) = _called(instruction, "body")
    (condition,) = _called(instruction, "condition")
    return _trips(instruction) * (of(body) + of(condition))
  if opcode in ("fusion", "call"):
    names = _called(instruction, "calls") or _called(instruction, "to_apply")
    return sum(map(of, names))
  if opcode == "conditional":
    names = re.findall(r"%([\w.\-]+)", instruction.attributes)
    return max(map(of, names))
  size = sum(array.size for array in instruction.arrays)
  if opcode in _ELEMENTWISE:
    return size
  operands = [
    computation[name].arrays[0]
    for name in instruction.operands
    if name in computation
  ]
  if opcode == "dot":
    contracted = _dims(instruction, "lhs_contracting_dims")
    return 2 * size * math.prod(operands[0].dims[d] for d in contracted)
  if opcode == "convolution":
    return 2 * size * _taps(instruction, operands[1])
  if opcode == "fft":
    length = _dims(instruction, "fft_length")
    return 8 * operands[0].size * math.prod(int(math.log2(n)) for n in length)
  if opcode == "reduce":
    (region,) = _called(instruction, "to_apply")
    return (operands[0].size - instruction.arrays[0].size) * of(region)
  if opcode == "reduce-window":
    (region,) = _called(instruction, "to_apply")
    window = re.search(r"window=\{size=([\dx]+)", instruction.attributes)
    taps = math.prod(map(int, window[1].split("x")))
    return instruction.arrays[0].size * (taps - 1) * of(region)
  if opcode == "scatter":
    (region,) = _called(instruction, "to_apply")
    return operands[-1].size * of(region)
  return 0


def _taps(instruction: Instruction, kernel: Array) -> float:
  """Products that each number of a convolution sums."""
  labels = re.search(r"dim_labels=\w+_(\w+)->", instruction.attributes)
  return kernel.size / kernel.dims[labels[1].index("o")]


def _trips(instruction: Instruction) -> int:
  known = re.search(r'known_trip_count":\{"n":"(\d+)"', instruction.attributes)
  if known is None:
    raise ValueError(f"{instruction.name}: the trip count isn't known")
  return int(known[1])


def _called(instruction: Instruction, attribute: str) -> list[str]:
  return re.findall(rf"\b{attribute}=%([\w.\-]+)", instruction.attributes)


def _dims(instruction: Instruction, attribute: str) -> list[int]:
  found = re.search(rf"{attribute}=\{{([\d,]*)\}}", instruction.attributes)
  return [int(dim) for dim in found[1].split(",")]


_LINE = re.compile(
  r"\s+(?:ROOT )?%(?P<name>[\w.\-]+) = "
  r"(?P<type>\(.*?\)|\w+\[[\d,]*\](?:\{[^}]*\})?) "
  r"(?P<opcode>[a-z\-]+)\((?P<rest>.*)$"
)


def _instruction(line: str) -> Instruction | None:
  match = _LINE.match(line)
  if match is None:
    return None
  arrays = tuple(
    Array(dtype, tuple(int(dim) for dim in dims.split(",") if dim))
    for dtype, dims in re.findall(r"\b(\w+)\[([\d,]*)\]", match["type"])
  )
  operands, _, attributes = match["rest"].partition(")")
  return Instruction(
    match["name"],
    arrays,
    match["opcode"],
    tuple(re.findall(r"%([\w.\-]+)", operands)),
    attributes,
  )
