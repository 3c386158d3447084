"""Runs an experiment with each of several settings, and compares the results.

    hra sweep --config=experiments/quickstart.py --workdir=runs/widths \\
      --axis=adapter.width=32,64,128 --axis=seed=0,1,2 --jobs=2

The runs are the product of the axes, times what the experiment's own sweep()
returns, if it has one: a list of {"adapter.width": 64, ...}, or {NAME: {...}}. A
comma separates values; a value with commas in it, as fields of several values
have, stands in brackets: --axis=adapter.sites=[attention],[first,second]; a name
with a comma in double quotes: --axis='data.tasks=["Doe, Jane"],[bert]'.
--config.FIELD=VALUE sets a field of every run.

Each run has a folder WORKDIR/NAME, named by its settings, with a log.txt. The same
command does what is left, and further values of an axis add to what is done.
Ends with a table, sweep.json and report.html; to forget a run, remove its folder.

On a cluster, each of several processes does --only=NAME, and --jobs=0 lists what they
did: `python -m launch.sweep` renders that (docs/launch.md).
"""

import sys
from collections.abc import Sequence

from absl import flags
from etils import epath

from hra.commands import configs
from hra.errors import InputError, Interrupted
from hra.evaluate.report import write_sweep_report
from hra.evaluate.sweep import read_sweep, sweep_table
from hra.sweeps import endings, plan, runner

_CONFIG = configs.define()
_WORKDIR = flags.DEFINE_string("workdir", "", "The sweep's folder.")
_AXIS = flags.DEFINE_multi_string(
  "axis", [], "FIELD=VALUE,VALUE,...; repeat it for the product of several."
)
_JOBS = flags.DEFINE_integer(
  "jobs",
  1,
  "Runs at once; they share the cores, and the GPUs if there are any. 0 runs "
  "nothing and lists what is done.",
)
_ONLY = flags.DEFINE_multi_string(
  "only", [], "A run's name; all others are left to other processes. Repeated."
)
_SPLIT = flags.DEFINE_string(
  "split", "", "What is scored; empty is the configured test split."
)


def planned() -> plan.Sweep:
  """The sweep that the flags describe.

  Raises:
    InputError: it can't be planned.
  """
  path = configs.required(_CONFIG, "experiments/quickstart.py") or ""
  return plan.make(
    configs.load(path),
    experiment=path,
    workdir=configs.required(_WORKDIR, "runs/widths"),
    axes=_AXIS.value,
    declared=configs.load_sweep(path),
    settings=configs.settings(),
    split=_SPLIT.value,
  )


def main(argv: Sequence[str]) -> None:
  """Plans, runs what is left, prints the table and writes the report.

  Raises:
    InputError: before anything runs, what can't be planned; at the end, that
      runs failed.
    Interrupted: after SIGTERM or Ctrl-C, when the runs have saved.
  """
  del argv
  workdir = epath.Path(configs.required(_WORKDIR, "runs/widths"))
  sweep, names = planned(), _ONLY.value
  sys.stdout.write(
    f"runs of the sweep {workdir}: {len(names) or len(sweep.runs)}\n"
  )
  outcome = runner.run(sweep, jobs=_JOBS.value, out=sys.stdout, only=names)
  if names:
    _conclude(outcome, workdir)
    return
  try:
    found = read_sweep(workdir)
    if found.done:
      sys.stdout.write(f"\n{sweep_table(found)}\n\n")
      sys.stdout.write(f"report: {write_sweep_report(workdir)}\n")
  finally:  # that runs failed is said first, whatever the page meets
    _conclude(outcome, workdir)


def _conclude(outcome: runner.Outcome, workdir: epath.Path) -> None:
  """Raises what the command ends with where not all runs are done."""
  every = sum(map(len, (outcome.done, outcome.failed, outcome.left)))
  failed = ", ".join(outcome.failed)
  if outcome.left and _JOBS.value == 0:
    raise InputError(
      workdir,
      expected=f"{every} runs that are done",
      got=f"{len(outcome.done)}{f', and failed ones ({failed})' if failed else ''}",
      fix="the same command with --jobs=1 does what is left",
    )
  if outcome.left:
    raise Interrupted(
      f"interrupted with {len(outcome.done)} of {every} runs done"
      f"{f' and {len(outcome.failed)} failed ({failed})' if failed else ''}; the "
      "same command goes on"
    )
  if outcome.died:
    others = [each for each in outcome.failed if each not in outcome.died]
    more = f", and others failed ({', '.join(others)})" if others else ""
    raise SystemExit(
      f"hra sweep: {', '.join(outcome.died)} died{more}: see {endings.LOG}; the "
      "same command tries again"
    )
  if failed:
    raise InputError(
      workdir,
      expected=f"{every} runs that end well",
      got=f"{len(outcome.failed)} that failed ({failed})",
      fix=f"see {endings.LOG} in their folders; the same command tries them again",
    )


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("sweep")
