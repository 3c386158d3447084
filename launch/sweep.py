"""Does the runs of a sweep on a cluster: a Slurm array, or one JobSet each.

    python -m launch.sweep --launcher=slurm --accelerator=gpu:1 --at_once=8 -- \
      --config=experiments/quickstart.py --workdir=/shared/runs/widths \
      --axis=adapter.width=32,64,128 --axis=seed=0,1,2

What follows `--` is what follows `hra sweep`, which is what runs: each element does one
run with `--only=NAME` in a folder that all machines share. Names, results and what is
done already are those of `hra sweep` on one machine, and so is what a second call does:
what is left; `--only=NAME` submits no others. A last job of Slurm lists what became of
the runs (`--jobs=0`); behind JobSets one does that oneself. A JobSet is named by its run,
so that one that is there isn't submitted again. `--dry_run` prints exactly what would be
submitted. With `--launcher=workstation` it is `hra sweep` itself, kept running.
"""

import dataclasses
import hashlib
import os
import pathlib
import sys
from collections.abc import Sequence

from absl import app
from absl import flags as absl_flags

from hra.commands import configs
from hra.commands import sweep as command
from hra.errors import InputError
from hra.files import absolute
from hra.sweeps import plan, record
from launch import accelerators, flags, jobset, slurm, submitting, workstation
from launch.job import BAD_INPUT, Job

_LAUNCHER = absl_flags.DEFINE_enum(
  "launcher",
  "workstation",
  ["workstation", "slurm", "jobset"],
  "Where it runs.",
)
_DRY_RUN = absl_flags.DEFINE_bool(
  "dry_run", False, "Print what would run, or be submitted, and stop."
)
_AT_ONCE = absl_flags.DEFINE_integer(
  "at_once", 0, "Runs at a time in Slurm; 0 is any number.", lower_bound=0
)

_LISTS = "--jobs=0"
_EXISTS = "AlreadyExists"
"""What Kubernetes says of a name that is taken."""


def main(argv: Sequence[str]) -> None:
  arguments = tuple(argv[1:])
  try:
    absl_flags.FLAGS(configs.rewrite(["hra sweep", *arguments]))
    sys.exit(_launch(flags.job(("sweep", *arguments), processes=1)))
  except (InputError, absl_flags.Error) as error:
    print(f"launch.sweep: {error}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def _launch(job: Job) -> int:
  if _LAUNCHER.value == "workstation":
    if not _DRY_RUN.value:
      return workstation.launch(job)
    print(workstation.render(job), end="")
    return 0
  _check(job)
  names = absl_flags.FLAGS["only"].value or ()
  job = dataclasses.replace(job, arguments=_without_only(job.arguments))
  elements = list(_elements(job, plan.only(command.planned(), names)))
  if not elements:
    print(f"all is done: hra sweep {_LISTS} with the same flags lists it")
  elif _LAUNCHER.value == "slurm":
    _submit_arrays(job, elements)
  else:
    _submit_sets(elements)
  return 0


def _check(job: Job) -> None:
  """Refuses what the elements can't do as it is said.

  Raises:
    InputError: --jobs; a path that names another place in the elements' folder.
  """
  given = absl_flags.FLAGS
  if given["jobs"].present:
    raise InputError(
      "--jobs",
      expected=f"none with --launcher={_LAUNCHER.value}: a run is an element",
      got=str(given["jobs"].value),
      fix="--at_once limits the runs at a time in Slurm",
    )
  elsewhere = (
    job.folder and pathlib.Path(job.folder).absolute() != pathlib.Path.cwd()
  )
  images = _LAUNCHER.value == "jobset"  # may hold experiments of their own
  for name in ("workdir",) if images else ("workdir", "config"):
    path = given[name].value
    if elsewhere and path and "://" not in path and not os.path.isabs(path):
      raise InputError(
        f"--{name}",
        expected="an absolute path, as the runs are in --folder and this isn't",
        got=repr(path),
      )


def _without_only(arguments: Sequence[str]) -> tuple[str, ...]:
  """The command line of no run in particular."""
  kept, words = [], iter(arguments)
  for word in words:
    name, equals, _ = word.lstrip("-").partition("=")
    if not word.startswith("-") or name != "only":
      kept.append(word)
    elif not equals:
      next(words, None)
  return tuple(kept)


def _elements(job: Job, sweep: plan.Sweep) -> Sequence[Job]:
  """A job for each run that isn't done, named by its folder.

  Raises:
    InputError: they would be of several processes; a folder here is another run's.
  """
  devices = job.devices
  tpus = (
    isinstance(devices, accelerators.Tpus) and devices.hosts * devices.slices
  )
  hosts = max(job.hosts, tpus or 1)
  if hosts > 1:
    raise InputError(
      "--accelerator" if tpus else "--hosts",
      expected="one machine for each run of a sweep",
      got=str(hosts),
      fix="a run on several is a hra train of its own: python -m launch",
    )
  return [
    dataclasses.replace(
      job,
      name=f"{job.name}-{_digest(run)}",
      arguments=(*job.arguments, f"--only={run.name}"),
    )
    for run in sweep.runs
    if record.check(run) != "nothing"
  ]


def _digest(run: plan.Run) -> str:
  """The same at each call, and another one in other sweeps."""
  folder = os.fspath(absolute(run.folder))
  return hashlib.blake2b(folder.encode(), digest_size=4).hexdigest()


def _submit_arrays(job: Job, elements: Sequence[Job]) -> None:
  """The runs, each array behind the one before; and behind them, however they end, a
  job that lists them."""
  numbers: list[str] = []
  for start in range(0, len(elements), slurm.MOST_ELEMENTS):
    part = elements[start : start + slurm.MOST_ELEMENTS]
    part = [_after(each, numbers[-1:]) for each in part]
    array = slurm.render_array(part, name=job.name, at_once=_AT_ONCE.value)
    if _DRY_RUN.value:
      print(array.text)
      numbers.append("ARRAY")
    else:
      numbers.append(slurm.submit(array, secrets=job.secrets))
  lister = slurm.render(_lister(job, numbers[-1]))
  if _DRY_RUN.value:
    print(lister.text, end="")
    return
  print(
    f"{len(elements)} runs: squeue --job={','.join(numbers)}; job "
    f"{slurm.submit(lister)} lists them"
  )


def _after(job: Job, numbers: Sequence[str]) -> Job:
  """A job that waits until others have ended, in whatever way."""
  options = [f"--dependency=afterany:{number}" for number in numbers]
  return dataclasses.replace(
    job,
    slurm=dataclasses.replace(
      job.slurm, options=(*job.slurm.options, *options)
    ),
  )


def _lister(job: Job, array: str) -> Job:
  job = dataclasses.replace(
    job,
    name=f"{job.name}-list",
    arguments=(*job.arguments, _LISTS),
    accelerator="",
    memory_gib=0,
  )
  return _after(job, [array])


def _submit_sets(elements: Sequence[Job]) -> None:
  """A set for each run; one that is there already stays as it is."""
  sets = [jobset.render(each) for each in elements]
  if _DRY_RUN.value:
    print("---\n".join(each.text for each in sets), end="")
    return
  there = []
  for element, each in zip(elements, sets, strict=True):
    run = element.arguments[-1].removeprefix("--only=")
    try:
      print(f"{submitting.submit(each, 'Kubernetes')}: {run}")
    except InputError as error:
      if _EXISTS not in str(error):
        raise
      print(f"{element.name} is there already: {run}")
      there.append(element.name)
  if there:
    print(
      f"not submitted: {len(there)} of {len(sets)}. Those that run go on; to try "
      "ended ones again, delete them and call this again:\nkubectl delete jobset "
      f"--namespace={elements[0].kubernetes.namespace} {' '.join(there)}"
    )


if __name__ == "__main__":
  flags.define(without=("processes",))
  app.run(main)
