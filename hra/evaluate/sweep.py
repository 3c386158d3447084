"""A sweep's folder -> its runs with the fields that vary, and a table of them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from hra.errors import InputError
from hra.evaluate.table import aligned, count, interval, percent
from hra.files import storage


class SweepRun(NamedTuple):
  """One run of a sweep."""

  name: str
  """Of its folder in the sweep's."""
  label: str
  """What sweep() calls it; may be empty."""
  values: Mapping[str, Any]
  """Of every field that some run of the sweep sets."""
  status: str
  error: str | None
  results: Mapping[str, Any] | None
  """The headline of results.json, where the run is done."""


class SweepRuns(NamedTuple):
  """What a sweep's folder holds, by the values of the fields that vary."""

  path: epath.Path
  fields: tuple[str, ...]
  """Those with several values, the most significant first."""
  runs: tuple[SweepRun, ...]

  @property
  def done(self) -> tuple[SweepRun, ...]:
    return tuple(run for run in self.runs if run.results is not None)

  @property
  def labelled(self) -> bool:
    return any(run.label for run in self.runs)


def read_sweep(workdir: epath.PathLike) -> SweepRuns:
  """Reads sweep.json.

  Raises:
    InputError: there is none, or it can't be read.
  """
  folder = epath.Path(workdir)
  path = folder / "sweep.json"
  if not path.exists():
    raise InputError(
      path,
      expected="a sweep's folder",
      got="no such file",
      fix="give the --workdir of `hra sweep`",
    )
  with storage(path, expected="a file that can be read"):
    text = path.read_text()
  try:
    entries = json.loads(text)["runs"]
    runs = _with_splits(
      [
        SweepRun(**{field: entry[field] for field in SweepRun._fields})
        for entry in entries
      ]
    )
  except (json.JSONDecodeError, KeyError, TypeError) as error:
    raise InputError(
      path,
      expected="a sweep's list of runs",
      got=repr(error),
      fix="give the command of the sweep again: it is made again",
    ) from error
  fields = _varied(runs)
  runs.sort(key=lambda run: (*_order(run, fields), run.name))
  return SweepRuns(folder, fields, tuple(runs))


def short_names(fields: Sequence[str]) -> dict[str, str]:
  """Each field by the shortest end of its path that no other one has."""
  short = {}
  for field in fields:
    parts = field.split(".")
    ends = [".".join(parts[-size:]) for size in range(1, len(parts) + 1)]
    short[field] = next(
      end
      for end in ends
      if sum(f".{other}".endswith(f".{end}") for other in fields) == 1
      or end == field
    )
  return short


def shown(value: Any) -> str:
  """A field's value for people."""
  if isinstance(value, list | tuple):
    return f"[{', '.join(map(str, value))}]"
  return str(value).lower() if isinstance(value, bool) else str(value)


def sweep_table(sweep: SweepRuns) -> str:
  """One line per run: what varies, the word error rates, the parameters.

  Rates in per cent, parameters as counts; a run that is not done shows why.
  """
  short = short_names(sweep.fields)
  left = ["run"] if sweep.labelled else []
  left += [short[field] for field in sweep.fields]
  header = [*left, "WER", "interval", "backbone WER", "per task", "shared"]
  if len(sweep.done) < len(sweep.runs):
    header.append("status")
  rows = [header]
  for run in sweep.runs:
    row = [run.label] if sweep.labelled else []
    row += [shown(run.values[field]) for field in sweep.fields]
    row += _figures(run)
    row += [run.status] if header[-1] == "status" else []
    rows.append(row)
  lines = aligned(rows, left=len(left))
  rule = "-" * max(map(len, lines))
  return "\n".join([lines[0], rule, *lines[1:]])


def _figures(run: SweepRun) -> list[str]:
  if run.results is None:
    return ["-"] * 5
  overall, sizes = run.results["overall"], run.results["parameters"]
  return [
    percent(overall["wer"]),
    interval(overall),
    percent(overall["backbone_wer"]),
    count(sizes["per_task"]),
    count(sizes["shared"]),
  ]


def _with_splits(runs: Sequence[SweepRun]) -> list[SweepRun]:
  """The split scored as one more field, where runs were scored on several."""
  splits = [each.results and each.results["split"] for each in runs]
  if len(set(splits) - {None}) < 2:
    return list(runs)
  return [
    run._replace(values={**run.values, "split": split or "-"})
    for run, split in zip(runs, splits, strict=True)
  ]


def _varied(runs: Sequence[SweepRun]) -> tuple[str, ...]:
  """Fields with several values; seeds behind the others, as the least telling."""
  fields = list(runs[0].values) if runs else []
  several = [
    field
    for field in fields
    if len({shown(run.values[field]) for run in runs}) > 1
  ]
  return tuple(sorted(several, key=lambda field: (is_seed(field), field)))


def is_seed(field: str) -> bool:
  """Whether runs that differ in a field only are repetitions of one."""
  return field.split(".")[-1] == "seed"


def _order(run: SweepRun, fields: Sequence[str]) -> list[tuple[float, str]]:
  """Numbers by their size, then all else as it is written."""
  keys = []
  for field in fields:
    value = run.values[field]
    number = isinstance(value, int | float)
    keys.append((value if number else float("inf"), shown(value)))
  return keys
