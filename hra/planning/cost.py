"""A traced function -> what running it would cost: FLOPs and temporary bytes.

Read from the jaxpr, the program before XLA has its say: every scan's body counts as
often as it runs, and nothing is compiled.
"""

import math
from collections.abc import Iterator
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Var

_ARITHMETIC = frozenset(
  [
    "abs",
    "add",
    "add_any",
    "and",
    "ceil",
    "clamp",
    "convert_element_type",
    "cos",
    "div",
    "eq",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "ge",
    "gt",
    "imag",
    "integer_pow",
    "is_finite",
    "le",
    "log",
    "log1p",
    "logistic",
    "lt",
    "max",
    "min",
    "mul",
    "ne",
    "neg",
    "not",
    "or",
    "pow",
    "real",
    "rem",
    "round",
    "rsqrt",
    "select_n",
    "shift_left",
    "shift_right_arithmetic",
    "shift_right_logical",
    "sign",
    "sin",
    "sqrt",
    "square",
    "sub",
    "tanh",
    "xor",
  ]
)
"""One FLOP for each number that they make."""
_VIEWS = frozenset(["copy", "expand_dims", "reshape", "squeeze"])
_IN_PLACE = frozenset(["dynamic_update_slice", "scatter", "scatter-add"])
_UNMADE = frozenset(["broadcast_in_dim", "iota"]) | _VIEWS | _IN_PLACE
"""Nobody writes to new memory what these make, however many read it."""
_FUSED = (
  _ARITHMETIC
  | _UNMADE
  | frozenset(["concatenate", "pad", "rev", "slice", "split", "transpose"])
)
"""What has one reader is computed where that reads it."""
_BODIES = {"scan": "jaxpr", "while": "body_jaxpr"}


def flops(jaxpr: Jaxpr) -> int:
  """FLOPs of a run.

  2 M N K of a product and of a convolution's, one for each number of an arithmetic
  operation, one for each that a reduction sums; a scan's body as often as it runs,
  what each device does by itself (shard_map) on all of them, the most expensive branch, and a loop whose length isn't known once.
  """
  return sum(map(_flops, jaxpr.eqns))


def _flops(equation: JaxprEqn) -> int:
  name, params = equation.primitive.name, equation.params
  if name == "cond":
    return max(flops(branch.jaxpr) for branch in params["branches"])
  inner = sum(map(flops, _called(equation)))
  if inner:
    return inner * _times(equation)
  if not equation.outvars:
    return 0
  size = math.prod(_shape(equation.outvars[0]))
  if name in _ARITHMETIC:
    return size
  if name == "dot_general":
    (contracted, _), _ = params["dimension_numbers"]
    shape = _shape(equation.invars[0])
    return 2 * size * math.prod(shape[axis] for axis in contracted)
  if name == "conv_general_dilated":
    outputs = params["dimension_numbers"].rhs_spec[0]
    shape = _shape(equation.invars[1])
    return 2 * size * (math.prod(shape) // shape[outputs])
  if name == "fft":
    doublings = math.prod(int(math.log2(n)) for n in params["fft_lengths"])
    return 8 * math.prod(_shape(equation.invars[0])) * doublings
  if name.startswith("reduce_") and name != "reduce_precision":
    return math.prod(_shape(equation.invars[0])) - size
  return 0


def _times(equation: JaxprEqn) -> int:
  """How often a body runs: a scan's in turn, a shard_map's on so many devices."""
  params = equation.params
  if equation.primitive.name == "shard_map":
    sizes = params["mesh"].shape
    return math.prod(sizes[axis] for axis in params["newly_manual_axes"])
  return params.get("length", 1)


def temporaries(jaxpr: Jaxpr, *, donated: bool = False) -> int:
  """Bytes that a run holds at most, beside what enters.

  Args:
    donated: what leaves takes the place of what enters.

  A value is held from where it is made to where it is last read, what a scan stacks
  from its start, and the body's own values beside it. Elementwise operations and
  moves with one reader make no value: what they read is held until that reader.

  An estimate: XLA fuses more on a GPU, and copies and widens more on a CPU.
  """
  equations = jaxpr.eqns
  last, made = _lifetimes(jaxpr)
  if donated:
    made.difference_update(v for v in jaxpr.outvars if isinstance(v, Var))
  held = most = 0
  ends: dict[int, int] = {}
  for place, equation in enumerate(equations):
    kept = [v for v in equation.outvars if v in made]
    own = sum(map(_bytes, kept))
    inner = max(map(temporaries, _called(equation)), default=0)
    # What a call returns is among what is counted inside it.
    beside = own if _stacks(equation) or not inner else 0
    most = max(most, held + beside + inner)
    held += own
    for variable in kept:
      end = last.get(variable, place)
      ends[end] = ends.get(end, 0) + _bytes(variable)
    held -= ends.pop(place, 0)
  return most


def _lifetimes(jaxpr: Jaxpr) -> tuple[dict[Var, int], set[Var]]:
  """(the last equation that reads each value, the values that are made)."""
  equations = jaxpr.eqns
  end = len(equations)
  last: dict[Var, int] = {}
  readers: dict[Var, int] = {}
  for place, equation in enumerate([*equations, None]):
    for variable in jaxpr.outvars if equation is None else equation.invars:
      if isinstance(variable, Var):
        last[variable] = place
        readers[variable] = readers.get(variable, 0) + 1
  made: set[Var] = set()
  for place, equation in reversed([*enumerate(equations)]):
    name, outputs = equation.primitive.name, equation.outvars
    until = max((last.get(v, place) for v in outputs), default=place)
    alone = all(readers.get(v, 0) <= 1 for v in outputs) and until < end
    if name in _UNMADE or (name in _FUSED and alone):
      for variable in equation.invars:
        if isinstance(variable, Var):
          last[variable] = max(last[variable], until)
    else:
      made.update(outputs)
  return last, made


def _called(equation: JaxprEqn) -> Iterator[Jaxpr]:
  """What an equation runs."""
  params = equation.params
  body = _BODIES.get(equation.primitive.name)
  if "update_jaxpr" in params:  # how a scatter combines two numbers
    return
  for value in [params[body]] if body else params.values():
    for each in value if isinstance(value, tuple | list) else (value,):
      if isinstance(each, ClosedJaxpr):
        yield each.jaxpr
      elif isinstance(each, Jaxpr):
        yield each


def _stacks(equation: JaxprEqn) -> bool:
  return equation.primitive.name in _BODIES


def _shape(variable: Any) -> tuple[int, ...]:
  return getattr(variable.aval, "shape", ())


def _bytes(variable: Any) -> int:
  """A random key has no size of its own."""
  size = getattr(getattr(variable.aval, "dtype", None), "itemsize", 0)
  return math.prod(_shape(variable)) * size
