"""What jobs cost -> one job for all beside one job each: figures and their page.

Enters: what was measured of each `hra train`. Leaves: Submodels per hour, ratios, and
what a serial sample says of all speakers. No job is run here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import results

PARTS = ("start", "compiling", "steps", "evaluation", "end")
"""Of a job's wall time, in their order. `start`: interpreter, imports, data and
backbone opened, a fresh state; `steps`: with waits for their data; `evaluation`: of
the dev split by the loop, and saves; `end`: the dev split heard with and without
Submodels, and their files."""

HOUR = 3600.0


class Job(NamedTuple):
  """One `hra train`, from the command to its exit."""

  wall: float
  """Seconds; likewise what follows."""
  cpu: float
  parts: dict[str, float]
  peak_bytes: int
  """Resident, of the largest of its processes."""
  compiled: int
  """Programs that it added to the compilation cache."""


class Guess(NamedTuple):
  """Seconds of something, for all speakers by a sample of them."""

  middle: float
  low: float
  high: float


def parts_of(
  ledger: Mapping[str, Any], *, began: float, wall: float
) -> dict[str, float]:
  """A job's wall time by `PARTS`.

  Args:
    ledger: its goodput.json.
    began: seconds since the epoch when the command was given.
    wall: seconds until its exit.
  """
  spent = ledger["seconds"]
  found = {
    "start": ledger["started"] - began + spent["start"],
    "compiling": spent["compile"],
    "steps": spent["step"] + spent["data"],
    "evaluation": spent["evaluation"] + spent["save"],
  }
  return {**found, "end": wall - sum(found.values())}


def extrapolated(
  values: Sequence[float], new: Sequence[bool], count: int
) -> Guess:
  """The sum over `count` jobs, of which some are known.

  Who met programs that no cache had (`new`) counts as it was; all others count as
  the mean, the least and the most of those that found every program. Where nobody
  did, all but the first stand for the others.
  """
  once = [value for value, is_new in zip(values, new, strict=True) if is_new]
  warm = [
    value for value, is_new in zip(values, new, strict=True) if not is_new
  ]
  if not warm:
    once, warm = list(values[:1]), list(values[1:])
  left = count - len(once)
  sums = (sum(warm) / len(warm), min(warm), max(warm))
  return Guess(*(sum(once) + left * each for each in sums))


def compared(
  joint: Job, alone: Sequence[Job], *, speakers: int
) -> dict[str, Any]:
  """One job for all speakers beside one job each.

  Args:
    alone: the jobs of a sample, in the order that they ran in.
  """
  new = [job.compiled > 0 for job in alone]

  def whole(values: Sequence[float]) -> Guess:
    return extrapolated(values, new, speakers)

  wall = whole([job.wall for job in alone])
  cpu = whole([job.cpu for job in alone])
  steps = whole([job.parts["steps"] for job in alone])
  own = joint.parts["steps"]
  warm = [job for job, is_new in zip(alone, new, strict=True) if not is_new]
  warm = warm or list(alone[1:])
  return {
    "speakers": speakers,
    "joint": {
      **joint._asdict(),
      "submodels_per_hour": _rate(speakers, joint.wall),
    },
    "alone": {
      "sample": [job._asdict() for job in alone],
      "wall": wall._asdict(),
      "cpu": cpu._asdict(),
      "steps": steps._asdict(),
      "mean_parts": {
        part: sum(job.parts[part] for job in warm) / len(warm) for part in PARTS
      },
      "peak_bytes": max(job.peak_bytes for job in alone),
      "submodels_per_hour": _rate(speakers, wall.middle),
    },
    "ratio": {
      "wall": _over(wall, joint.wall),
      "cpu": _over(cpu, joint.cpu),
      "steps": _over(steps, own),
    },
  }


def _rate(submodels: int, seconds: float) -> float:
  return HOUR * submodels / seconds


def _over(guess: Guess, seconds: float) -> dict[str, float]:
  return Guess(*(each / seconds for each in guess))._asdict()


def page(
  about: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]
) -> str:
  """The page; `found` has the figures of each adapter."""
  lines = [
    "# One job for all speakers, or one each",
    "",
    results.title(about, note=about["setting"]),
    "",
    "| | Submodels an hour | wall, s | CPU, s | steps alone, s | start-up of a job, s "
    "| peak, MiB |",
    "|---|---|---|---|---|---|---|",
  ]
  for adapter, row in found.items():
    lines += _rows(adapter, row)
  lines += [
    "",
    "One job each over one job for all (in brackets by the fastest and the slowest "
    "job of the sample):",
    "",
    "| | with start-up | CPU seconds | steps alone |",
    "|---|---|---|---|",
  ]
  for adapter, row in found.items():
    cells = [_ratio(row["ratio"][name]) for name in ("wall", "cpu", "steps")]
    lines.append(f"| {adapter} | {' | '.join(cells)} |")
  lines += ["", *_method(found), "", "![Where the time goes](one_job.png)", ""]
  lines += _equality(found)
  return "\n".join([*lines, ""])


def _rows(adapter: str, row: Mapping[str, Any]) -> list[str]:
  joint, alone = row["joint"], row["alone"]
  wall, cpu, steps = alone["wall"], alone["cpu"], alone["steps"]
  count = len(alone["sample"])
  return [
    f"| {adapter}, one job for {row['speakers']} | "
    f"{joint['submodels_per_hour']:,.0f} | {joint['wall']:,.0f} | "
    f"{joint['cpu']:,.0f} | {joint['parts']['steps']:,.0f} | "
    f"{_start(joint['parts']):.1f} | {joint['peak_bytes'] / 2**20:,.0f} |",
    f"| {adapter}, one job each (by {count}) | "
    f"{alone['submodels_per_hour']:,.0f} | {_range(wall)} | {_range(cpu)} | "
    f"{_range(steps)} | {_start(alone['mean_parts']):.1f} | "
    f"{alone['peak_bytes'] / 2**20:,.0f} |",
  ]


def _start(parts: Mapping[str, float]) -> float:
  return parts["start"] + parts["compiling"]


def _range(guess: Mapping[str, float]) -> str:
  return f"{guess['middle']:,.0f} ({guess['low']:,.0f}-{guess['high']:,.0f})"


def _ratio(guess: Mapping[str, float]) -> str:
  return f"{guess['middle']:.1f} ({guess['low']:.1f}-{guess['high']:.1f})"


def _method(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """How the serial figures came about."""
  counts = {
    adapter: (
      sum(job["compiled"] > 0 for job in row["alone"]["sample"]),
      len(row["alone"]["sample"]),
      row["speakers"],
    )
    for adapter, row in found.items()
  }
  said = "; ".join(
    f"{adapter}: {new} of {sample} sampled jobs compiled something, the other "
    f"{sample - new} stand for {speakers - new} speakers"
    if new < sample
    else f"{adapter}: all {sample} sampled jobs compiled something, those after the "
    f"first stand for {speakers - 1} speakers, which is too much"
    for adapter, (new, sample, speakers) in counts.items()
  )
  return [
    "Both begin with an empty compilation cache, which the serial jobs share. Serial "
    "jobs are a seeded sample, one after the other, each with the whole machine. Who "
    "met a program that wasn't in the cache counts once, as it was; all others count "
    f"as the mean of who found every program. {said}. The seconds of steps are those "
    "of the runs' goodput.json, waits for data included. Start-up of a job is the "
    "time to its loop, and compiling; in serial rows the mean of jobs that found "
    "every program. The peak is resident memory of the largest process of a job. CPU "
    "seconds are what serial jobs side by side on more cores could not save.",
  ]


def _equality(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
  lines = [
    "The same speakers, trained with all others and alone: nats a label and WER on "
    "their dev recordings.",
    "",
    "| | speakers | backbone | joint | alone | alone - joint, range | WER joint | "
    "WER alone | rows apart, most |",
    "|---|---|---|---|---|---|---|---|---|",
  ]
  for adapter, row in found.items():
    each = row["speakers_heard"]
    gaps = [one["alone_loss"] - one["joint_loss"] for one in each]
    means = [
      sum(one[name] for one in each) / len(each)
      for name in ("backbone_loss", "joint_loss", "alone_loss")
    ]
    wers = [
      100 * sum(one[name] for one in each) / len(each)
      for name in ("joint_wer", "alone_wer")
    ]
    apart = max(one["rows_apart"] for one in each)
    cells = [
      *(f"{mean:.4f}" for mean in means),
      f"{min(gaps):+.2g} to {max(gaps):+.2g}",
      *(f"{wer:.1f}" for wer in wers),
      f"{apart:.2g}" if row["contained"] else "another controller",
    ]
    lines.append(f"| {adapter} | {len(each)} | {' | '.join(cells)} |")
  said = []
  if any(row["contained"] for row in found.values()):
    said.append(
      "Residual rows depend on nothing that tasks share: both ways have to end with "
      "the same ones, or nothing is written."
    )
  if not all(row["contained"] for row in found.values()):
    said.append("A speaker alone trains a recurrent controller of its own.")
  return [*lines, "", " ".join(said)]
