"""The study's questions, answered from the figures of its arms.

Enters: the arms that are done. Leaves: of each question the figures that answer it,
with a verdict that follows from them by the rules that stand here.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
import study_statistics as statistics
from etils import epath
from study_arms import JOINT, NEWCOMERS, RECURRENCE, REFERENCES, Key
from study_figures import Heard, cost, difference, total
from study_runs import Job, is_done, severities
from study_statistics import Scores

from hra import run, submodels
from hra.config import EvalConfig

Verdict = Literal["holds", "does not hold", "undecided"]

TIMES = 8.0
"""By how much HRA is said to be smaller."""
MARGIN = 0.02
"""By how much WER may be higher and still be "no worse": 2 points."""
ROUNDING = 1e-2
"""Largest norm of the difference of two Submodels, over that of what one learned, that
passes for rounding: Adam makes the rounding of small gradients steps of full size."""
ASKED = 5
"""Recordings at which embedding and fresh row were to be compared."""


def better(gap: Mapping[str, Any]) -> Verdict:
  """Whether an arm has the lower WER: by the interval of its difference, and in each
  seed, as what speakers of a seed share was drawn only once."""
  seeds = list(gap["seeds"].values())
  if gap["difference"]["high"] < 0 and max(seeds) < 0:
    return "holds"
  worse = gap["difference"]["low"] > 0 and min(seeds) > 0
  return "does not hold" if worse else "undecided"


def no_worse(gap: Mapping[str, Any]) -> Verdict:
  """Whether an arm's WER is no more than `MARGIN` above, by the interval."""
  if gap["difference"]["high"] <= MARGIN:
    return "holds"
  return "does not hold" if gap["difference"]["low"] > 0 else "undecided"


def smaller(
  heard: Mapping[Key, Heard],
  experiment: str,
  *,
  family: str = "hra",
  rival: str = "residual",
  seeds: Collection[str] = (),
  config: EvalConfig,
) -> dict[str, Any] | None:
  """(a): HRA of an eighth of the numbers at most, beside each residual adapter.

  The largest such HRA is fixed before anything is heard, and is compared with that
  residual adapter. The verdict is that of the smallest residual adapter whose interval
  of the difference to the best one does not lie above 0. None where a family was not
  run.

  Args:
    family: HRA's sizes, the arms FAMILY-SIZE.
    rival: those of the residual adapter.
    seeds: of the speakers who count; empty is all.
  """
  hra, residual = (
    {
      name: _of_seeds(each, seeds)
      for (where, name), each in heard.items()
      if where == experiment and name.rpartition("-")[0] == wanted
    }
    for wanted in (family, rival)
  )
  if not hra or not residual:
    return None
  best = min(residual, key=lambda name: (residual[name].errors, name))
  pairs = {}
  for name, each in sorted(residual.items(), key=lambda item: item[1].owned):
    pairs[name] = {
      "parameters": each.owned,
      "to_best": difference(each, residual[best], config=config),
      **_eighth(each, hra, config=config),
    }
  reference = next(
    name
    for name, each in pairs.items()
    if each["to_best"]["difference"]["low"] <= 0
  )
  return {
    "verdict": pairs[reference]["verdict"],
    "best": best,
    "reference": reference,
    "seeds": sorted(seeds),
    "pairs": pairs,
  }


def _eighth(
  rival: Heard, hra: Mapping[str, Heard], *, config: EvalConfig
) -> dict[str, Any]:
  """The largest HRA of an eighth of a rival's numbers, beside it.

  Where the grid has none: what the smallest one says.
  """
  small = [n for n, each in hra.items() if TIMES * each.owned <= rival.owned]
  if small:
    name = max(small, key=lambda name: hra[name].owned)
  else:
    name = min(hra, key=lambda name: hra[name].owned)
  gap = difference(hra[name], rival, config=config)
  verdict = no_worse(gap)
  if not small and verdict != "does not hold":
    verdict = "undecided"
  return {
    "verdict": verdict,
    "hra": name,
    "hra_parameters": hra[name].owned,
    "ratio": rival.owned / hra[name].owned,
    "ratio_with_shared": rival.each_with_shared / hra[name].each_with_shared,
    **gap,
  }


def _of_seeds(each: Heard, seeds: Collection[str]) -> Heard:
  """The arm on speakers of some seeds only; empty is all."""
  if not seeds:
    return each
  chosen = np.array(
    [each.seeds[name] in seeds for name in each.scores.speakers]
  )
  return each._replace(scores=Scores(*(part[chosen] for part in each.scores)))


def less_data(
  heard: Mapping[Key, Heard], *, config: EvalConfig
) -> dict[str, Any] | None:
  """(b): embedding against fresh row at 5 recordings; the other budgets beside."""
  gaps = {}
  for experiment, name in heard:
    kind, _, budget = name.rpartition("-")
    row = heard.get((NEWCOMERS, f"row-{budget}"))
    if experiment == NEWCOMERS and kind != "row" and row is not None:
      gap = difference(heard[experiment, name], row, config=config)
      gaps[name] = {"verdict": better(gap), **gap}
  asked = heard.get((NEWCOMERS, f"embedding-{ASKED}"))
  if f"embedding-{ASKED}" not in gaps or asked is None:
    return None
  # What the embedding itself is worth: where it begins, and a whole row from there.
  controls = {
    name: difference(asked, heard[NEWCOMERS, name], config=config)
    for name in ("mean-embedding", f"warm_row-{ASKED}")
    if (NEWCOMERS, name) in heard
  }
  return {
    "verdict": gaps[f"embedding-{ASKED}"]["verdict"],
    "against_row": gaps,
    "against_controls": {
      name: {"verdict": better(gap), **gap} for name, gap in controls.items()
    },
  }


def recurrence(
  heard: Mapping[Key, Heard], *, config: EvalConfig
) -> dict[str, Any] | None:
  """(d): whether recurrence lowers the WER; other variants beside."""
  reference = heard.get(REFERENCES[RECURRENCE])
  if reference is None or (RECURRENCE, "no-recurrence") not in heard:
    return None
  gaps = {}
  for (experiment, name), each in heard.items():
    if experiment == RECURRENCE:
      gap = difference(reference, each, config=config)
      gaps[name] = {"verdict": better(gap), **gap}
  verdict = gaps["no-recurrence"]["verdict"]
  return {
    "verdict": verdict,
    "reference": reference.arm.name,
    "reference_less": gaps,
  }


def together(jobs: Sequence[Job]) -> dict[str, Any] | None:
  """(c): Submodels of one job beside those trained one by one.

  Returns:
    None where not all runs are done.
  """
  if not jobs or not all(map(is_done, jobs)):
    return None
  runs = {job.arm.name: job for job in jobs}
  joint = runs.pop(JOINT)
  in_job = statistics.read(joint.run.folder, seed=joint.seed).arm
  groups = statistics.terciles(severities(joint))
  fresh = _fresh_rows(joint.run.folder)
  speakers: list[dict[str, Any]] = []
  for name, job in runs.items():
    speaker = f"{job.seed}/{name}"
    lone = statistics.read(job.run.folder, seed=job.seed).arm
    rows = [_row(each.run.folder, name) for each in (joint, job)]
    learned = rows[1] - fresh[name]
    speakers.append(
      {
        "speaker": speaker,
        "group": groups[speaker],
        "joint": _wer(in_job, speaker),
        "alone": _wer(lone, speaker),
        "largest": float(np.abs(rows[0] - rows[1]).max()),
        "relative": float(
          np.linalg.norm(rows[0] - rows[1]) / np.linalg.norm(learned)
        ),
      }
    )
  spent = {
    name: total([cost(job.run.folder) for job in chosen])
    for name, chosen in (("joint", [joint]), ("alone", list(runs.values())))
  }
  relative = max(each["relative"] for each in speakers)
  return {
    "verdict": "holds" if relative <= ROUNDING else "does not hold",
    "relative": relative,
    "largest": max(each["largest"] for each in speakers),
    "wer_gap": max(abs(each["joint"] - each["alone"]) for each in speakers),
    "speakers": speakers,
    "cost": spent,
    "cpu_ratio": spent["alone"]["cpu_seconds"] / spent["joint"]["cpu_seconds"],
  }


def _row(folder: epath.Path, speaker: str) -> np.ndarray:
  return _ravelled(submodels.Store(folder / "submodels")[speaker].row)


def _fresh_rows(folder: epath.Path) -> dict[str, np.ndarray]:
  """Of a run without a space: what each task's row was at the start."""
  parts = run.reopen(folder)
  rows = jax.device_get(run.initial_state(parts).rows)
  return {
    task: _ravelled(jax.tree.map(lambda leaf, place=place: leaf[place], rows))
    for place, task in enumerate(parts.tasks)
  }


def _ravelled(row: Any) -> np.ndarray:
  return np.concatenate(
    [np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(row)]
  )


def _wer(scores: Scores, speaker: str) -> float:
  chosen = scores.speakers == speaker
  return float(scores.errors[chosen].sum() / scores.words[chosen].sum())
