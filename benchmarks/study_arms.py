"""The study's arms at a scale: what is compared, and at which learning rates.

Enters: experiments/study and a `Scale`. Leaves: `Arm`s, which say all that a run of
theirs sets.
"""

import functools
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Literal, NamedTuple

from etils import epath

from hra.commands import configs

QUESTIONS = "abcde"
MULTI, SINGLE, RECURRENCE, ALONE = (
  "multi_task",
  "single_task",
  "recurrence",
  "alone",
)
TRAINING, NEWCOMERS = "training_speakers", "newcomers"
JOINT = "joint"
REFERENCES = {RECURRENCE: (MULTI, "hra-32"), ALONE: (MULTI, "residual-8")}
"""Experiment -> the arm of another one that it varies."""

EXPLORED = {
  "a_both": ("hra_both", "residual"),
  "a_both_both": ("hra_both", "residual_both"),
  "a_layers": ("hra_layers", "residual"),
  "a_layers_both": ("hra_layers", "residual_both"),
}
"""Families of (a) that came in after a look at dev of the first seed, and their rivals;
judged on the speakers of the other seeds."""

Do = Literal["train", "enroll", "apply"]
Key = tuple[str, str]
"""Experiment and arm."""


class Scale(NamedTuple):
  """How much of the study is run."""

  name: str
  """Of the files that are written."""
  command: str
  seeds: tuple[int, ...]
  labels: tuple[str, ...]
  """Of the rates that are tried on dev, from the lowest on; none where they are known
  before."""
  arms: Mapping[str, tuple[str, ...]]
  """Experiment -> its arms, where not all of them are run."""
  settings: Mapping[str, tuple[str, ...]]
  """Experiment -> FIELD=VALUE of all its runs."""
  alone: int
  """Speakers who are trained alone; 0 is all."""
  folder: str = ""
  """Of the runs, in the study's."""
  backbone: str = ""
  """A backbone's folder or name, in place of the experiments'."""
  beyond: tuple[str, ...] = ()
  """The rates below and above those, each tried where the best is the one beside it."""


FULL = Scale(
  name="study",
  command="python benchmarks/study.py",
  seeds=(0, 1, 2),
  labels=("low", "middle", "high"),
  beyond=("lowest", "highest"),
  arms={},
  settings={},
  alone=0,
)
_FEWER = ("train.steps=48",)
SMALL = Scale(
  name="study_small",
  command="python benchmarks/study.py --small",
  seeds=(3,),  # other people than the study's
  labels=(),
  arms={
    MULTI: (
      *("hra-8", "hra-32", "hra_both-8"),
      *("residual-1", "residual-4", "residual-16"),
      *("lora-1", "bitfit", "shared-only"),
    ),
    SINGLE: (),
    RECURRENCE: ("no-recurrence",),
    TRAINING: ("embedding", "hra"),
    NEWCOMERS: (
      *("row-5", "row-20", "head-5", "head-20"),
      *("embedding-5", "embedding-20", "mean-embedding"),
    ),
  },
  settings={
    MULTI: _FEWER,
    RECURRENCE: _FEWER,
    ALONE: _FEWER,
    TRAINING: ("synthetic.speakers=64", "train.steps=16"),
  },
  alone=4,
  folder="small",
)


class Arm(NamedTuple):
  """What is compared, with the rates that it may be trained at."""

  experiment: str
  name: str
  rates: Mapping[str, Mapping[str, Any]]
  """Label of a rate -> all fields that are set; one, "", where nothing trains."""
  do: Do = "train"
  parent: str = ""
  """The arm of the training speakers that it stands on."""
  init: str = "mean"
  fit: str = "auto"
  """What is fitted of a newcomer."""
  rate_of: str = ""
  """The arm of the same experiment whose rate it takes."""

  @property
  def key(self) -> Key:
    return self.experiment, self.name

  @property
  def tunable(self) -> bool:
    """Whether there are rates to choose from."""
    return len(self.rates) > 1

  @property
  def tuned(self) -> bool:
    """Whether its rate is chosen by its own dev figures."""
    return self.tunable and not self.rate_of


class Study(NamedTuple):
  """A scale of the study in a folder."""

  workdir: epath.Path
  scale: Scale
  questions: str = QUESTIONS

  @property
  def runs(self) -> epath.Path:
    """Where experiments have their folders."""
    return self.workdir / self.scale.folder


def experiment_path(name: str) -> str:
  return configs.experiment(f"study/{name}")


@functools.cache
def module(name: str) -> ModuleType:
  return configs.load_module(experiment_path(name))


def needed(study: Study) -> dict[Key, Arm]:
  """All arms that the questions need, but for those trained alone."""
  found: list[Arm] = []
  if "a" in study.questions:
    found += _declared(MULTI)
  else:
    wanted = {
      REFERENCES[name]
      for name, letter in ((ALONE, "c"), (RECURRENCE, "d"))
      if letter in study.questions
    }
    found += [arm for arm in _declared(MULTI) if arm.key in wanted]
  if "d" in study.questions:
    found += _declared(RECURRENCE)
  if "b" in study.questions:
    found += [*_declared(TRAINING), *_newcomers()]
  if "e" in study.questions:
    found += _declared(SINGLE)
  chosen = study.scale.arms
  taken = {
    arm.key: _tried(arm, (*study.scale.labels, *study.scale.beyond))
    for arm in found
    if arm.name in chosen.get(arm.experiment, (arm.name,))
  }
  for key, arm in taken.items():
    if (arm.experiment, arm.rate_of) not in taken:
      taken[key] = arm._replace(rate_of="")
  return taken


def one_by_one(study: Study, label: str) -> list[Arm]:
  """(c): the job of all, then each by himself, at the rate of `label`."""
  reference, name = REFERENCES[ALONE]
  rates = module(reference).tuned({name: module(reference).ARMS[name]})
  fields = rates[f"{name}-{label}"]
  rate = {key: fields[key] for key in fields if key.startswith("train.")}
  declared = module(ALONE).sweep()
  everyone = [speaker for speaker in declared if speaker != JOINT]
  members = everyone[: study.scale.alone or None]
  joint = dict(declared[JOINT])
  if members != everyone:
    places = min(len(members), module(ALONE).get_config().data.tasks_per_batch)
    joint |= {"data.tasks": tuple(members), "data.tasks_per_batch": places}
  chosen = {JOINT: joint, **{each: declared[each] for each in members}}
  return [
    Arm(ALONE, each, {label: {**rate, **what}}) for each, what in chosen.items()
  ]


def learning_rates(arm: Arm) -> dict[str, float]:
  """Label -> rate of the rows, or of what is shared where nobody owns any."""
  return {
    label: fields["train.rows.learning_rate"]
    for label, fields in arm.rates.items()
    if "train.rows.learning_rate" in fields
  }


def _declared(experiment: str) -> list[Arm]:
  """The arms of an experiment's sweep(), whose runs are ARM-RATE."""
  return _grouped(experiment, module(experiment).sweep())


def _grouped(
  experiment: str, runs: Mapping[str, Mapping[str, Any]], **how: Any
) -> list[Arm]:
  rates: dict[str, dict[str, Mapping[str, Any]]] = {}
  for name, fields in runs.items():
    arm, _, label = name.rpartition("-")
    rates.setdefault(arm, {})[label] = fields
  return [Arm(experiment, arm, each, **how) for arm, each in rates.items()]


def _newcomers() -> list[Arm]:
  """Fresh rows, what is enrolled on the training speakers' runs, and controls."""
  parents: Mapping[str, str] = module(NEWCOMERS).ENROLLED
  found = []
  for arm in (
    *_declared(NEWCOMERS),
    *_grouped(NEWCOMERS, module(NEWCOMERS).enrolments()),
  ):
    method = arm.name.rpartition("-")[0]
    chosen_by = f"{method}-{module(NEWCOMERS).TUNED_AT}"
    if arm.name != chosen_by:
      arm = arm._replace(rate_of=chosen_by)
    if method in parents:
      fit = "row" if method == "warm_row" else "auto"
      arm = arm._replace(do="enroll", parent=parents[method], fit=fit)
    found.append(arm)
  for name, fields in module(NEWCOMERS).controls().items():
    start, _, method = name.partition("-")
    how: dict[str, Any] = {"do": "apply", "parent": "shared-only"}
    if start in ("mean", "nearest"):
      parent = parents[method.partition("-")[0]]
      how = {"do": "enroll", "parent": parent, "init": start}
    found.append(Arm(NEWCOMERS, name, {"": fields}, **how))
  return found


def _tried(arm: Arm, labels: Sequence[str]) -> Arm:
  """The arm with those of its rates that are tried."""
  if not (labels and arm.tunable):
    return arm
  return arm._replace(rates={label: arm.rates[label] for label in labels})
