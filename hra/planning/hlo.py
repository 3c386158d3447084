"""The text of a compiled program -> its FLOPs and what devices send each other.

`cost_analysis()` counts the body of a loop once, whatever its trip count; here it
counts as often as it runs. FLOPs are what XLA's own analysis counts: 2 M N K of a
product, of a convolution only where it meets real numbers, one for each element of an
arithmetic operation, and what a reduction sums.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

BYTES = {
  "pred": 1,
  "s8": 1,
  "u8": 1,
  "bf16": 2,
  "f16": 2,
  "s16": 2,
  "u16": 2,
  "s32": 4,
  "u32": 4,
  "f32": 4,
  "s64": 8,
  "u64": 8,
  "f64": 8,
  "c64": 8,
  "c128": 16,
}
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
  """Of a constant: its value."""


Computation = Mapping[str, Instruction]


class Program(NamedTuple):
  """Of a module's text: its computations, by name."""

  computations: Mapping[str, Computation]
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
      for called in called_by(instruction, "calls")
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
  if match["opcode"] == "constant":
    attributes = operands
  return Instruction(
    match["name"],
    arrays,
    match["opcode"],
    tuple(re.findall(r"%([\w.\-]+)", operands)),
    attributes,
  )


def flops(program: Program) -> float:
  """FLOPs of a run, every loop's body times its trip count."""
  found: dict[str, float] = {}

  def of(name: str) -> float:
    if name not in found:
      computation = program.computations[name]
      found[name] = sum(
        _own(program, instruction, computation, of)
        for instruction in computation.values()
      )
    return found[name]

  return of(program.entry)


def trips(program: Program, loop: Instruction) -> int | None:
  """How often a loop's body runs; None where the text doesn't say.

  Where XLA doesn't write it down, the condition does: it compares a counter, which
  starts at 0, with a number.
  """
  known = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
  if known:
    return int(known[1])
  (name,) = called_by(loop, "condition")
  condition = program.computations[name]
  *_, root = condition.values()
  while root.opcode in ("fusion", "call") and root.arrays:
    inner = called_by(root, "calls") or called_by(root, "to_apply")
    *_, root = program.computations[inner[0]].values()
  bounds = [
    int(each.attributes)
    for each in condition.values()
    if each.opcode == "constant" and each.attributes.isdigit()
  ]
  counts = root.opcode == "compare" and "direction=LT" in root.attributes
  return bounds[0] if counts and len(bounds) == 1 else None


def called_by(instruction: Instruction, attribute: str) -> list[str]:
  """Names of the computations that an attribute of an instruction names."""
  return re.findall(rf"\b{attribute}=%([\w.\-]+)", instruction.attributes)


def _own(
  program: Program,
  instruction: Instruction,
  computation: Computation,
  of: Callable[[str], float],
) -> float:
  opcode = instruction.opcode
  if opcode == "while":
    times = trips(program, instruction) or 1
    return times * sum(map(of, inner(instruction)))
  if opcode == "conditional":
    return max(map(of, inner(instruction)))
  if opcode in _CALLS:
    return sum(map(of, inner(instruction)))
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
    return 2 * _products(instruction, *operands)
  if opcode == "fft":
    length = _dims(instruction, "fft_length")
    return 8 * operands[0].size * math.prod(int(math.log2(n)) for n in length)
  return _reduced(instruction, operands, of)


def _reduced(
  instruction: Instruction, operands: list[Array], of: Callable[[str], float]
) -> float:
  """FLOPs of what combines numbers by a function."""
  opcode, size = instruction.opcode, instruction.arrays[:1]
  if opcode not in ("reduce", "reduce-window", "scatter"):
    return 0
  (region,) = called_by(instruction, "to_apply")
  if opcode == "reduce":
    return (operands[0].size - size[0].size) * of(region)
  if opcode == "scatter":
    return operands[-1].size * of(region)
  window = re.search(r"window=\{size=([\dx]+)", instruction.attributes)
  taps = math.prod(map(int, window[1].split("x"))) if window else 1
  return size[0].size * (taps - 1) * of(region)


_CALLS = {
  "fusion": "calls",
  "call": "to_apply",
  "async-start": "calls",
}


def inner(instruction: Instruction) -> list[str]:
  """What an instruction runs."""
  if instruction.opcode == "while":
    names = called_by(instruction, "body")
    return names + called_by(instruction, "condition")
  if instruction.opcode == "conditional":
    branches = re.search(
      r"branch_computations=\{([^}]*)\}", instruction.attributes
    )
    if branches:
      return re.findall(r"%([\w.\-]+)", branches[1])
    return re.findall(
      r"(?:true|false)_computation=%([\w.\-]+)", instruction.attributes
    )
  attribute = _CALLS.get(instruction.opcode)
  return called_by(instruction, attribute) if attribute else []


def _products(convolution: Instruction, inputs: Array, kernel: Array) -> int:
  """Products that a convolution sums, those with padding and holes left out.

  XLA writes a batched product as a convolution over the batch whose window meets
  one real number at a time.
  """
  labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", convolution.attributes)
  assert labels is not None, convolution
  left, right, out = labels.groups()
  size = convolution.arrays[0].size
  met = 1
  for place, axis in enumerate(sorted(filter(str.isdigit, out))):
    made = convolution.arrays[0].dims[out.index(axis)]
    size //= max(made, 1)
    met *= _meetings(
      convolution,
      place,
      inputs=inputs.dims[left.index(axis)],
      taps=kernel.dims[right.index(axis)],
      outputs=made,
    )
  groups = re.search(r"batch_group_count=(\d+)", convolution.attributes)
  in_batch = int(groups[1]) if groups else 1
  return size * met * kernel.dims[right.index("i")] // in_batch


def _meetings(
  convolution: Instruction,
  place: int,
  *,
  inputs: int,
  taps: int,
  outputs: int,
) -> int:
  """(output, tap) pairs along one axis where the tap meets an input."""
  stride, dilation, holes = (
    _window(convolution, place, name, "1")
    for name in ("stride", "rhs_dilate", "lhs_dilate")
  )
  before = _window(convolution, place, "pad", "0_0")
  at = (
    stride * np.arange(outputs)[:, None] + dilation * np.arange(taps) - before
  )
  inside = (at >= 0) & (at < (inputs - 1) * holes + 1) & (at % holes == 0)
  return int(inside.sum())


def _window(
  instruction: Instruction, place: int, name: str, default: str
) -> int:
  window = re.search(r"window=\{([^}]*)\}", instruction.attributes)
  found = re.search(rf"\b{name}=([\dx_\-]+)", window[1] if window else "")
  if not found:
    return int(default.partition("_")[0])
  return int(found[1].split("x")[place].partition("_")[0])


def _dims(instruction: Instruction, attribute: str) -> list[int]:
  found = re.search(rf"{attribute}=\{{([\d,]*)\}}", instruction.attributes)
  return [int(dim) for dim in found[1].split(",")] if found else []
