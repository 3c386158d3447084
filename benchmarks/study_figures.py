"""The study's finished runs -> figures of its arms, as JSON has them.

Enters: arms with the rates that were chosen, and their runs' folders. Leaves: of
each arm that is done for every seed WER with interval, what it costs, and its paired
difference to a reference.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import study_statistics as statistics
from etils import epath
from study_arms import (
  MULTI,
  NEWCOMERS,
  RECURRENCE,
  REFERENCES,
  SINGLE,
  Arm,
  Key,
  Study,
  learning_rates,
  module,
)
from study_runs import Job, is_done, severities
from study_statistics import Scores
from study_worker import COST

from hra.backbone import store
from hra.config import EvalConfig
from hra.data.roster import POOLED

_REFERENCE = ("residual-8", "residual-4")
"""The arm that those of (a) are compared with; the second where no other is run."""


class Heard(NamedTuple):
  """An arm over all seeds."""

  arm: Arm
  label: str
  scores: Scores
  frozen: Scores
  served: Scores | None
  """The backbone's where dev said that a speaker is not better adapted; None where it
  could judge no more than half of them."""
  seeds: Mapping[str, str]
  """Of each speaker."""
  severity: Mapping[str, float]
  parameters: Mapping[str, int]
  cpu_seconds: float
  """Of the chosen runs, on average over seeds."""

  @property
  def owned(self) -> int:
    """Numbers of one speaker; of a pool, all that trains."""
    shared = self.parameters["shared"] if self.arm.experiment == SINGLE else 0
    return self.parameters["per_task"] + shared

  @property
  def each_with_shared(self) -> float:
    """`owned`, and a speaker's part of what those of one job share."""
    if self.arm.experiment == SINGLE:
      return self.owned
    speakers = len(self.seeds) / len(set(self.seeds.values()))
    return self.owned + self.parameters["shared"] / speakers

  @property
  def errors(self) -> int:
    return int(self.scores.errors.sum())


def hear(runs: Mapping[Key, Sequence[Job]]) -> dict[Key, Heard]:
  """Reads the arms of which every run is done."""
  return {
    key: _heard(jobs)
    for key, jobs in runs.items()
    if jobs and all(map(is_done, jobs))
  }


def _heard(jobs: Sequence[Job]) -> Heard:
  read = [statistics.read(job.run.folder, seed=job.seed) for job in jobs]
  frozen = [each.frozen for each in read if each.frozen is not None]
  served = [
    _served(each.arm, alone, job)
    for each, alone, job in zip(read, frozen, jobs, strict=True)
  ]
  scores = statistics.joined([each.arm for each in read])
  severity: dict[str, float] = {}
  for job in jobs:
    severity |= severities(job)
  return Heard(
    arm=jobs[0].arm,
    label=jobs[0].label,
    scores=scores,
    frozen=statistics.joined(frozen),
    served=None
    if sum(map(_unjudged, jobs)) * 2 > len(set(scores.speakers))
    else statistics.joined(served),
    seeds={name: name.partition("/")[0] for name in set(scores.speakers)},
    severity={name: severity[name] for name in set(scores.speakers)},
    parameters=read[0].parameters,
    cpu_seconds=float(
      np.mean([cost(job.run.folder)["cpu_seconds"] for job in jobs])
    ),
  )


def _verdicts(job: Job) -> dict[str, str]:
  path = job.run.folder / "verdicts.json"
  told = json.loads(path.read_text())["tasks"] if path.exists() else {}
  return {task: each["verdict"] for task, each in told.items()}


def _unjudged(job: Job) -> int:
  """Speakers of a run whom dev couldn't judge."""
  told = _verdicts(job)
  everyone = job.run.config.synthetic.speakers
  if POOLED in told:
    return 0 if told[POOLED] != "unjudged" else everyone
  return everyone - sum(each != "unjudged" for each in told.values())


def _served(arm: Scores, frozen: Scores, job: Job) -> Scores:
  back = {
    f"{job.seed}/{task}"
    for task, verdict in _verdicts(job).items()
    if verdict == "not better"
  }
  everyone = f"{job.seed}/{POOLED}" in back
  falls_back = np.array([everyone or name in back for name in arm.speakers])
  errors = np.where(falls_back, frozen.errors, arm.errors)
  return arm._replace(errors=errors)


def arm_figures(
  heard: Heard,
  reference: Heard | None,
  *,
  dev: Mapping[str, int],
  tuned: bool,
  config: EvalConfig,
) -> dict[str, Any]:
  """All that is said of one arm.

  Args:
    reference: what it is compared with.
    dev: label of a rate -> word errors on dev; empty where it was not tuned itself.
    tuned: whether rates were chosen at all.
    config: of the bootstrap.
  """
  rates = learning_rates(heard.arm)
  groups = statistics.terciles(heard.severity)
  figures: dict[str, Any] = {
    "parameters": dict(heard.parameters),
    "owned": heard.owned,
    "rate": rates.get(heard.label) if heard.arm.tunable else None,
    "rate_label": heard.label,
    "rate_at_end": _at_end(heard, rates) if tuned else None,
    "dev_errors": {str(rates[label]): dev[label] for label in dev},
    "speakers": len(heard.seeds),
    **statistics.rate(heard.scores, config=config)._asdict(),
    "frozen": statistics.rate(heard.frozen, config=config)._asdict(),
    "served": heard.served
    and statistics.rate(heard.served, config=config)._asdict(),
    "seeds": _by(heard, heard.seeds, config),
    "terciles": _by(heard, groups, config),
    "cpu_seconds": heard.cpu_seconds,
    "versus": None,
  }
  if reference is not None and reference.arm.key != heard.arm.key:
    figures["versus"] = {
      "reference": reference.arm.name,
      **difference(heard, reference, config=config),
    }
  return figures


def _at_end(heard: Heard, rates: Mapping[str, float]) -> bool:
  if not heard.arm.tunable:  # controls, which may have no rate at all
    return False
  return rates[heard.label] in (min(rates.values()), max(rates.values()))


def _by(
  heard: Heard, groups: Mapping[str, str], config: EvalConfig
) -> dict[str, Any]:
  """WER of the arm, and of the backbone, for each group of speakers."""
  return {
    group: {"wer": each.arm.wer, "frozen": each.other.wer}
    for group, each in statistics.by_group(
      heard.scores, heard.frozen, groups=groups, config=config
    ).items()
  }


def difference(
  heard: Heard, other: Heard, *, config: EvalConfig
) -> dict[str, Any]:
  """The paired comparison, and the difference in each seed."""
  whole = statistics.compare(heard.scores, other.scores, config=config)
  seeds = statistics.by_group(
    heard.scores, other.scores, groups=heard.seeds, config=config
  )
  return {
    **statistics.figures(whole),
    "seeds": {seed: each.difference.wer for seed, each in seeds.items()},
  }


def reference_of(key: Key, heard: Mapping[Key, Heard]) -> Heard | None:
  """What an arm is compared with: fixed before anything is run."""
  experiment, name = key
  if experiment in (MULTI, SINGLE):
    wanted = [(experiment, each) for each in _REFERENCE]
  elif experiment == RECURRENCE:
    wanted = [REFERENCES[RECURRENCE]]
  elif experiment == NEWCOMERS:
    budget = budget_of(name)
    wanted = [(NEWCOMERS, f"row-{budget}" if budget else "shared-only")]
  else:
    wanted = []
  return next((heard[each] for each in wanted if each in heard), None)


def budget_of(name: str) -> int:
  """Recordings that an arm of newcomers hears; 0 for a control that needs none."""
  last = name.rpartition("-")[2]
  return int(last) if last.isdigit() else 0


def cost(folder: epath.Path) -> dict[str, float]:
  """CPU and wall seconds of the processes that worked on a run."""
  path = folder / COST
  nothing = {"cpu_seconds": 0.0, "wall_seconds": 0.0, "processes": 0}
  return json.loads(path.read_text()) if path.exists() else nothing


def costs(study: Study) -> dict[str, dict[str, float]]:
  """What each experiment took, unchosen and failed runs included."""
  spent: dict[str, list[dict[str, float]]] = {}
  for path in sorted(study.runs.glob(f"*/seed-*/*/{COST}")):
    experiment = path.relative_to(study.runs).parts[0]
    spent.setdefault(experiment, []).append(cost(path.parent))
  return {name: total(each) for name, each in spent.items()}


def backbone(study: Study) -> dict[str, Any]:
  """Which backbone it is, and how it does on typical voices."""
  path = study.scale.backbone or module(MULTI).get_config().backbone_path
  told = json.loads((store.folder_of(path) / "config.json").read_text())
  return {"fingerprint": told["fingerprint"], "dev": told["about"].get("dev")}


def total(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """What several runs took together."""
  return {
    "runs": len(parts),
    **{
      field: sum(part[field] for part in parts)
      for field in ("cpu_seconds", "wall_seconds", "processes")
    },
  }
