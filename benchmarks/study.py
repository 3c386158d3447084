"""The study of experiments/study/README.md, start to end, by one command.

    python benchmarks/study.py --workdir=runs/study --jobs=2
    python benchmarks/study.py --workdir=runs/study --small

Tunes every arm on dev of the first seed, trains it with the rate that was chosen on all
seeds, adds newcomers to what was trained, scores test once, and writes docs/study.json,
docs/study.md and docs/study/*.png. --small is the half hour of the README, with the
rates that docs/study.json has, or the middle ones; its runs are in WORKDIR/small, its
figures in docs/study_small.

What is done is not done again: after Ctrl-C, or a run that failed, the same command
goes on. --only asks some of the questions and leaves what docs/study.json says of the
others. --partial writes what is complete where not everything is.
"""

import json
import sys
import time
from collections.abc import Iterable, Sequence

import results
import study_figures as figures
import study_page as page
import study_runs as runs
from absl import app, flags, logging
from etils import epath
from study_arms import (
  ALONE,
  FULL,
  QUESTIONS,
  REFERENCES,
  SMALL,
  TRAINING,
  Arm,
  Key,
  Study,
  needed,
  one_by_one,
)
from study_runs import Job

from hra.errors import InputError, Interrupted
from hra.files import absolute

INTERRUPTED = 75


def define_flags() -> None:
  """Defines the command's flags; who imports this file has other ones."""
  results.define_out()
  flags.DEFINE_string("workdir", "runs/study", "Where the runs go.")
  flags.DEFINE_bool("small", False, "Half an hour; claims nothing.")
  flags.DEFINE_integer("jobs", 2, "Runs at once.")
  flags.DEFINE_list("only", list(QUESTIONS), "Questions: a,b,c,d,e.")
  flags.DEFINE_bool(
    "partial", False, "Write tables also where runs failed or are left."
  )


def main(argv: Sequence[str]) -> None:
  del argv
  given = flags.FLAGS
  logging.set_verbosity(logging.WARNING)
  try:
    study(
      Study(
        absolute(given.workdir),
        SMALL if given.small else FULL,
        _questions(given.only),
      ),
      at_once=given.jobs,
      partial=given.partial,
      out=given.out,
    )
  except InputError as error:
    sys.exit(f"study: {error}")
  except Interrupted as error:
    print(f"study: {error}", file=sys.stderr)
    sys.exit(INTERRUPTED)


def study(
  asked: Study, *, at_once: int, partial: bool, out: epath.PathLike
) -> None:
  """Runs what is left, then writes what was found into the folder `out`.

  Raises:
    InputError: runs failed, naming their logs; the page in `out` is of another
      backbone.
    Interrupted: after a signal, when the runs have saved.
  """
  page.check(asked, out=out)
  conductor = Conductor(asked, at_once=at_once)
  try:
    conductor.conduct()
  except Interrupted:
    if partial:
      page.write(asked, conductor.scored(), alone=conductor.alone, out=out)
    raise
  failed = conductor.failed
  if partial or not failed:
    page.write(asked, conductor.scored(), alone=conductor.alone, out=out)
  if failed:
    raise InputError(
      asked.runs,
      expected="runs that end well",
      got=f"{len(failed)} that failed ({', '.join(failed)})",
      fix="see these logs; the same command tries them again",
    )


class Conductor:
  """Runs the parts in their order; remembers what was chosen and what failed."""

  def __init__(self, study: Study, *, at_once: int):
    self.study = study
    self.failed: list[str] = []
    self.rates: dict[Key, str] = {}
    self.alone: list[Job] = []
    self._at_once = at_once
    self._known = known_rates() if not study.scale.labels else {}

  def conduct(self) -> None:
    arms = needed(self.study).values()
    first = [arm for arm in arms if not arm.parent]
    second = [arm for arm in arms if arm.parent]
    tuned, scored = self._tuned_later(second), self._scored_later(second)
    waiting = self._scored_later(first) + tuned + scored
    self._tune("tuning", first, waiting=waiting)
    self._score("chosen rates, on test", first, waiting=tuned + scored)
    ready = [arm for arm in second if self._has_parents(arm)]
    self._tune("tuning, newcomers", ready, waiting=scored)
    self._score("newcomers, on test", ready, waiting=0)

  def scored(self) -> dict[Key, list[Job]]:
    """Arm -> its runs on test, of arms whose rate is chosen."""
    arms = needed(self.study)
    return {key: self._jobs(arms[key]) for key in self.rates if key in arms}

  def _tune(self, title: str, arms: Sequence[Arm], *, waiting: int) -> None:
    beyond = self.study.scale.beyond
    todo = runs.tuning(self.study, arms, rates=self.rates)
    try:
      self._do(title, todo, waiting=waiting)
      more = runs.tuning(self.study, arms, rates=self.rates)
      more = [job for job in more if job.label in beyond]
      self._do(f"{title}: rates beyond", more, waiting=waiting)
    finally:  # what is tuned can be told, whatever ended this part
      self.rates |= runs.choose(
        self.study, arms, rates=self.rates, known=self._known
      )

  def _score(self, title: str, arms: Sequence[Arm], *, waiting: int) -> None:
    todo = [
      job for arm in arms if arm.key in self.rates for job in self._jobs(arm)
    ]
    if "c" in self.study.questions and not self.alone:
      self.alone = self._alone()
      todo += self.alone
    self._do(title, todo, waiting=waiting)

  def _do(self, title: str, todo: Sequence[Job], *, waiting: int) -> None:
    if todo:
      _announce(self.study, title, todo, waiting=waiting, at_once=self._at_once)
      self.failed += runs.execute(
        self.study, todo, at_once=self._at_once, out=sys.stdout
      )

  def _alone(self) -> list[Job]:
    """(c), at the rate of the arm that it repeats."""
    reference = REFERENCES[ALONE]
    label = self.rates.get(reference) or self._known.get(reference)
    if label is None and self.study.scale.labels:
      return []  # it failed
    seed = self.study.scale.seeds[0]
    return [
      self._job(arm, seed, next(iter(arm.rates)))
      for arm in one_by_one(self.study, label or "middle")
    ]

  def _jobs(self, arm: Arm) -> list[Job]:
    label = self.rates[arm.key]
    return [self._job(arm, seed, label) for seed in self.study.scale.seeds]

  def _job(self, arm: Arm, seed: int, label: str) -> Job:
    return runs.job(
      self.study,
      arm,
      seed=seed,
      label=label,
      split="test",
      rates=self.rates,
    )

  def _has_parents(self, arm: Arm) -> bool:
    """Whether all runs that an arm stands on are there."""
    parent = needed(self.study)[TRAINING, arm.parent]
    return parent.key in self.rates and all(
      map(runs.is_done, self._jobs(parent))
    )

  def _tuned_later(self, arms: Iterable[Arm]) -> int:
    if not self.study.scale.labels:
      return 0
    return sum(len(self.study.scale.labels) for arm in arms if arm.tuned)

  def _scored_later(self, arms: Iterable[Arm]) -> int:
    """Runs to train; those of the first seed are tuned before."""
    seeds = len(self.study.scale.seeds)
    tunes = bool(self.study.scale.labels)
    return sum(seeds - (tunes and arm.tuned) for arm in arms)


def _announce(
  study: Study,
  title: str,
  jobs: Sequence[Job],
  *,
  waiting: int,
  at_once: int,
) -> None:
  """Says before a part how much there is, and for how long.

  Args:
    waiting: runs of later parts.
  """
  left = sum(map(runs.is_left, jobs))
  spent = figures.costs(study)
  done = sum(each["runs"] for each in spent.values())
  eta = ""
  if done:
    seconds = sum(each["wall_seconds"] for each in spent.values()) / done
    total = (left + waiting) * seconds / at_once
    eta = f"; about {_clock(total)} left of the study"
  print(
    f"[{time.strftime('%H:%M')}] {title}: {len(jobs)} runs, "
    f"{len(jobs) - left} of them done{eta}",
    flush=True,
  )


def known_rates() -> dict[Key, str]:
  """The rates that the full study chose, where it was run."""
  path = epath.Path("docs") / f"{FULL.name}.json"
  if not path.exists():
    return {}
  return {
    (experiment, name): arm["rate_label"]
    for experiment, arms in json.loads(path.read_text())["arms"].items()
    for name, arm in arms.items()
  }


def _questions(given: Sequence[str]) -> str:
  for each in given:
    if len(each) != 1 or each not in QUESTIONS:
      raise InputError("--only", expected="some of a,b,c,d,e", got=repr(each))
  return "".join(sorted(set(given)))


def _clock(seconds: float) -> str:
  minutes = round(seconds / 60)
  return f"{minutes // 60}:{minutes % 60:02d} h"


if __name__ == "__main__":
  define_flags()
  app.run(main)
