"""The study's figures -> Markdown with a verdict for each question.

Enters: the figures that `study_page.py` writes as JSON. Leaves: text; no number and no
verdict stands here that is not in the figures.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from study_answers import ASKED, ROUNDING, TIMES
from study_arms import (
  ALONE,
  EXPLORED,
  MULTI,
  NEWCOMERS,
  RECURRENCE,
  SINGLE,
  TRAINING,
)
from study_figures import budget_of

from hra.evaluate.table import percent, points

Figures = Mapping[str, Any]

_TITLES = {
  MULTI: "(a) WER against parameters: all speakers in one job, each a row",
  TRAINING: "(b) What newcomers stand on, on the training speakers",
  NEWCOMERS: "(b) New speakers",
  ALONE: "(c) Joint against alone",
  RECURRENCE: "(d) The recurrence over depth",
  SINGLE: "(e) Single-task: one row for everybody",
}
FAMILIES = {
  "hra": "HRA",
  "hra_both": "HRA beside a shared head",
  "hra_layers": "HRA on a controller for each layer",
  "residual": "residual",
  "residual_both": "residual beside a shared one",
  "lora": "LoRA",
  "bitfit": "BitFit",
  "full": "full",
}
METHODS = {
  "row": "fresh row",
  "warm_row": "warm row",
  "head": "HRA head",
  "embedding": "embedding",
  "nearest-head": "nearest head",
  "nearest-embedding": "nearest embedding",
}
LEVELS = {"shared-only": "shared-only", "mean-embedding": "mean embedding"}
_VERDICTS = {
  "holds": "**holds**",
  "does not hold": "**does not hold**",
  "undecided": "is **undecided**",
}


def markdown(found: Figures, drawn: Mapping[str, str]) -> str:
  """The page.

  Args:
    found: the figures.
    drawn: question -> its plot, relative to the page.
  """
  lines = [_head(found), "", *_answers(found), ""]
  if found["missing"]:
    lines += [f"Not complete: {', '.join(found['missing'])}.", ""]
  for experiment, title in _TITLES.items():
    told = found["arms"].get(experiment)
    if experiment == ALONE:
      told = found["questions"]["c"]
    if not told:
      continue
    lines += [f"## {title}", ""]
    if experiment in drawn:
      lines += [f"![{title}]({drawn[experiment]})", ""]
    if experiment == ALONE:
      lines += [*_alone(told), ""]
    else:
      lines += [*_table(told, found["seeds"]), "", *_terciles(told), ""]
  lines += ["## Cost", "", *_cost(found), ""]
  return "\n".join(lines)


def _head(found: Figures) -> str:
  seeds = len(found["seeds"])
  tuned = (
    "learning rates chosen on dev of the first seed"
    if found["tuned"]
    else "learning rates not tuned here: this shows directions and claims nothing"
  )
  letters: dict[str, list[str]] = {}
  for letter, each in sorted(found["measured"].items()):
    how = f"{each['date']}, {each['hardware']}, {each['versions']}"
    letters.setdefault(how, []).append(letter)
  measured = "; ".join(
    f"({', '.join(each)}) {how}" for how, each in letters.items()
  )
  return (
    f"# The study\n\n`{found['command']}`; {measured}; {seeds} seed"
    f"{'s' if seeds > 1 else ''}; {tuned}. WER in per cent on test, intervals "
    "of 95% over speakers and their utterances; differences in points, paired. "
    "How and why: experiments/study/README.md."
  )


def _answers(found: Figures) -> list[str]:
  questions = found["questions"]
  lines = [
    *_smaller(questions["a"], "a", "multi-task"),
    _less_data(questions["b"]),
    _together(questions["c"]),
    _recurrence(questions["d"]),
    *_smaller(questions["e"], "e", "single-task"),
    *(
      line
      for name, (family, rival) in EXPLORED.items()
      for line in _smaller(
        questions[name],
        "a",
        f"explored, {FAMILIES[family]} against {FAMILIES[rival]}",
      )
    ),
  ]
  return ["## Answers", "", *lines]


def _smaller(told: Figures | None, letter: str, how: str) -> list[str]:
  claim = (
    f"({letter}) {TIMES:g} times fewer numbers than a residual adapter, {how}"
  )
  if told is None:
    return [f"- {claim}: not run."]
  pair = told["pairs"][told["reference"]]
  best = "the best"
  if told["best"] != told["reference"]:
    best = f"as good as the best, {told['best']} ({_gap(pair['to_best'])})"
  on = f" On seeds {', '.join(told['seeds'])}." if told["seeds"] else ""
  lines = [
    f"- {claim}: {_VERDICTS[told['verdict']]}. {told['reference']} is the smallest "
    f"that is {best}.{on} HRA of an eighth of its numbers at most, less each:"
  ]
  lines += [
    f"  - {name} ({each['parameters']:,}): {each['hra']} "
    f"({each['hra_parameters']:,}; {each['ratio']:.1f} times fewer, with a part of "
    f"what is shared {each['ratio_with_shared']:.1f}) {_gap(each)}: "
    f"{each['verdict']}"
    for name, each in sorted(
      told["pairs"].items(), key=lambda item: item[1]["parameters"]
    )
  ]
  return lines


def _less_data(told: Figures | None) -> str:
  claim = f"- (b) With {ASKED} recordings an embedding beats a fresh row"
  if told is None:
    return f"{claim}: not run."
  asked = told["against_row"][f"embedding-{ASKED}"]
  others = "; ".join(
    f"{name} {_gap(gap)}"
    for name, gap in sorted(
      told["against_row"].items(), key=lambda item: budget_of(item[0])
    )
    if name.startswith(("head", "embedding", "warm")) and gap is not asked
  )
  controls = "; ".join(
    f"{name} {_gap(gap)}: {gap['verdict']}"
    for name, gap in told["against_controls"].items()
  )
  rest = f" Less the fresh row at the same budget: {others}." if others else ""
  why = f" Less its controls: {controls}." if controls else ""
  return f"{claim}: {_VERDICTS[told['verdict']]} ({_gap(asked)}).{why}{rest}"


def _together(told: Figures | None) -> str:
  claim = (
    "- (c) A Submodel trained with all others equals the one trained alone"
  )
  if told is None:
    return f"{claim}: not run."
  return (
    f"{claim}: {_VERDICTS[told['verdict']]}. The largest difference of two "
    f"rows is {told['relative']:.1e} of what a row learned (up to {ROUNDING:g} passes "
    f"for rounding), of two numbers {told['largest']:.1e}, of a speaker's WER "
    f"{percent(told['wer_gap'])} points. One by one took {told['cpu_ratio']:.1f} "
    "times the CPU seconds of the one job, starting included; what an equal program had "
    "compiled before came from the cache, more of it for the job."
  )


def _recurrence(told: Figures | None) -> str:
  claim = "- (d) Recurrence over depth lowers the WER"
  if told is None:
    return f"{claim}: not run."
  others = "; ".join(
    f"{name} {_gap(gap)}" for name, gap in told["reference_less"].items()
  )
  return (
    f"{claim}: {_VERDICTS[told['verdict']]}. {told['reference']} less a "
    f"variant: {others}."
  )


def _gap(told: Figures) -> str:
  """A paired difference with its interval and seeds."""
  gap = told["difference"]
  seeds = ", ".join(points(each) for each in told["seeds"].values())
  more = f"; by seed {seeds}" if len(told["seeds"]) > 1 else ""
  return f"{points(gap['wer'])} ({points(gap['low'])} to {points(gap['high'])}{more})"


def _table(arms: Mapping[str, Figures], seeds: Sequence[int]) -> list[str]:
  several = len(seeds) > 1
  references = {
    arm["versus"]["reference"] for arm in arms.values() if arm["versus"]
  }
  versus = "less the fresh row, or shared-only"  # of as many recordings
  if len(references) == 1:
    versus = f"less {min(references)}"
  header = [
    *("arm", "per speaker", "shared", "rate", "WER"),
    *([f"seed {'/'.join(map(str, seeds))}"] if several else []),
    *(versus, "served", "frozen", "CPU s"),
  ]
  lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
  for name, arm in arms.items():
    cells = [
      name,
      f"{arm['parameters']['per_task']:,}",
      f"{arm['parameters']['shared']:,}",
      _rate(arm),
      _interval(arm),
      *([_seeds(arm)] if several else []),
      _gap(arm["versus"]) if arm["versus"] else "",
      percent(arm["served"]["wer"]) if arm["served"] else "-",
      percent(arm["frozen"]["wer"]),
      f"{arm['cpu_seconds']:.0f}",
    ]
    lines.append(f"| {' | '.join(cells)} |")
  lines += [
    "",
    "CPU s: of the chosen runs, on average over seeds; the first run of a process pays "
    "for its start and tracing, so some ten seconds of difference say nothing.",
  ]
  if any(arm["rate_at_end"] for arm in arms.values()):
    lines += ["", "\\* the best rate stands at an end of the grid."]
  return lines


def _rate(arm: Figures) -> str:
  if arm["rate"] is None:
    return "none"
  mark = " \\*" if arm["rate_at_end"] else ""
  return f"{arm['rate']:g}{mark}"


def _seeds(arm: Figures) -> str:
  return " / ".join(percent(each["wer"]) for each in arm["seeds"].values())


def _interval(rate: Figures) -> str:
  low, high = percent(rate["low"]), percent(rate["high"])
  return f"{percent(rate['wer'])} ({low}-{high})"


def _terciles(arms: Mapping[str, Figures]) -> list[str]:
  names = ("mild", "medium", "severe")
  lines = [
    "Thirds of the speakers by the strength of their habits:",
    "",
    f"| arm | {' | '.join(names)} |",
    f"|---|{'---|' * len(names)}",
  ]
  first = next(iter(arms.values()))
  rows = {"frozen": {name: first["terciles"][name]["frozen"] for name in names}}
  for name, arm in arms.items():
    rows[name] = {label: arm["terciles"][label]["wer"] for label in names}
  for name, row in rows.items():
    cells = " | ".join(percent(row[label]) for label in names)
    lines.append(f"| {name} | {cells} |")
  return lines


def _alone(told: Figures) -> list[str]:
  lines = [
    "| speaker | WER joint | WER alone | rows: difference / learned | largest |",
    "|---|---|---|---|---|",
  ]
  for each in told["speakers"]:
    lines.append(
      f"| {each['speaker']} | {percent(each['joint'])} | "
      f"{percent(each['alone'])} | {each['relative']:.1e} | "
      f"{each['largest']:.1e} |"
    )
  lines += [
    "",
    "| | runs | CPU s | wall s of the processes |",
    "|---|---|---|---|",
  ]
  for name, spent in told["cost"].items():
    lines.append(
      f"| {name} | {spent['runs']} | {spent['cpu_seconds']:.0f} | "
      f"{spent['wall_seconds']:.0f} |"
    )
  return lines


def _cost(found: Figures) -> list[str]:
  lines = [
    "As measured, tuning and runs that were not chosen included:",
    "",
    "| part | runs | CPU h |",
    "|---|---|---|",
  ]
  every = list(found["cost"].values())
  rows = {
    **found["cost"],
    "together": {
      field: sum(each[field] for each in every)
      for field in ("runs", "cpu_seconds")
    },
  }
  for name, spent in rows.items():
    hours = spent["cpu_seconds"] / 3600
    lines.append(f"| {name} | {spent['runs']} | {hours:.2f} |")
  told = found["backbone"]
  if told and told["dev"]:
    low, high = (
      percent(told["dev"]["wer_low"]),
      percent(told["dev"]["wer_high"]),
    )
    lines += [
      "",
      f"The backbone ({told['fingerprint']}), frozen: WER "
      f"{percent(told['dev']['wer'])} ({low}-{high}) on dev of typical voices.",
    ]
  return lines
