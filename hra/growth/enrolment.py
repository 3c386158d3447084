"""New tasks for a finished run, with everything shared frozen.

Enters: a finished run's folder, and recordings of tasks that it doesn't have.
Leaves: a run of its own in RUN/enrolled/NAME, which `hra evaluate` opens, and the
tasks' Submodels beside those of RUN, bound to the same shared parameters. Nothing
else of RUN is touched. Of a new task its row is fitted or, where the run has an
embedding space, its embedding alone (arXiv 2203.12559, section 3).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath

from hra import claim, export, jobs, members, run, scoring, submodels
from hra.errors import InputError
from hra.files import read_json, remove_folder, storage, write_json
from hra.growth import recordings, start, target
from hra.growth.options import Fit, Init, Options
from hra.growth.start import Start
from hra.run import Parts
from hra.train.state import TrainState

_OWNED = {"full": "a whole backbone", "none": "nothing"}
"""What tasks of families own that nobody can be added to."""


class Enrolled(NamedTuple):
  """What an enrolment made."""

  folder: epath.Path
  """A run of its own."""
  submodels: epath.Path
  fit: Fit
  starts: Mapping[str, Start]
  """Of each new task, what its row started from."""
  dev: Mapping[str, Any] | None
  """Figures as in results.json; None where nothing was held out."""
  verdicts: Mapping[str, submodels.Verdict]

  def to_json(self) -> dict[str, Any]:
    """For a file that programs read."""
    return {
      "enrolment": str(self.folder),
      "submodels": str(self.submodels),
      "fit": self.fit,
      "tasks": {
        task: {
          "start": begun._asdict(),
          "dev": self.dev["tasks"].get(task) if self.dev else None,
          "verdict": self.verdicts[task],
          "submodel": str(self.submodels / submodels.file_name(task)),
        }
        for task, begun in self.starts.items()
      },
    }


def enroll(
  workdir: epath.PathLike,
  source: str,
  options: Options,
  *,
  quiet: bool = False,
) -> Enrolled:
  """Adds the tasks of a corpus to the run in `workdir`.

  The same call goes on from where one was interrupted.

  Raises:
    InputError: the run is not finished, or its tasks own nothing; a task is there
      already; recordings or options can't be used; a dev part is too small.
    hra.errors.Interrupted: after a signal, when the state is saved.
  """
  workdir = epath.Path(workdir)
  _check_run(workdir)
  parent = run.reopen(workdir)
  fit, init = _fit(parent, options.fit), _init(options)
  corpus = recordings.read(source, task=options.task)
  folder = workdir / claim.ENROLLED / _label(corpus.tasks)
  _check_new(parent, corpus.tasks, folder=folder)
  config = recordings.configuration(
    parent,
    label=folder.name,
    fit=fit,
    options=options,
  )
  trained = run.trained_state(parent)
  _check_store(parent, trained)
  begun = claim.has_begun(folder)
  if begun:
    _check_begun(folder, fit=fit, init=init)
  else:
    _begin(folder, fit, corpus.tasks)
  try:
    config = recordings.prepared(parent, config, corpus, folder / "data")
    parts = run.assemble(config, folder)
    if not options.unguarded:
      recordings.check_guard(parts)
    initial, starts = start.initial(parent, trained, parts, init=init)
  except InputError as error:
    if not begun:
      remove_folder(folder)
    elif error.where == str(folder / "data"):
      raise InputError(
        source,
        expected=f"the recordings and options that {folder} began with",
        got="others",
        fix="give those, or hra forget first",
      ) from error
    raise
  if not begun:
    _note(folder, fit, starts)
  starts = _noted(folder)[1]
  if not quiet:
    print(run.describe(parts))
    for task, each in starts.items():
      print(f"{task}: {each.describe()}")
  last = jobs.train(parts, start=initial, quiet=quiet)
  store = jobs.finish(parts, last)
  return Enrolled(
    folder=folder,
    submodels=store,
    fit=fit,
    starts=starts,
    dev=_judged(folder),
    verdicts=scoring.verdicts(folder),
  )


def _judged(folder: epath.Path) -> dict[str, Any] | None:
  """The figures of the dev part, with verdicts."""
  path = folder / "results.json"
  if not path.exists():
    return None
  return read_json(path)


def _check_run(workdir: epath.Path) -> None:
  config = target.check(
    workdir,
    fix="adapt its backbone first, with config.data.grouping=task",
  )
  family, heads = config.adapter.family, config.adapter.heads
  if family in _OWNED or (family == "hra" and heads == "shared"):
    raise InputError(
      workdir,
      expected="a run whose tasks own a row each",
      got=f"one whose tasks own {_OWNED.get(family, 'nothing')} "
      f"(config.adapter.family={family!r}, heads={heads!r})",
      fix="it can't be added to: train with the new recordings in the data, or "
      "with another config.adapter",
    )
  target.check_finished(workdir)


def _fit(parent: Parts, fit: Fit) -> Fit:
  embeds = parent.config.space.kind == "embedding"
  if fit == "embedding" and not embeds:
    raise InputError(
      "--fit=embedding",
      expected="a run with an embedding space (config.space.kind)",
      got=f"{parent.workdir}, whose tasks own their rows",
      fix="give --fit=row",
    )
  if fit == "auto":
    return "embedding" if embeds else "row"
  return fit


def _init(options: Options) -> Init:
  """What rows start from; a start that is named needs no other word."""
  if options.init == "given" and not options.start:
    raise InputError(
      "--init=given",
      expected="a Submodel's file or a LoRA folder of PEFT",
      got="none",
      fix="name it by --start=PATH",
    )
  return "given" if options.start else options.init


def _label(names: Sequence[str]) -> str:
  """An enrolment's folder: the stem of the task's file, or how many and which."""
  if len(names) == 1:
    return submodels.file_name(names[0]).removesuffix(".safetensors")
  return f"{len(names)}-tasks-{members.task_hash(json.dumps(names))[:8]}"


def _check_new(
  parent: Parts, names: Sequence[str], *, folder: epath.Path
) -> None:
  """No new task may be one of the run, of an enrolment, or of the store."""
  known: dict[str, epath.Path] = dict.fromkeys(parent.tasks, parent.workdir)
  for other in claim.enrolments(parent.workdir):
    known |= dict.fromkeys(members.tasks_of(other), other)
  finished = jobs.is_finished(folder)
  store = export.folder_of(parent.workdir)
  held = export.held(parent.workdir)
  for name in names:
    where = known.get(name)
    if where == folder and not finished:
      continue  # which this call goes on with
    if where is None and name in held:
      where = store / submodels.file_name(name)
    if where is not None:
      raise InputError(
        f"task {name!r}",
        expected="a new task",
        got=f"one that is in {where}",
        fix="name it otherwise by --task, or first give hra forget "
        f"--workdir={parent.workdir} --task={name}",
      )


def _check_store(parent: Parts, trained: TrainState) -> None:
  """Whether the exported files belong to what was trained."""
  folder = export.folder_of(parent.workdir)
  exported = submodels.Store(folder)[parent.tasks[0]]
  shared = jax.device_get(trained.shared["adapter"])
  for what, expected, got in (
    (
      "the backbone",
      parent.backbone.fingerprint,
      exported.backbone_fingerprint,
    ),
    (
      "the shared parameters",
      submodels.shared_fingerprint(shared),
      exported.shared_fingerprint,
    ),
  ):
    if expected != got:
      raise InputError(
        folder,
        expected=f"Submodels for {what} of the run ({expected})",
        got=f"for others ({got})",
        fix="these files are another run's: bring back its own",
      )


def _begin(folder: epath.Path, fit: Fit, names: Sequence[str]) -> None:
  """An empty folder that says whose it is; what was refused or hardly started goes."""
  remove_folder(folder)
  with storage(folder, expected="a folder that can be made"):
    folder.mkdir(parents=True)
  members.name_tasks(folder, names)
  _note(folder, fit, {})


def _note(folder: epath.Path, fit: Fit, starts: Mapping[str, Start]) -> None:
  told = {task: each._asdict() for task, each in starts.items()}
  write_json(folder / claim.ENROLMENT, {"fit": fit, "starts": told})


def _noted(folder: epath.Path) -> tuple[str, dict[str, Start]]:
  """What is fitted, and what each task started from."""
  path = folder / claim.ENROLMENT
  told = read_json(path, keys=("fit", "starts"))
  return told["fit"], {
    task: Start(**each) for task, each in told["starts"].items()
  }


def _check_begun(folder: epath.Path, *, fit: Fit, init: Init) -> None:
  """An enrolment goes on as it began."""
  fitted, starts = _noted(folder)
  began = next((each.init for each in starts.values()), init)
  for option, before, now in (("--fit", fitted, fit), ("--init", began, init)):
    if before != now:
      raise InputError(
        f"{option}={now}",
        expected=f"{before!r}, with which {folder} began",
        got=repr(now),
        fix=f"give {option}={before}, or hra forget first",
      )
