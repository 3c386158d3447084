"""A sweep's results -> the geometry of one plot of WER over what varies."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hra.evaluate.figures import Axis, Tick, axis, decades
from hra.evaluate.sweep import (
  SweepRun,
  SweepRuns,
  is_seed,
  short_names,
  shown,
)
from hra.evaluate.table import percent

MOST_LINES = 6
"""As many as there are marks and colours that all readers can tell apart."""

_FAMILIES = ("adapter.family", "space.kind")
"""Where these vary, a width is not the same thing in two runs; parameters are."""

_ROOM = 0.05
"""Of the axis, before the first and behind the last value."""
_NEAREST = 8.0
"""Per cent of the axis between two labels."""


class Point(NamedTuple):
  """Runs that differ in their seed only; per cent of the box, y downward."""

  x: float
  y: float
  low: float | None
  high: float | None
  title: str


class Line(NamedTuple):
  """The points of one value of the other fields."""

  name: str
  path: str
  """SVG path data in a box of 100 x 100."""
  points: list[Point]


class SweepPlot(NamedTuple):
  """WER over a field, or over parameters per task."""

  x: Axis
  y: Axis
  by: str
  """What x is."""
  log: bool
  """Whether x is logarithmic."""
  lines: list[Line]
  hidden: int
  """Lines left out: those of the highest WER."""
  seeds: int
  """The most runs behind one point."""
  backbone: float | None
  """The WER without adaptation, where all runs agree on it."""


class _Mean(NamedTuple):
  """Runs that differ in their seed only."""

  label: str
  values: Mapping[str, Any]
  size: int
  """Parameters per task."""
  wer: float
  low: float | None
  high: float | None
  backbone: float | None
  runs: int


def sweep_plot(sweep: SweepRuns) -> SweepPlot | None:
  """The plot of a sweep's finished runs; None where no line has a direction.

  x is the numeric field with the most values, or parameters per task where no
  field is numeric or adapters of different families are compared. Every other
  field that varies makes lines; where that leaves each line one size, as where
  sweep() names every run, a family is a line, or else what is no size. Seeds are averaged: a bar is their range where
  there are several, and the interval of the WER where there is one.
  """
  fields = [field for field in sweep.fields if not is_seed(field)]
  means = _means(sweep.done, fields)
  fields = [field for field in fields if _varies_in_a_label(field, means)]
  field = _numeric_axis(fields, means)
  sizes = {mean.size for mean in means if mean.size > 0}
  if len(sizes) > 1 and (field is None or set(_FAMILIES) & set(sweep.fields)):
    field = None
    means = [mean for mean in means if mean.size > 0]
    groups = _over_sizes(means, fields, sweep.fields)
  elif field is not None:
    groups = _grouped(means, [each for each in fields if each != field])
  else:
    return None
  return _plot(groups, field) if _directed(groups, field) else None


def _over_sizes(
  means: Sequence[_Mean], fields: Sequence[str], every: Sequence[str]
) -> dict[str, list[_Mean]]:
  """The finest lines over the parameters per task of which one has a direction.

  Args:
    fields: that vary in a label.
    every: that vary at all.
  """
  bare = [mean._replace(label="") for mean in means]
  telling = [each for each in every if not is_seed(each)]
  sizeless = [each for each in telling if not _moves_size(each, bare, telling)]
  families = [each for each in _FAMILIES if each in telling]
  by_label = [each for each in fields if not _moves_size(each, means, fields)]
  groups = _grouped(means, by_label)
  if _directed(groups, None):
    return groups
  return _grouped(means, families or sizeless, labelled=False)


def _grouped(
  means: Sequence[_Mean], fields: Sequence[str], *, labelled: bool = True
) -> dict[str, list[_Mean]]:
  """Lines by the values of some fields and, unless it is left out, the label."""
  groups: dict[str, list[_Mean]] = {}
  for mean in means:
    named = mean if labelled else mean._replace(label="")
    groups.setdefault(_name(named, fields), []).append(mean)
  return groups


def _directed(groups: Mapping[str, Sequence[_Mean]], field: str | None) -> bool:
  """Whether a line has two points beside one another."""
  return any(
    len({_x(mean, field) for mean in means}) > 1 for means in groups.values()
  )


def _plot(groups: Mapping[str, list[_Mean]], field: str | None) -> SweepPlot:
  """The plot of the best groups, over a field or the parameters per task."""
  best = sorted(groups, key=lambda name: min(mean.wer for mean in groups[name]))
  kept = [name for name in groups if name in best[:MOST_LINES]]
  drawn = [mean for name in kept for mean in groups[name]]
  x, log = _x_axis([_x(mean, field) for mean in drawn], sizes=field is None)
  y = _y_axis(drawn)
  alone = {mean.backbone for mean in drawn}
  return SweepPlot(
    x=x,
    y=y,
    by=field or "parameters per task",
    log=log,
    lines=[
      _line(name, groups[name], x=x, y=y, field=field, log=log) for name in kept
    ],
    hidden=len(groups) - len(kept),
    seeds=max(mean.runs for mean in drawn),
    backbone=alone.pop() if len(alone) == 1 else None,
  )


def _means(runs: Sequence[SweepRun], fields: Sequence[str]) -> list[_Mean]:
  groups: dict[tuple[str, ...], list[SweepRun]] = {}
  for run in runs:
    if run.results is not None and run.results["overall"]["wer"] is not None:
      key = (run.label, *(shown(run.values[field]) for field in fields))
      groups.setdefault(key, []).append(run)
  means = [_mean(group) for group in groups.values()]
  if all(mean.runs == 1 for mean in means):
    return means
  # One kind of bar in a plot: ranges, where there are any.
  return [
    mean if mean.runs > 1 else mean._replace(low=None, high=None)
    for mean in means
  ]


def _mean(group: Sequence[SweepRun]) -> _Mean:
  results = [run.results for run in group if run.results is not None]
  rates = [each["overall"]["wer"] for each in results]
  first = results[0]
  alone = len(rates) == 1
  bare = {each["overall"]["backbone_wer"] for each in results}
  return _Mean(
    label=group[0].label,
    values=group[0].values,
    size=first["parameters"]["per_task"],
    wer=sum(rates) / len(rates),
    low=first["overall"]["wer_low"] if alone else min(rates),
    high=first["overall"]["wer_high"] if alone else max(rates),
    backbone=bare.pop() if len(bare) == 1 else None,
    runs=len(rates),
  )


def _varies_in_a_label(field: str, means: Sequence[_Mean]) -> bool:
  """Whether a field says more than the label does."""
  values: dict[str, set[str]] = {}
  for mean in means:
    values.setdefault(mean.label, set()).add(shown(mean.values[field]))
  return any(len(each) > 1 for each in values.values())


def _numeric_axis(fields: Sequence[str], means: Sequence[_Mean]) -> str | None:
  """The numeric field with the most values, if a line along it has two points."""
  best, most = None, 1
  for field in fields:
    values = [mean.values[field] for mean in means]
    if not all(_is_number(value) for value in values):
      continue
    others = [each for each in fields if each != field]
    names = [_name(mean, others) for mean in means]
    if len(set(names)) < len(names) and len(set(values)) > most:
      best, most = field, len(set(values))
  return best


def _moves_size(
  field: str, means: Sequence[_Mean], fields: Sequence[str]
) -> bool:
  """Whether a numeric field alone changes the parameters per task."""
  if not all(_is_number(mean.values[field]) for mean in means):
    return False
  others = [each for each in fields if each != field]
  sizes: dict[str, set[int]] = {}
  for mean in means:
    sizes.setdefault(_name(mean, others), set()).add(mean.size)
  return any(len(each) > 1 for each in sizes.values())


def _name(mean: _Mean, fields: Sequence[str]) -> str:
  short = short_names(fields)
  parts = [f"{short[field]} {shown(mean.values[field])}" for field in fields]
  return ", ".join(filter(None, [mean.label, *parts]))


def _x(mean: _Mean, field: str | None) -> float:
  return float(mean.size if field is None else mean.values[field])


def _x_axis(values: Sequence[float], *, sizes: bool) -> tuple[Axis, bool]:
  """The axis, and whether its values are logarithms."""
  distinct = sorted(set(values))
  if sizes:
    return decades(distinct[0], distinct[-1]), True
  log = _is_geometric(distinct)
  places = [math.log10(value) if log else value for value in distinct]
  room = _ROOM * (places[-1] - places[0]) or 0.5
  result = Axis(places[0] - room, places[-1] + room, [])
  # The last label stays: it says how far the sweep went.
  last = result.at(places[-1])
  for place, value in zip(places, distinct, strict=True):
    at = result.at(place)
    before = result.ticks[-1].at if result.ticks else -_NEAREST
    clear = at - before >= _NEAREST and last - at >= _NEAREST
    if clear or at == last:
      result.ticks.append(
        Tick(at, f"{value:,g}" if value < 1e5 else f"{value:g}")
      )
  return result, log


def _is_geometric(values: Sequence[float]) -> bool:
  """Whether steps are more alike as factors than as differences."""
  if values[0] <= 0 or values[-1] < 4 * values[0]:
    return False
  return len(values) == 2 or _unevenness(
    [math.log(value) for value in values]
  ) < _unevenness(values)


def _unevenness(values: Sequence[float]) -> float:
  """The deviation of the steps between values, in terms of their mean."""
  steps = [b - a for a, b in itertools.pairwise(values)]
  mean = sum(steps) / len(steps)
  return math.sqrt(sum((step - mean) ** 2 for step in steps)) / mean


def _y_axis(means: Sequence[_Mean]) -> Axis:
  rates = [
    rate
    for mean in means
    for rate in (mean.wer, mean.low, mean.high)
    if rate is not None
  ]
  return axis(min(rates), max(rates), count=4, percent=True)


def _line(
  name: str,
  means: Sequence[_Mean],
  *,
  x: Axis,
  y: Axis,
  field: str | None,
  log: bool,
) -> Line:
  def down(rate: float | None) -> float | None:
    return None if rate is None else round(100 - y.at(rate), 2)

  points = []
  for mean in sorted(means, key=lambda mean: (_x(mean, field), mean.wer)):
    value = _x(mean, field)
    points.append(
      Point(
        x.at(math.log10(value) if log else value),
        round(100 - y.at(mean.wer), 2),
        down(mean.low),
        down(mean.high),
        _title(name, mean, field),
      )
    )
  path = "M" + "L".join(f"{point.x:g} {point.y:g}" for point in points)
  return Line(name, path, points)


def _title(name: str, mean: _Mean, field: str | None) -> str:
  """What a pointer over a point, or a screen reader, tells."""
  where = (
    f"{mean.size:,} parameters per task"
    if field is None
    else f"{field} {shown(mean.values[field])}"
  )
  rate = f"WER {percent(mean.wer)}%"
  if mean.low is not None and mean.high is not None:
    rate += f" ({percent(mean.low)} to {percent(mean.high)}"
    rate += f" over {mean.runs} seeds)" if mean.runs > 1 else ")"
  label = "" if name.startswith(mean.label) else mean.label
  return ", ".join(filter(None, [name, label, where, rate]))


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)
