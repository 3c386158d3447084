"""Figures of mixed batches -> tables and a plot.

A cell is a batch; of its cases, those of torch are compared with torch's base, the
others with ours.
"""

import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import results
from etils import epath
from matplotlib.figure import Figure
from timing import median_ratio

from hra.files import write_aside

TORCH, OURS = BASES = ("torch", "ours")
NAMES = {"whisper": "Whisper tiny's encoder", "conformer": "Conformer CTC"}
RIVALS = ("PEFT mixed", "PEFT loop", "stacked torch")
"""Beginnings of names."""

Cell = Mapping[str, Any]


def base_of(case: str) -> str:
  """The bare backbone that a case is compared with."""
  theirs = case == TORCH or case.startswith(RIVALS)
  return TORCH if theirs else OURS


def overhead(cell: Cell, case: str) -> float:
  """Wall time by that of its own base: the median of neighbouring blocks."""
  cases = cell["cases"]
  return median_ratio(cases[case]["walls"], cases[base_of(case)]["walls"])


def ahead(cells: Sequence[Cell], rival: str) -> dict[str, int]:
  """In how many cells and tables *gather* costs less than a rival.

  Returns:
    of how many, and how often in overhead and in seconds.
  """
  told = {"of": 0, "overhead": 0, "seconds": 0}
  for cell in cells:
    for case in cell["cases"]:
      if not case.startswith("gather"):
        continue
      table = case.partition(", ")[2]
      other = f"{rival}, {table}" if rival == "stacked torch" else rival
      quicker = median_ratio(
        cell["cases"][case]["walls"], cell["cases"][other]["walls"]
      )
      told["of"] += 1
      told["overhead"] += overhead(cell, case) < overhead(cell, other)
      told["seconds"] += quicker < 1
  return told


def page(about: Mapping[str, Any], cells: Sequence[Cell]) -> str:
  note = (
    f"{about['threads']} threads for either framework, medians of "
    f"{about['blocks']} blocks"
  )
  lines = [
    "# Batches of many speakers",
    "",
    results.title(about, note=note),
    "",
    "Seconds of a batch and, in brackets, how often those of the bare backbone in the "
    "same framework (medians of neighbouring blocks). Behind a name, rows of the "
    "table. The first row is our bare backbone by torch's. PEFT has no table: it holds "
    "the speakers of the batch. Left out are batches of more than "
    f"{about['most_seconds']:g} s in all, tables of fewer rows than speakers, and "
    "*ragged* but for the smallest table, whose rows it goes through one by one.",
  ]
  for model in dict.fromkeys(cell["model"] for cell in cells):
    own = [cell for cell in cells if cell["model"] == model]
    lines += ["", f"## {NAMES[model]}", "", *_table(own)]
  lines += ["", *(_verdict(cells, rival) for rival in RIVALS)]
  apart = max(
    case["apart"] for cell in cells for case in cell["cases"].values()
  )
  lines += [
    "",
    f"Before: outputs differ from PEFT's by {apart:.1e} at most, over their standard "
    "deviation.",
    "",
    "![Overhead of mixing speakers](mixed.png)",
    "",
  ]
  return "\n".join(lines)


def _table(cells: Sequence[Cell]) -> list[str]:
  heads = [
    f"{cell['seconds']:g} s, {cell['speakers']} of {cell['recordings']}"
    for cell in cells
  ]
  names = dict.fromkeys(case for cell in cells for case in cell["cases"])
  ratios = [
    median_ratio(*(cell["cases"][name]["walls"] for name in (OURS, TORCH)))
    for cell in cells
  ]
  rows = [["ours / torch, bare", *(f"{ratio:.2f}" for ratio in ratios)]]
  rows += [[name, *(_entry(cell, name) for cell in cells)] for name in names]
  head = ["seconds, speakers of recordings", *heads]
  return [
    f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)
  ]


def _entry(cell: Cell, case: str) -> str:
  if case not in cell["cases"]:
    return ""
  seconds = statistics.median(cell["cases"][case]["walls"])
  if case in BASES:
    return f"{seconds:.3f}"
  return f"{seconds:.3f} ({overhead(cell, case):.2f})"


def _verdict(cells: Sequence[Cell], rival: str) -> str:
  told = ahead(cells, rival)
  return (
    f"- *gather* against {rival}: less overhead in {told['overhead']} of "
    f"{told['of']} cells, fewer seconds in {told['seconds']}."
  )


def plot(cells: Sequence[Cell], path: epath.PathLike) -> None:
  """Overhead by speakers, a panel for each model and length."""
  models = list(dict.fromkeys(cell["model"] for cell in cells))
  lengths = list(dict.fromkeys(cell["seconds"] for cell in cells))
  figure = Figure(
    figsize=(3.4 * len(lengths), 3.2 * len(models)),
    dpi=120,
    layout="constrained",
  )
  axes = figure.subplots(len(models), len(lengths), sharey=True, squeeze=False)
  for row, model in enumerate(models):
    for column, seconds in enumerate(lengths):
      own = [
        cell
        for cell in cells
        if (cell["model"], cell["seconds"]) == (model, seconds)
      ]
      _panel(axes[row, column], own)
      axes[row, column].set_title(f"{NAMES[model]}, {seconds:g} s", size=9)
    axes[row, 0].set_ylabel("time / bare backbone")
  handles, labels = axes[0, 0].get_legend_handles_labels()
  figure.legend(
    handles,
    labels,
    loc="outside lower center",
    ncols=len(labels),
    frameon=False,
  )
  content = io.BytesIO()
  figure.savefig(content, format="png", metadata={"Software": None})
  write_aside(path, content.getvalue())


def _panel(axis: Any, cells: Sequence[Cell]) -> None:
  table = max(
    (
      int(case.partition(", ")[2])
      for cell in cells
      for case in cell["cases"]
      if case.startswith("gather")
    ),
    default=0,
  )
  names = {
    "PEFT mixed": "PEFT mixed",
    "PEFT loop": "PEFT loop",
    "stacked torch": f"stacked torch, {table}",
    "one-hot": f"one-hot, {table}",
    "gather (hra)": f"gather, {table}",
  }
  for shown, case in names.items():
    own = [cell for cell in cells if case in cell["cases"]]
    axis.plot(
      [cell["speakers"] for cell in own],
      [overhead(cell, case) for cell in own],
      marker="o",
      label=shown,
    )
  axis.axhline(1, color="0.8", zorder=0)
  axis.set_xscale("log", base=2)
  axis.set_yscale("log", base=2)
  axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
  speakers = sorted({cell["speakers"] for cell in cells})
  axis.set_xticks(speakers, [str(each) for each in speakers])
  axis.set_xlabel("speakers in the batch")
