"""Numbers -> the geometry of the report's plots, in per cent of their box.

The template draws it: positions are fractions of a box that stretches with the
page, labels are HTML beside it, so that text keeps its size on a phone and
colours follow the reader's theme.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hra.evaluate.runs import Run

MOST_POINTS = 400
"""Of a curve; longer ones are thinned evenly."""
MOST_ROWS = 48
"""Of a dumbbell plot; of more tasks the best and the worst changes show."""


class Tick(NamedTuple):
  """A mark of an axis."""

  at: float
  label: str


class Axis(NamedTuple):
  """A linear axis: values in [low, high] stand at 0 to 100 per cent."""

  low: float
  high: float
  ticks: list[Tick]

  def at(self, value: float) -> float:
    span = self.high - self.low
    return round(min(100.0, max(0.0, 100 * (value - self.low) / span)), 2)


class Dumbbell(NamedTuple):
  """One row: before, after and the interval of after; per cent of the box."""

  name: str
  before: float | None
  after: float | None
  low: float | None
  high: float | None
  worse: bool
  figures: Mapping[str, Any]


class DumbbellPlot(NamedTuple):
  """Word error rates before and after, one row each."""

  axis: Axis
  rows: list[Dumbbell]
  hidden: int
  """Rows left out between the best and the worst."""


class Series(NamedTuple):
  """One line of a line chart."""

  name: str
  path: str
  """SVG path data in a box of 100 x 100, y downward."""
  kind: str
  """`main` or `reference`: solid or dashed."""
  last: str


class LineChart(NamedTuple):
  """Figures over training steps."""

  title: str
  x: Axis
  y: Axis
  series: list[Series]


class TradeOffPoint(NamedTuple):
  """One run: what a task costs against how well it is heard."""

  name: str
  x: float
  y: float
  low: float | None
  high: float | None


class TradeOff(NamedTuple):
  """Runs' WER over parameters per task, which stand on a log axis."""

  x: Axis
  y: Axis
  points: list[TradeOffPoint]


class Share(NamedTuple):
  """One bar of the parameter plot."""

  name: str
  parameters: int
  width: float
  """Per cent of the widest bar."""
  of_backbone: float | None
  """Fraction."""


def axis(
  low: float,
  high: float,
  *,
  count: int = 5,
  percent: bool = False,
  snug: bool = False,
) -> Axis:
  """An axis from a round number at or below `low` to one at or above `high`.

  Args:
    low: smallest value to show.
    high: largest value to show.
    count: about how many intervals the ticks cut.
    percent: label fractions as per cent.
    snug: end at `low` and `high` themselves, with the round numbers between.
  """
  if high <= low:
    high = low + max(1e-3, abs(low) * 0.1)
  raw = (high - low) / count
  magnitude = 10.0 ** math.floor(math.log10(raw))
  step = magnitude * next(
    factor for factor in (1, 2, 5, 10) if raw <= factor * magnitude * 1.0001
  )
  first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
  result = Axis(first * step, last * step, [])
  if snug:
    result = Axis(low, high, [])
  for index in range(first, last + 1):
    value = index * step
    if not result.low <= value <= result.high:
      continue
    result.ticks.append(
      Tick(result.at(value), _label(value, step, percent=percent))
    )
  return result


def dumbbells(
  groups: Sequence[tuple[str, Mapping[str, Any]]],
) -> DumbbellPlot | None:
  """One row per group, in their order; None where there is nothing to show.

  Args:
    groups: (name, figures as in results.json's tasks).
  """
  known = [group for group in groups if group[1]["wer"] is not None]
  if not known:
    return None
  shown = known
  if len(known) > MOST_ROWS:
    by_change = sorted(known, key=lambda group: group[1]["difference"] or 0)
    half = MOST_ROWS // 2
    kept = {name for name, _ in by_change[:half] + by_change[-half:]}
    shown = [group for group in known if group[0] in kept]
  values = [
    figures[key]
    for _, figures in shown
    for key in ("wer", "backbone_wer", "wer_high")
    if figures[key] is not None
  ]
  scale = axis(0.0, max(*values, 0.01), percent=True)

  def at(rate: float | None) -> float | None:
    return None if rate is None else scale.at(rate)

  rows = [
    Dumbbell(
      name=name,
      before=at(figures["backbone_wer"]),
      after=at(figures["wer"]),
      low=at(figures["wer_low"]),
      high=at(figures["wer_high"]),
      worse=(figures["difference"] or 0) > 0,
      figures=figures,
    )
    for name, figures in shown
  ]
  return DumbbellPlot(scale, rows, len(known) - len(rows))


def curves(run: Run) -> list[LineChart]:
  """The charts that the run's metrics allow: loss, dev WER, throughput."""
  charts = [
    _chart("Training loss", [("loss", "main", run.curve("loss"))]),
    _chart(
      "Development WER, %",
      [
        ("adapted", "main", run.curve("dev_wer")),
        ("backbone", "reference", run.curve("dev_backbone_wer")),
      ],
      percent=True,
    ),
    _chart(
      "Utterances per second",
      [("utterances/s", "main", run.curve("utterances_per_second"))],
      from_zero=True,
    ),
  ]
  return [chart for chart in charts if chart]


def trade_off(
  groups: Sequence[tuple[str, Mapping[str, Any]]],
) -> TradeOff | None:
  """Runs by parameters per task; None unless two runs differ in them.

  Args:
    groups: (name, results.json).
  """
  known = [
    (name, results["parameters"]["per_task"], results["overall"])
    for name, results in groups
    if results["parameters"].get("per_task", 0) > 0
    and results["overall"]["wer"] is not None
  ]
  sizes = [size for _, size, _ in known]
  if len(set(sizes)) < 2:
    return None
  x = decades(min(sizes), max(sizes))
  rates = [
    overall[key]
    for _, _, overall in known
    for key in ("wer", "wer_low", "wer_high")
    if overall[key] is not None
  ]
  y = axis(min(rates), max(rates), count=4, percent=True)

  def at(rate: float | None) -> float | None:
    return None if rate is None else round(100 - y.at(rate), 2)

  points = [
    TradeOffPoint(
      name,
      x.at(math.log10(size)),
      100 - y.at(overall["wer"]),
      at(overall["wer_low"]),
      at(overall["wer_high"]),
    )
    for name, size, overall in known
  ]
  return TradeOff(x, y, points)


def shares(parameters: Mapping[str, int]) -> list[Share]:
  """Bars of what one task costs beside the backbone and what all share."""
  names = {
    "backbone": "Backbone, frozen",
    "shared": "Shared by all tasks",
    "per_task": "Owned by each task",
  }
  widest = max(1, *(parameters.get(key, 0) for key in names))
  backbone = parameters.get("backbone", 0)
  return [
    Share(
      name,
      parameters[key],
      round(100 * parameters[key] / widest, 3),
      parameters[key] / backbone if backbone else None,
    )
    for key, name in names.items()
    if key in parameters
  ]


def decades(low: float, high: float) -> Axis:
  """A log10 axis with ticks at 1, 2 and 5 times the powers of ten."""
  marks = [
    factor * 10.0**power
    for power in range(
      math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    )
    for factor in (1, 2, 5)
  ]
  first = max(mark for mark in marks if mark < low)
  last = min(mark for mark in marks if mark > high)
  result = Axis(math.log10(first), math.log10(last), [])
  wide = math.log10(last / first) > 2
  for mark in marks:
    leads = f"{mark:g}".startswith("1")
    if first <= mark <= last and (leads or not wide):
      result.ticks.append(Tick(result.at(math.log10(mark)), _label(mark, mark)))
  return result


def _chart(
  title: str,
  lines: Sequence[tuple[str, str, list[tuple[float, float]]]],
  *,
  percent: bool = False,
  from_zero: bool = False,
) -> LineChart | None:
  lines = [line for line in lines if len(line[2]) > 1]
  if not lines:
    return None
  steps = [step for _, _, points in lines for step, _ in points]
  values = [value for _, _, points in lines for _, value in points]
  low = 0.0 if from_zero else min(values)
  x = axis(min(steps), max(steps), count=4, snug=True)
  y = axis(low, max(values), count=4, percent=percent)
  series = [
    Series(name, _path(points, x, y), kind, _last(points[-1][1], percent))
    for name, kind, points in lines
  ]
  return LineChart(title, x, y, series)


def _path(points: list[tuple[float, float]], x: Axis, y: Axis) -> str:
  stride = math.ceil(len(points) / MOST_POINTS)
  kept = points[:-1:stride] + points[-1:]
  return "M" + "L".join(
    f"{x.at(step):g} {100 - y.at(value):g}" for step, value in kept
  )


def _last(value: float, percent: bool) -> str:
  if percent:
    return f"{100 * value:.1f}%"
  return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _label(value: float, step: float, *, percent: bool = False) -> str:
  scale = 100 if percent else 1
  digits = max(0, -math.floor(math.log10(step * scale) + 1e-9))
  return f"{value * scale:,.{digits}f}"
