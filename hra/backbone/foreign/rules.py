"""Tensors of others -> ours, as a table of rules that is checked before it is used.

A rule says which tensors of ours are made of which of theirs, and how. Where a
name of theirs has {l} in it, the rule holds for each layer and ours are stacked.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from hra.backbone.foreign.source import Source
from hra.errors import InputError

Shape = tuple[int, ...]
LAYER = "{l}"
"""Stands for the number of a layer in names of theirs."""
_BATCH_NORM_EPSILON = 1e-5
"""PyTorch's, which no checkpoint states."""


class Rule(NamedTuple):
  """`ours` of `theirs`."""

  ours: tuple[str, ...]
  """Paths; `layers/...` where it holds for each layer."""
  theirs: tuple[str, ...]
  shapes: Callable[..., tuple[Shape, ...]]
  """Shapes of ours, of one layer -> those that theirs must have."""
  make: Callable[..., tuple[np.ndarray, ...]]
  """Theirs -> ours, of one layer."""

  @property
  def layered(self) -> bool:
    return LAYER in self.theirs[0]


def same(ours: str, theirs: str) -> Rule:
  return _one(ours, theirs, lambda s: s, lambda x: x)


def linear(ours: str, theirs: str, *, bias: bool = True) -> list[Rule]:
  """A projection: [outputs, inputs] -> [inputs, outputs], and its bias."""
  both = _with_bias(ours, theirs, lambda s: s[::-1], np.transpose)
  return both if bias else both[:1]


def summed(
  ours: str, *theirs: str, less: Callable[[Shape], np.ndarray] | None = None
) -> Rule:
  """A bias of several, in float64.

  Args:
    less: its shape -> what ours adds by itself.
  """

  def make(*biases: np.ndarray) -> tuple[np.ndarray, ...]:
    total = np.stack(biases).astype(np.float64).sum(axis=0)
    if less is not None:
      total = total - less(total.shape)
    return (np.asarray(total),)

  return Rule((ours,), theirs, lambda s: (s,) * len(theirs), make)


def rows(ours: str, theirs: str, *, order: Sequence[int]) -> Rule:
  """A table put in `order`, as the labels of `labels`."""
  at = np.asarray(order)
  return _one(ours, theirs, lambda s: s, lambda x: x[at])


def lstm(ours: str, theirs: str, *, layer: int) -> list[Rule]:
  """A layer of PyTorch's LSTM: two biases, and no forget gate that starts open.

  The order of its gates is ours.
  """
  found: list[Rule] = []
  for our, their in (("input", "ih"), ("recurrent", "hh")):
    weight = f"{theirs}.weight_{their}_l{layer}"
    found.append(
      _one(f"{ours}/{our}/kernel", weight, lambda s: s[::-1], np.transpose)
    )
  biases = (f"{theirs}.bias_{name}_l{layer}" for name in ("ih", "hh"))
  return [*found, summed(f"{ours}/input/bias", *biases, less=_open_gates)]


def _open_gates(shape: Shape) -> np.ndarray:
  """What `hra.nn.lstm` adds to its forget gates, the second of four."""
  return np.repeat([0.0, 1.0, 0.0, 0.0], shape[0] // 4)


def pointwise(ours: str, theirs: str, *, axes: int = 1) -> list[Rule]:
  """A convolution of kernel 1 along `axes`, which is a projection, and its bias."""
  ones = (1,) * axes
  return _with_bias(
    ours,
    theirs,
    lambda s: (*s[::-1], *ones),
    lambda w: w.reshape(w.shape[:2]).T,
  )


def convolution(ours: str, theirs: str) -> list[Rule]:
  """[outputs, inputs, *kernel] -> [*kernel, inputs, outputs], and its bias."""

  def theirs_of(shape: Shape) -> Shape:
    *kernel, inputs, outputs = shape
    return (outputs, inputs, *kernel)

  def make(weight: np.ndarray) -> np.ndarray:
    axes = range(weight.ndim)
    return weight.transpose(*axes[2:], 1, 0)

  return _with_bias(ours, theirs, theirs_of, make)


def depthwise(ours: str, theirs: str) -> list[Rule]:
  """[channels, 1, *kernel] -> [*kernel, channels], and its bias."""
  return _with_bias(
    ours,
    theirs,
    lambda s: (s[-1], 1, *s[:-1]),
    lambda w: np.moveaxis(w[:, 0], 0, -1),
  )


def norm(ours: str, theirs: str) -> list[Rule]:
  """A layer norm: scale and bias."""
  return [
    same(f"{ours}/scale", f"{theirs}.weight"),
    same(f"{ours}/bias", f"{theirs}.bias"),
  ]


def flattened(ours: str, theirs: str, *, channels: int) -> list[Rule]:
  """A projection of [channels, bins] -> one of [bins, channels], and its bias."""

  def make(weight: np.ndarray) -> np.ndarray:
    by_bin = weight.reshape(len(weight), channels, -1).transpose(2, 1, 0)
    return by_bin.reshape(-1, len(weight))

  return _with_bias(ours, theirs, lambda s: s[::-1], make)


def folded(ours: str, filters: str, batch_norm: str, *, bias: bool) -> Rule:
  """A depthwise convolution and the frozen BatchNorm after it, as the former alone.

  scale = weight / sqrt(variance + epsilon): taps * scale, and the bias (bias -
  mean) * scale + shift; in float64.

  Args:
    bias: whether the convolution has one.
  """
  theirs = [f"{filters}.weight", *([f"{filters}.bias"] if bias else [])]
  norms = ("weight", "bias", "running_mean", "running_var")

  def make(*tensors: np.ndarray) -> tuple[np.ndarray, ...]:
    taps, *own, weight, shift, mean, variance = (
      tensor.astype(np.float64) for tensor in tensors
    )
    scale = weight / np.sqrt(variance + _BATCH_NORM_EPSILON)
    before = own[0] if own else 0.0
    return taps[:, 0].T * scale, (before - mean) * scale + shift

  return Rule(
    ours=(f"{ours}/kernel", f"{ours}/bias"),
    theirs=(*theirs, *(f"{batch_norm}.{name}" for name in norms)),
    shapes=lambda kernel, own: (
      (kernel[1], 1, kernel[0]),
      *[own] * (bias + len(norms)),
    ),
    make=make,
  )


def labels(
  ours: str, theirs: str, *, order: Sequence[int], rank: int
) -> list[Rule]:
  """The projection on labels, put in `order`: ours of label i is theirs of order[i].

  Args:
    rank: of their weight: 2, or 3 where it is a convolution of kernel 1.
  """
  ones = (1,) * (rank - 2)
  at = np.asarray(order)
  return [
    _one(
      f"{ours}/kernel",
      f"{theirs}.weight",
      lambda s: (*s[::-1], *ones),
      lambda w: w.reshape(w.shape[:2])[at].T,
    ),
    _one(f"{ours}/bias", f"{theirs}.bias", lambda s: s, lambda b: b[at]),
  ]


class Plan:
  """Rules that make each tensor of ours, of each tensor of a source once.

  A rule whose tensors ours don't have, such as the bias of a norm without, is left
  out; a bias of theirs is then a tensor too many.

  Args:
    wanted: ours, stacked over layers.
    ignorable: of theirs what has no use, by the end of its name.

  Raises:
    InputError: a tensor of theirs is missing, too many, or of another shape.
  """

  def __init__(
    self,
    source: Source,
    rules: Sequence[Rule],
    wanted: Mapping[str, jax.ShapeDtypeStruct],
    *,
    ignorable: Sequence[str],
  ):
    self._source = source
    self._wanted = wanted
    self._made_by = {
      path: (rule, place)
      for rule in rules
      for place, path in enumerate(rule.ours)
      if path in wanted
    }
    if self._made_by.keys() != wanted.keys():
      raise ValueError(f"no rule for {wanted.keys() - self._made_by.keys()}")
    used: set[str] = set()
    for rule in rules:
      if rule.ours[0] in wanted:
        used |= self._checked(rule, wanted, used)
    for name in source.names:
      if name not in used and not name.endswith(tuple(ignorable)):
        raise InputError(
          source.where(name),
          expected="no such tensor in this architecture",
          got=f"one of shape {source.shape(name)}",
          fix="its config.json doesn't say all of it, or it is no plain checkpoint",
        )

  def parts(self, path: str) -> Iterator[np.ndarray]:
    """A tensor of ours, layer by layer where it is stacked."""
    rule, place = self._made_by[path]
    for names in self._names(rule):
      made = rule.make(*map(self._source.read, names))[place]
      yield made[None] if rule.layered else made

  def _names(self, rule: Rule) -> Iterator[tuple[str, ...]]:
    """Their names, of one layer after the other."""
    layers = self._wanted[rule.ours[0]].shape[0] if rule.layered else 1
    for layer in range(layers):
      yield tuple(name.replace(LAYER, str(layer)) for name in rule.theirs)

  def _checked(
    self,
    rule: Rule,
    wanted: Mapping[str, jax.ShapeDtypeStruct],
    used: set[str],
  ) -> set[str]:
    """Names that the rule uses, each of the shape that it has to have."""
    ours = (wanted[path].shape[rule.layered :] for path in rule.ours)
    shapes = rule.shapes(*ours)
    names: set[str] = set()
    for each in self._names(rule):
      for name, shape in zip(each, shapes, strict=True):
        if name in names | used:
          raise ValueError(f"two rules for {name}")
        got = (
          self._source.shape(name) if name in self._source else "no such tensor"
        )
        if got != shape:
          raise InputError(
            self._source.where(name), expected=f"shape {shape}", got=str(got)
          )
        names.add(name)
    return names


def _one(
  ours: str,
  theirs: str,
  shape: Callable[[Shape], Shape],
  make: Callable[[np.ndarray], np.ndarray],
) -> Rule:
  return Rule((ours,), (theirs,), lambda s: (shape(s),), lambda x: (make(x),))


def _with_bias(
  ours: str,
  theirs: str,
  shape: Callable[[Shape], Shape],
  make: Callable[[np.ndarray], np.ndarray],
) -> list[Rule]:
  return [
    _one(f"{ours}/kernel", f"{theirs}.weight", shape, make),
    same(f"{ours}/bias", f"{theirs}.bias"),
  ]
