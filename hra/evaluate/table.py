"""Results -> the plain-text table that a command prints.

At most 100 characters wide, columns aligned, highest WER first.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

_HEADER = (
  "task",
  "train utts",
  "words",
  "backbone WER",
  "WER",
  "interval",
  "change ",
)
_NAME_WIDTH = 30
_NAMED = 3
"""Tasks that a line names at most."""


def table(results: Mapping[str, Any], *, limit: int = 50) -> str:
  """One line per task, one for all of them, one on fallbacks; rates in per cent.

  `change` is WER less backbone WER in points, marked * where its interval
  doesn't hold zero.

  Args:
    results: what `hra.evaluate.metrics.score` returned.
    limit: tasks shown, highest WER first; the others are counted in a line.
  """
  tasks = sorted(
    results["tasks"].items(),
    key=lambda item: -1 if item[1]["wer"] is None else item[1]["wer"],
    reverse=True,
  )
  trained = [task["train_utterances"] for _, task in tasks]
  known = [count for count in trained if count is not None]
  overall = {"train_utterances": sum(known) if known else None}
  body = [_row(name, task) for name, task in tasks[:limit]]
  last = _row(f"all {len(tasks)}", {**results["overall"], **overall})
  lines = aligned([_HEADER, *body, last])
  rule = "-" * max(_width(line) for line in lines)
  lines = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
  hidden = len(tasks) - limit
  if hidden > 0:
    lines.insert(-2, f"... and {hidden:,} tasks with a lower WER")
  return "\n".join([*lines, *_served(results)])


def _served(results: Mapping[str, Any]) -> list[str]:
  """Who the backbone answers for and what that comes to; who is not judged."""
  lines = []
  falls_back = _named(results, "not better")
  if falls_back:
    lines.append(
      f"no better adapted on dev, so that the backbone answers: {falls_back}; as "
      f"served, WER is {percent(results['overall']['served_wer'])}"
    )
  unjudged = _named(results, "unjudged")
  if unjudged:
    lines.append(
      "too few words of dev to judge (config.evaluate.guard_words), so that the "
      f"Submodel answers: {unjudged}"
    )
  return lines


def _named(results: Mapping[str, Any], verdict: str) -> str:
  """The first tasks of a verdict, and how many others."""
  names = sorted(
    name
    for name, task in results["tasks"].items()
    if task.get("verdict") == verdict
  )
  more = len(names) - _NAMED
  shown = ", ".join(_shown(name) for name in names[:_NAMED])
  return f"{shown} and {more:,} others" if more > 0 else shown


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
  """A line per row, two spaces between columns; the first `left` flush left."""
  widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
  return [_line(row, widths, left=left) for row in rows]


def significant(figures: Mapping[str, Any]) -> bool:
  """Whether the interval of the change against the backbone excludes zero."""
  low, high = figures["difference_low"], figures["difference_high"]
  return low is not None and (high < 0 or low > 0)


def points(rate: float | None) -> str:
  """A difference of rates in points, signed; `-` where there is none."""
  return "-" if rate is None else f"{100 * rate:+.1f}"


def interval(figures: Mapping[str, Any]) -> str:
  """The interval of the WER in per cent, as `low-high`."""
  low, high = figures["wer_low"], figures["wer_high"]
  return "-" if low is None else f"{100 * low:.1f}-{100 * high:.1f}"


def percent(rate: float | None, *, digits: int = 1) -> str:
  """A rate in per cent without the sign; `-` where there is none."""
  return "-" if rate is None else f"{100 * rate:.{digits}f}"


def count(number: int | None) -> str:
  """With thousands separated; `-` where there is none."""
  return "-" if number is None else f"{number:,}"


def _row(name: str, figures: Mapping[str, Any]) -> tuple[str, ...]:
  return (
    _shown(name),
    count(figures["train_utterances"]),
    count(figures["words"]),
    percent(figures["backbone_wer"]),
    percent(figures["wer"]),
    interval(figures),
    points(figures["difference"]) + ("*" if significant(figures) else " "),
  )


def _line(row: Sequence[str], widths: Sequence[int], *, left: int) -> str:
  cells = []
  for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
    gap = " " * (width - _width(cell))
    cells.append(cell + gap if place < left else gap + cell)
  return "  ".join(cells).rstrip()


def _shown(name: str) -> str:
  """A name fit for a terminal: printable, no wider than its column."""
  name = "".join(mark if mark.isprintable() else "?" for mark in name)
  if _width(name) <= _NAME_WIDTH:
    return name
  while _width(name) > _NAME_WIDTH - 1:
    name = name[:-1]
  return name + "…"


def _width(text: str) -> int:
  """Terminal columns: East Asian wide characters take two, marks none."""
  return sum(
    0
    if unicodedata.combining(mark)
    else 1 + (unicodedata.east_asian_width(mark) in "WF")
    for mark in text
  )
