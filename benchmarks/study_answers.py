"""The study's questions, answered from the figures of its arms.

Enters: the arms that are done. Leaves: of each question the figures that answer it,
with a verdict that follows from them by the rules that stand here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
import study_statistics as statistics
from etils import epath
from study_arms import JOINT, NEWCOMERS, RECURRENCE, REFERENCES, Key
from study_figures import Heard, cost, difference, total
from study_runs import Job, is_done, severities
from study_statistics import Scores

from hra import submodels
from hra.config import EvalConfig

Verdict = Literal["holds", "does not hold", "undecided"]

TIMES = 8.0
"""By how much HRA is said to be smaller."""
ROUNDING = 1e-2
"""Largest norm of the difference of two Submodels, over that of one, that passes
for rounding: Adam makes the rounding of small gradients steps of full size."""
ASKED = 5
"""Recordings at which embedding and fresh row were to be compared."""


def better(gap: Mapping[str, float]) -> Verdict:
  """Whether an arm has the lower WER, by the interval of its difference."""
  if gap["high"] < 0:
    return "holds"
  return "does not hold" if gap["low"] > 0 else "undecided"


def smaller(
  heard: Mapping[Key, Heard],
  experiment: str,
  *,
  family: str = "hra",
  rival: str = "residual",
  config: EvalConfig,
) -> dict[str, Any] | None:
  """(a): the smallest HRA that is no worse than the smallest good residual.

  It holds where that is 8 times smaller at least. Where even the grid's smallest
  HRA is not, nothing is decided. None where a family was not run.

  Args:
    family: HRA's sizes, the arms FAMILY-SIZE.
    rival: those of the residual adapter.
  """
  sizes = [
    {
      name: each
      for (where, name), each in heard.items()
      if where == experiment and each.arm.name.startswith(f"{wanted}-")
    }
    for wanted in (family, rival)
  ]
  if not all(sizes):
    return None
  hra, residual = (
    {name: each.scores for name, each in found.items()} for found in sizes
  )
  everyone = sizes[0] | sizes[1]
  owned = {name: each.owned for name, each in everyone.items()}
  best = min(residual, key=lambda name: (residual[name].errors.sum(), name))
  reference = statistics.smallest(residual, parameters=owned, config=config)
  assert reference is not None  # the best is as good as itself
  found = statistics.smallest(
    hra, parameters=owned, other=residual[reference], config=config
  )
  most = owned[reference] / min(owned[name] for name in hra)
  ratio = owned[reference] / owned[found] if found else None
  verdict: Verdict = "does not hold"
  if ratio is not None and ratio >= TIMES:
    verdict = "holds"
  elif most < TIMES:
    verdict = "undecided"

  def between(name: str, other: str) -> dict[str, Any]:
    return difference(everyone[name], everyone[other], config=config)

  return {
    "verdict": verdict,
    "best": best,
    "reference": reference,
    "reference_parameters": owned[reference],
    "reference_to_best": between(reference, best),
    "smallest_hra": found,
    "smallest_hra_parameters": owned[found] if found else None,
    "ratio": ratio,
    "most": most,
    "difference": between(found, reference) if found else None,
  }


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
      gaps[name] = {"verdict": better(gap["difference"]), **gap}
  asked = gaps.get(f"embedding-{ASKED}")
  return asked and {"verdict": asked["verdict"], "against_row": gaps}


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
      gaps[name] = {"verdict": better(gap["difference"]), **gap}
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
  speakers: list[dict[str, Any]] = []
  for name, job in runs.items():
    speaker = f"{job.seed}/{name}"
    lone = statistics.read(job.run.folder, seed=job.seed).arm
    rows = [_row(each.run.folder, name) for each in (joint, job)]
    speakers.append(
      {
        "speaker": speaker,
        "group": groups[speaker],
        "joint": _wer(in_job, speaker),
        "alone": _wer(lone, speaker),
        "largest": float(np.abs(rows[0] - rows[1]).max()),
        "relative": float(
          np.linalg.norm(rows[0] - rows[1]) / np.linalg.norm(rows[1])
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
  row = submodels.Store(folder / "submodels")[speaker].row
  return np.concatenate(
    [np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(row)]
  )


def _wer(scores: Scores, speaker: str) -> float:
  chosen = scores.speakers == speaker
  return float(scores.errors[chosen].sum() / scores.words[chosen].sum())
