"""The study's figures -> docs/study.json, the page and its plots.

Enters: the runs on test of the arms that are done. Leaves: three kinds of files. What
they say of questions that are not asked now is kept, each part with its own date.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import results
import study_answers as answers
import study_figures as figures
import study_plots as plots
import study_runs as runs
import study_tables as tables
from etils import epath
from study_arms import (
  ALONE,
  EXPLORED,
  MULTI,
  NEWCOMERS,
  QUESTIONS,
  RECURRENCE,
  SINGLE,
  Arm,
  Key,
  Study,
  needed,
)
from study_runs import Job

from hra.config import EvalConfig
from hra.errors import InputError

_ABOUT = ("date", "hardware", "versions")


def check(study: Study, *, out: epath.PathLike) -> None:
  """Sees that figures of two backbones do not come to one page.

  Raises:
    InputError: some of the questions are asked on another backbone than the page's.
  """
  before = _before(study, out)
  others = before and before["backbone"] != figures.backbone(study)
  if others and study.questions != QUESTIONS:
    raise InputError(
      epath.Path(out) / f"{study.scale.name}.json",
      expected="figures on the backbone that is there now",
      got="those on another",
      fix="ask all questions, or give another --out",
    )


def write(
  study: Study,
  scored: Mapping[Key, Sequence[Job]],
  *,
  alone: Sequence[Job],
  out: epath.PathLike,
) -> None:
  """Writes the figures, the Markdown and the plots."""
  check(study, out=out)
  heard = figures.hear(scored)
  about = results.about(study.scale.name)
  arms: dict[str, dict[str, Any]] = {}
  for key, each in heard.items():
    arms.setdefault(key[0], {})[key[1]] = figures.arm_figures(
      each,
      figures.reference_of(key, heard),
      dev=_dev(study, each.arm, scored),
      tuned=bool(study.scale.labels),
      config=EvalConfig(),
    )
  asked = _questions(study, heard, alone=alone)
  found = {
    **about,
    "command": study.scale.command,
    "seeds": list(study.scale.seeds),
    "tuned": bool(study.scale.labels),
    "missing": ["/".join(key) for key in needed(study) if key not in heard],
    "measured": {
      letter: {field: about[field] for field in _ABOUT}
      for letter in study.questions
      if any(asked[name] for name in asked if name[0] == letter)
    },
    "arms": arms,
    "questions": asked,
    "backbone": figures.backbone(study),
    "cost": figures.costs(study),
  }
  before = _before(study, out)
  if before is not None and before["backbone"] == found["backbone"]:
    found = merged(found, before, study)
  found["arms"] = {
    experiment: {name: told[name] for name in sorted(told, key=_by_size)}
    for experiment, told in sorted(found["arms"].items())
  }
  drawn = draw(found, folder=epath.Path(out) / study.scale.name)
  results.write(
    study.scale.name,
    figures=found,
    markdown=tables.markdown(found, drawn),
    out=out,
  )


def merged(
  found: Mapping[str, Any], before: Mapping[str, Any], study: Study
) -> dict[str, Any]:
  """The figures, with those of before of all that no question needs now."""
  asked = set(needed(study))
  if "c" in study.questions:
    asked.add((ALONE, ALONE))
  arms: dict[str, dict[str, Any]] = {}
  for experiment in {**before["arms"], **found["arms"]}:
    kept = {
      name: told
      for name, told in before["arms"].get(experiment, {}).items()
      if (experiment, name) not in asked
    }
    arms[experiment] = {**kept, **found["arms"].get(experiment, {})}
  experiments = {experiment for experiment, _ in asked}
  kept_cost = {
    name: told
    for name, told in before["cost"].items()
    if name not in found["cost"] and name not in experiments
  }
  answered = {
    name: before["questions"][name]
    for name in found["questions"]
    if name[0] not in study.questions
  }
  return {
    **found,
    "missing": [
      *found["missing"],
      *(name for name in before["missing"] if _key(name) not in asked),
    ],
    "measured": {**before["measured"], **found["measured"]},
    "arms": {name: told for name, told in arms.items() if told},
    "questions": {**found["questions"], **answered},
    "cost": {**kept_cost, **found["cost"]},
  }


def _questions(
  study: Study, heard: Mapping[Key, figures.Heard], *, alone: Iterable[Job]
) -> dict[str, Any]:
  """The answers, None where a question is not asked."""
  config = EvalConfig()
  others = [str(seed) for seed in study.scale.seeds[1:]]
  asked: dict[str, Any] = {
    "a": lambda: answers.smaller(heard, MULTI, config=config),
    **{
      name: lambda family=family, rival=rival: answers.smaller(
        heard, MULTI, family=family, rival=rival, seeds=others, config=config
      )
      for name, (family, rival) in EXPLORED.items()
    },
    "b": lambda: answers.less_data(heard, config=config),
    "c": lambda: answers.together(list(alone)),
    "d": lambda: answers.recurrence(heard, config=config),
    "e": lambda: answers.smaller(heard, SINGLE, config=config),
  }
  return {
    name: answer() if name[0] in study.questions else None
    for name, answer in asked.items()
  }


def _dev(
  study: Study, arm: Arm, scored: Mapping[Key, Sequence[Job]]
) -> Mapping[str, int]:
  """Word errors on dev by rate; none where it was not tuned itself."""
  if not (study.scale.labels and arm.tuned):
    return {}
  rates = {key: jobs[0].label for key, jobs in scored.items()}
  return runs.dev_errors(study, arm, rates=rates)


def _before(study: Study, out: epath.PathLike) -> dict[str, Any] | None:
  path = epath.Path(out) / f"{study.scale.name}.json"
  return json.loads(path.read_text()) if path.exists() else None


def _by_size(name: str) -> tuple[str, int]:
  """Families by name, and their sizes by number."""
  family, _, size = name.rpartition("-")
  return (family, int(size)) if size.isdigit() else (name, 0)


def _key(name: str) -> Key:
  experiment, _, arm = name.partition("/")
  return experiment, arm


def draw(found: tables.Figures, *, folder: epath.Path) -> dict[str, str]:
  """Draws what is there; experiment -> the file, relative to the folder's parent."""
  folder.mkdir(parents=True, exist_ok=True)
  arms = found["arms"]
  drawn = {}

  def path(name: str, experiment: str) -> str:
    drawn[experiment] = f"{folder.name}/{name}.png"
    return os.fspath(folder / f"{name}.png")

  panels = {
    title: panel
    for title, experiment in (
      ("multi-task, without what is shared", MULTI),
      ("single-task, all that trains", SINGLE),
    )
    if (panel := _panel(arms.get(experiment, {})))["families"]
  }
  if panels:
    plots.wer_by_parameters(panels, path=path("parameters", MULTI))
  newcomers = _by_recordings(arms.get(NEWCOMERS, {}))
  if newcomers["methods"]:
    plots.wer_by_recordings(newcomers, path=path("recordings", NEWCOMERS))
  if found["questions"]["c"]:
    speakers = found["questions"]["c"]["speakers"]
    plots.joint_and_alone(speakers, path=path("alone", ALONE))
  if found["questions"]["d"]:
    reference = found["questions"]["d"]["reference"]
    bars = {reference: arms[MULTI][reference], **arms[RECURRENCE]}
    plots.ablations(
      [{"name": name, **arm} for name, arm in bars.items()],
      reference=reference,
      path=path("recurrence", RECURRENCE),
    )
  return drawn


def _panel(arms: Mapping[str, tables.Figures]) -> dict[str, Any]:
  """(a): lines over sizes; what owns a backbone would press the others together."""
  families: dict[str, list[dict[str, Any]]] = {}
  levels: dict[str, tables.Figures] = {}
  for name, arm in arms.items():
    family = tables.FAMILIES.get(name.partition("-")[0])
    if name == "shared-only" or family == "full":
      levels[name] = arm
    elif family:
      point = {"parameters": arm["owned"], **_drawn(arm)}
      families.setdefault(family, []).append(point)
  if arms:
    levels["frozen"] = next(iter(arms.values()))["frozen"]
  return {
    "families": families,
    "levels": {name: _drawn(level) for name, level in levels.items()},
  }


def _by_recordings(arms: Mapping[str, tables.Figures]) -> dict[str, Any]:
  methods: dict[str, list[dict[str, Any]]] = {}
  levels = {}
  for name, arm in arms.items():
    budget = figures.budget_of(name)
    if budget:
      method = tables.METHODS[name.rpartition("-")[0]]
      point = {"recordings": budget, **_drawn(arm)}
      methods.setdefault(method, []).append(point)
    else:
      levels[tables.LEVELS[name]] = _drawn(arm)
  if arms:
    levels["frozen"] = _drawn(next(iter(arms.values()))["frozen"])
  return {"methods": methods, "levels": levels}


def _drawn(rate: tables.Figures) -> dict[str, float]:
  return {key: rate[key] for key in ("wer", "low", "high")}
