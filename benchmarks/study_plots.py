"""The study's figures as plots: plain dicts, as JSON has them, in; PNG files out.

Rates are parts of 1 with the ends of their intervals, `{"wer", "low", "high"}`,
and are drawn in per cent. The colours are Okabe and Ito's, which people who see
fewer colours can tell apart; methods differ in their markers as well, and lines
are named below all panels. Plots are 900 pixels wide, on white.
"""

import contextlib
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib
from etils import epath
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter
from matplotlib.transforms import BboxBase

from hra.files import write_aside

_INCHES, _DPI = 9.0, 100
_STYLE: dict[Any, Any] = {
  "font.size": 11,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.titlelocation": "left",
  "axes.titlesize": 12,
  "axes.titleweight": "bold",
  "axes.grid": True,
  "axes.axisbelow": True,
  "grid.color": "#e6e6e6",
  "lines.linewidth": 1.8,
  "lines.markersize": 7,
}
_COLOURS = (
  "#0072b2",
  "#d55e00",
  "#009e73",
  "#cc79a7",
  "#56b4e9",
  "#e69f00",
  "#000000",
)
_MARKERS = "osD^vPX"
_GREY = "#666666"
_HALO = [patheffects.withStroke(linewidth=3, foreground="white")]


def wer_by_parameters(
  panels: Mapping[str, Mapping[str, Any]], *, path: epath.PathLike
) -> None:
  """WER against parameters per task, a line for each family.

  Args:
    panels: title -> `families` (name -> sizes, each `parameters` and a rate) and
      `levels` (name -> a rate that has no size, such as the frozen backbone's).
    path: of the PNG.
  """
  names = [name for panel in panels.values() for name in panel["families"]]
  looks = _looks(names)
  with _page(path, columns=len(panels), height=5.2) as axes:
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
      axis.set_title(title)
      axis.set_xscale("log")
      axis.xaxis.set_major_formatter(FuncFormatter(_short))
      axis.xaxis.set_minor_formatter(NullFormatter())
      axis.set_xlabel("parameters that a row owns")
      lines = {
        name: [(point["parameters"], point) for point in points]
        for name, points in panel["families"].items()
      }
      _draw(axis, lines, looks=looks, levels=panel["levels"])
    _legend(axes, looks)


def wer_by_recordings(
  figures: Mapping[str, Mapping[str, Any]], *, path: epath.PathLike
) -> None:
  """WER against recordings of a new speaker, a line for each method.

  Args:
    figures: `methods` (name -> points, each `recordings` and a rate) and `levels`
      (name -> a rate that needs no recording).
    path: of the PNG.
  """
  methods = figures["methods"]
  ticks = sorted(
    {point["recordings"] for points in methods.values() for point in points}
  )
  with _page(path, columns=1, height=5.2) as (axis,):
    # Even steps: budgets double, and zero has no logarithm.
    axis.set_xticks(range(len(ticks)), [str(tick) for tick in ticks])
    shifts = [0.03 * (i - (len(methods) - 1) / 2) for i in range(len(methods))]
    axis.set_xlabel("recordings of the new speaker, dev included")
    lines = {
      name: [
        # Side by side, so that one interval doesn't hide another.
        (ticks.index(point["recordings"]) + shift, point)
        for point in points
      ]
      for shift, (name, points) in zip(shifts, methods.items(), strict=True)
    }
    _draw(
      axis,
      lines,
      looks=_looks(methods),
      levels=figures["levels"],
    )
    _legend([axis], _looks(methods))


def wer_by_condition(
  conditions: Mapping[str, Mapping[str, Any]], *, path: epath.PathLike
) -> None:
  """WER under each condition, a mark for each arm, side by side.

  Args:
    conditions: name -> arm -> a rate; all of the same arms.
    path: of the PNG.
  """
  arms = list(dict.fromkeys(itertools.chain.from_iterable(conditions.values())))
  with _page(path, columns=1, height=5.2) as (axis,):
    axis.set_xticks(range(len(conditions)), list(conditions))
    axis.grid(visible=False, axis="x")
    middle = (len(arms) - 1) / 2
    marks = {
      arm: [
        (place + 0.12 * (i - middle), rates[arm])
        for place, rates in enumerate(conditions.values())
      ]
      for i, arm in enumerate(arms)
    }
    _draw(axis, marks, looks=_looks(arms), levels={}, linestyle="none")
    axis.set_ylim(bottom=0)
    _legend([axis], _looks(arms), linestyle="none")


def joint_and_alone(
  speakers: Sequence[Mapping[str, Any]], *, path: epath.PathLike
) -> None:
  """Each speaker's WER trained with the others against trained alone.

  Args:
    speakers: `joint` and `alone` as parts of 1, and `group`, such as a tercile
      of severity, by which points are told apart.
    path: of the PNG.
  """
  groups = list(dict.fromkeys(each["group"] for each in speakers))
  with _page(path, columns=1, height=5.4) as (axis,):
    end = 1.08 * max(max(each["joint"], each["alone"]) for each in speakers)
    axis.plot([0, end], [0, end], color=_GREY, linewidth=1, zorder=1)
    axis.annotate(
      "equal",
      (0.94 * end, 0.94 * end),
      xytext=(-6, 6),
      textcoords="offset points",
      ha="right",
      color=_GREY,
    )
    for group, (colour, marker) in _looks(groups).items():
      chosen = [each for each in speakers if each["group"] == group]
      axis.scatter(
        [each["alone"] for each in chosen],
        [each["joint"] for each in chosen],
        s=46,
        color=colour,
        marker=marker,
        edgecolor="white",
        linewidth=0.7,
        label=f"{group} ({len(chosen)})",
        zorder=2,
      )
    axis.set(xlim=(0, end), ylim=(0, end), aspect="equal")
    for side in (axis.xaxis, axis.yaxis):
      side.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    axis.set_xlabel("WER trained alone, %")
    axis.set_ylabel("WER trained with all others, %")
    axis.legend(
      title="speakers",
      alignment="left",
      frameon=False,
      loc="upper left",
      bbox_to_anchor=(1.02, 1),
    )


def ablations(
  arms: Sequence[Mapping[str, Any]],
  *,
  reference: str,
  path: epath.PathLike,
) -> None:
  """A bar for each variant, in their order, beside the one they are variants of.

  Args:
    arms: `name` and a rate each.
    reference: the name of the unchanged arm, whose WER is drawn through.
    path: of the PNG.
  """
  with _page(path, columns=1, height=1.3 + 0.46 * len(arms)) as (axis,):
    for place, arm in enumerate(arms):
      chosen = arm["name"] == reference
      axis.barh(
        place,
        arm["wer"],
        height=0.62,
        color=_COLOURS[0] if chosen else "#a6bddb",
        xerr=_errors([arm]),
        error_kw={"elinewidth": 1.3, "capsize": 3, "ecolor": "#333333"},
      )
      axis.annotate(
        f"{100 * arm['wer']:.1f}",
        (arm["high"], place),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        weight="bold" if chosen else "normal",
      )
      if chosen:
        axis.axvline(arm["wer"], color=_COLOURS[0], linewidth=1, linestyle="--")
    axis.set_yticks(range(len(arms)), [arm["name"] for arm in arms])
    axis.set_xlim(0, 1.12 * max(arm["high"] for arm in arms))
    axis.invert_yaxis()
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    axis.set_xlabel("WER, %")


def parts_of_time(
  bars: Mapping[str, Mapping[str, float]],
  *,
  parts: Sequence[str],
  label: str,
  path: epath.PathLike,
) -> None:
  """What time is spent on: a bar for each way, the longest of them full.

  Args:
    bars: name -> seconds by part, from above to below.
    parts: in their order from the left.
    label: of the seconds.
    path: of the PNG.
  """
  with _page(path, columns=1, height=1.2 + 0.55 * len(bars)) as (axis,):
    left = [0.0] * len(bars)
    for colour, part in zip(_COLOURS, parts, strict=False):
      widths = [spent[part] for spent in bars.values()]
      last = axis.barh(
        range(len(bars)), widths, left=left, color=colour, label=part
      )
      left = [a + b for a, b in zip(left, widths, strict=True)]
    axis.bar_label(last, [f"{whole:.3g}" for whole in left], padding=4)
    axis.set_yticks(range(len(bars)), list(bars))
    axis.set_xlim(0, 1.1 * max(left))
    axis.invert_yaxis()
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel(label)
    axis.figure.legend(
      loc="outside lower left", ncols=len(parts), frameon=False
    )


@contextlib.contextmanager
def _page(
  path: epath.PathLike, *, columns: int, height: float
) -> Iterator[list[Axes]]:
  """Panels side by side, which are written when they have been drawn."""
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(_INCHES, height), dpi=_DPI, layout="constrained")
    axes = list(figure.subplots(1, columns, sharey=True, squeeze=False)[0])
    yield axes
    figure.draw_without_rendering()  # settles where everything stands
    for axis in axes:
      _separate(axis.texts)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
  write_aside(path, content.getvalue())


def _draw(
  axis: Axes,
  lines: Mapping[str, Sequence[tuple[float, Mapping[str, float]]]],
  *,
  looks: Mapping[str, tuple[str, str]],
  levels: Mapping[str, Mapping[str, float]],
  linestyle: str = "-",
) -> None:
  """Lines of (x, rate) with intervals, and rates that hold at every x.

  Args:
    linestyle: as Matplotlib has it; "none" draws marks alone.
  """
  for name, points in lines.items():
    colour, marker = looks[name]
    ordered = sorted(points, key=lambda point: point[0])
    rates = [rate for _, rate in ordered]
    axis.errorbar(
      [x for x, _ in ordered],
      [rate["wer"] for rate in rates],
      yerr=_errors(rates),
      color=colour,
      linestyle=linestyle,
      marker=marker,
      markeredgecolor="white",
      markeredgewidth=0.7,
      elinewidth=1,
      capsize=2.5,
    )
  for name, rate in levels.items():
    axis.axhspan(rate["low"], rate["high"], color=_GREY, alpha=0.1, linewidth=0)
    axis.axhline(rate["wer"], color=_GREY, linewidth=1.3, linestyle="--")
    axis.annotate(
      name,
      (1, rate["wer"]),
      xycoords=("axes fraction", "data"),
      xytext=(-4, 2),
      textcoords="offset points",
      ha="right",
      color=_GREY,
      path_effects=_HALO,
    )
  axis.margins(y=0.12)
  axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
  axis.set_ylabel("WER, %")
  axis.label_outer()


def _legend(
  axes: Sequence[Axes],
  looks: Mapping[str, tuple[str, str]],
  *,
  linestyle: str = "-",
) -> None:
  """Names below all panels: lines end here and there, and cross."""
  handles = [
    Line2D(
      [],
      [],
      color=colour,
      linestyle=linestyle,
      marker=marker,
      markeredgecolor="white",
    )
    for colour, marker in looks.values()
  ]
  axes[0].figure.legend(
    handles,
    list(looks),
    loc="outside lower left",
    ncols=3,
    frameon=False,
    columnspacing=1.5,
  )


def _separate(texts: Sequence[Annotation]) -> None:
  """Moves names up until none stands upon another."""
  placed: list[BboxBase] = []
  for text in sorted(texts, key=lambda text: text.get_window_extent().y0):
    box = text.get_window_extent()
    for other in placed:  # from the lowest up, so that one pass is enough
      if box.overlaps(other):
        rise = other.y1 - box.y0 + 1
        across, above = text.xyann
        text.xyann = (across, above + 72 / _DPI * rise)
        box = box.translated(0, rise)
    placed.append(box)
    placed.sort(key=lambda other: other.y0)


def _looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
  """Name -> colour and marker, by their order of appearance."""
  each = zip(itertools.cycle(_COLOURS), itertools.cycle(_MARKERS))
  return dict(zip(dict.fromkeys(names), each, strict=False))


def _errors(rates: Sequence[Mapping[str, float]]) -> list[list[float]]:
  """From the rates down and up to the ends of their intervals."""
  return [
    [rate["wer"] - rate["low"] for rate in rates],
    [rate["high"] - rate["wer"] for rate in rates],
  ]


def _short(value: float, _: int) -> str:
  """1000 -> 1k."""
  for size, unit in ((1e6, "M"), (1e3, "k")):
    if value >= size:
      return f"{value / size:g}{unit}"
  return f"{value:g}"
