"""The study's runs: each an arm with a seed and a learning rate, and how it is done.

Runs of one arm are done by one process, one after the other: they are one program,
which is then traced once.

Enters: arms. Leaves: `Job`s, of which each is a run of `hra.sweeps` that
`study_worker.py` does, and their folders; of each arm the learning rate that its
dev figures chose. Nothing here reads what test says.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TextIO

from etils import epath
from study_arms import (
  NEWCOMERS,
  TRAINING,
  Arm,
  Key,
  Study,
  experiment_path,
  learning_rates,
  needed,
)

from hra import config_tree
from hra.commands import configs
from hra.data.place import LAST
from hra.data.synthetic.corpus import describe
from hra.errors import Interrupted
from hra.run_data import with_data
from hra.sweeps import endings, plan, record, runner

_WORKER = epath.Path(__file__).with_name("study_worker.py")


class Job(NamedTuple):
  """A run, and how the worker does it."""

  arm: Arm
  seed: int
  label: str
  run: plan.Run
  command: tuple[str, ...]
  """Arguments of the worker."""


def job(
  study: Study,
  arm: Arm,
  *,
  seed: int,
  label: str,
  split: str,
  rates: Mapping[Key, str],
) -> Job:
  """One run.

  Args:
    label: of the learning rate.
    split: that is scored: dev while rates are chosen.
    rates: chosen, of arms that this one stands on.
  """
  fields = dict(arm.rates[label])
  command = [f"--do={arm.do}"]
  if arm.parent:
    parent = needed(study)[TRAINING, arm.parent]
    theirs = rates[parent.key]
    name = _folder(parent, seed, theirs)
    parent_folder = f"--parent={study.runs / name}"
    command += [parent_folder, f"--init={arm.init}", f"--fit={arm.fit}"]
    # On another parent it would be another run.
    shared = parent.rates[theirs]["train.shared.learning_rate"]
    fields["train.shared.learning_rate"] = shared
  base = configs.load(experiment_path(arm.experiment))
  for setting in (
    *study.scale.settings.get(arm.experiment, ()),
    f"seed={seed}",
    f"synthetic.seed={seed}",
    *(
      [f"backbone_path={study.scale.backbone}"] if study.scale.backbone else ()
    ),
  ):
    config_tree.override(base, setting)
  (run,) = plan.make(
    base,
    experiment=experiment_path(arm.experiment),
    workdir=study.runs / arm.experiment / f"seed-{seed}",
    declared={_label(arm, label): fields},
    split=split,
  ).runs
  # Runs of all experiments that hear the same speakers share what is made.
  speech = study.runs / plan.DATA / epath.Path(run.corpus).name
  run.config.data.path = str(speech)
  name = _folder(arm, seed, label)
  return Job(
    arm,
    seed,
    label,
    run._replace(name=name, corpus=str(speech)),
    tuple(command),
  )


def tuning(
  study: Study, chosen: Iterable[Arm], *, rates: Mapping[Key, str]
) -> list[Job]:
  """Runs on dev of the first seed."""
  found = [arm for arm in chosen if arm.tuned] if study.scale.labels else []
  seed = study.scale.seeds[0]
  tried = {arm.key: labels(study, arm, rates=rates) for arm in found}
  return [
    job(study, arm, seed=seed, label=label, split="dev", rates=rates)
    for arm in found
    for label in tried[arm.key]
  ]


def labels(
  study: Study, arm: Arm, *, rates: Mapping[Key, str]
) -> tuple[str, ...]:
  """The rates that an arm is tuned over: one more beside the best, if that is outermost.

  Args:
    rates: as in `job`.
  """
  usual = study.scale.labels
  errors = dev_errors(study, arm, rates=rates)
  if not study.scale.beyond or not errors.keys() >= set(usual):
    return usual
  best = lowest(
    {label: errors[label] for label in usual}, rates=learning_rates(arm)
  )
  below, above = study.scale.beyond
  more = {usual[0]: (below,), usual[-1]: (above,)}.get(best, ())
  return (*usual, *more)


def choose(
  study: Study,
  chosen: Sequence[Arm],
  *,
  rates: Mapping[Key, str],
  known: Mapping[Key, str],
) -> dict[Key, str]:
  """Arm -> label of its rate: of the fewest errors on dev, of equals the lower.

  Args:
    rates: as in `job`.
    known: rates to take where this scale tunes none; else the middle one.

  Returns:
    Not of arms with a rate that is not done.
  """
  found: dict[Key, str] = {}
  for arm in chosen:
    every = list(arm.rates)
    if not arm.tunable:
      found[arm.key] = every[0]
    elif arm.rate_of:
      continue
    elif not study.scale.labels:
      found[arm.key] = known.get(arm.key, every[len(every) // 2])
    else:
      errors = dev_errors(study, arm, rates=rates)
      if errors.keys() >= set(labels(study, arm, rates=rates)):
        found[arm.key] = lowest(errors, rates=learning_rates(arm))
  for arm in chosen:
    source = arm.experiment, arm.rate_of
    if arm.key not in found and source in found:
      found[arm.key] = found[source]
  return found


def lowest(errors: Mapping[str, int], *, rates: Mapping[str, float]) -> str:
  """The label of the fewest errors, of equals that of the lower rate."""
  return min(errors, key=lambda label: (errors[label], rates[label]))


def dev_errors(
  study: Study, arm: Arm, *, rates: Mapping[Key, str]
) -> dict[str, int]:
  """Label of a rate -> word errors on dev, of rates that are done."""
  found = {}
  for label in arm.rates:
    each = job(
      study,
      arm,
      seed=study.scale.seeds[0],
      label=label,
      split="dev",
      rates=rates,
    )
    if record.check(each.run) != "all":
      told = json.loads((each.run.folder / "verdicts.json").read_text())
      found[label] = sum(
        task["dev"][kind]
        for task in told["tasks"].values()
        for kind in ("substitutions", "deletions", "insertions")
      )
  return found


def execute(
  study: Study, todo: Sequence[Job], *, at_once: int, out: TextIO
) -> list[str]:
  """Does what is left of some runs; one that fails stops no other.

  Returns:
    Logs of runs that failed.

  Raises:
    Interrupted: after a signal, when the runs have saved.
  """
  left = [each for each in todo if is_left(each)]
  if not left:
    return []
  _make_speakers(left, out=out)
  chains = _chains(left)
  sweep = plan.Sweep(
    experiment=experiment_path(left[0].arm.experiment),
    workdir=study.runs,
    settings=(),
    axes={},
    runs=tuple(chain[-1].run for chain in chains),
  )
  by_name = {chain[-1].run.name: chain for chain in chains}

  def commands(run: plan.Run) -> Mapping[str, Sequence[str]]:
    chain = by_name[run.name]
    folders = ",".join(str(each.run.folder) for each in chain)
    worker = (
      *(sys.executable, str(_WORKER)),
      *(f"--folders={folders}", f"--split={run.split}", *chain[-1].command),
    )
    return {"train": worker, "evaluate": worker}

  outcome = runner.run(sweep, jobs=at_once, out=out, commands=commands)
  if outcome.left:
    done = sum(not is_left(each) for each in left)
    raise Interrupted(
      f"interrupted with {done} of {len(left)} runs of this part done; the same "
      "command goes on"
    )
  return [str(study.runs / name / endings.LOG) for name in outcome.failed]


def _make_speakers(todo: Iterable[Job], *, out: TextIO) -> None:
  """Makes what runs hear before they start: no two processes make the same."""
  for corpus, each in {job.run.corpus: job for job in todo}.items():
    if not (epath.Path(corpus) / "prepared" / LAST).exists():
      spec = each.run.config.synthetic
      print(f"making {spec.speakers} speakers: {corpus}", file=out, flush=True)
      with_data(each.run.config, each.run.folder)


def _chains(left: Iterable[Job]) -> list[list[Job]]:
  """Runs that one process does, in order; what is asked of each is noted.

  The last stands for all of them, since it is done when they are.
  """
  chains: dict[tuple[str, ...], list[Job]] = {}
  for each in left:
    program = each.arm.name
    if each.arm.experiment == NEWCOMERS:  # budgets are one program
      program = program.rstrip("0123456789")
    chain = (each.arm.experiment, program, *each.command)
    chains.setdefault(chain, []).append(each)
  for *before, _ in chains.values():
    for each in before:
      record.ask(each.run, needs=record.check(each.run))
  return list(chains.values())


def is_left(each: Job) -> bool:
  """Whether there is something to do; dev is scored when a run is trained.

  Test scores take the place of dev scores, which verdicts.json keeps.
  """
  needs = record.check(each.run)
  scored = needs == "nothing" or each.run.split != "test"
  return needs == "all" or not scored


def is_done(each: Job) -> bool:
  """Whether a run's results are those of its split."""
  return record.check(each.run) == "nothing"


def severities(each: Job) -> dict[str, float]:
  """SEED/SPEAKER -> how strong the speaker's habits are."""
  told = describe(each.run.config.synthetic)
  return {f"{each.seed}/{name}": one["strength"] for name, one in told.items()}


def _label(arm: Arm, label: str) -> str:
  return f"{arm.name}-{label}" if label else arm.name


def _folder(arm: Arm, seed: int, label: str) -> str:
  return f"{arm.experiment}/seed-{seed}/{_label(arm, label)}"
