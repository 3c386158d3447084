"""A task leaves a run, with all that is its alone.

Enters: a finished run's folder and a task's name. Leaves: the run without the
task's row, moments and best row in any checkpoint, its Submodel, its figures,
transcripts and audio; or, where an enrolment added that task alone, without that
enrolment. tasks.json remembers a hash of the name: the data still have the task.

First the smaller checkpoints are written aside; then a journal says what is being
removed, and the rest only ever repeats. Stopped before the journal, the run is as
it was; after it, commands refuse the run until the same call has finished.
"""

import dataclasses
import difflib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from etils import epath

from hra import claim, config_tree, export, given, members, submodels
from hra.config import EvalConfig
from hra.errors import InputError
from hra.evaluate import metrics
from hra.evaluate.report import write_report
from hra.evaluate.runs import MADE_BY, read_transcripts
from hra.files import read_json, remove_folder, storage, write_aside, write_json
from hra.growth import target
from hra.growth.checkpoints import without_task

_ASIDE = "checkpoints.forgetting"
_CLOSE = 0.75
"""Likeness of a name that may have been meant (difflib)."""
_BY_TASK = ("verdicts.json", "balance.json")
"""Files {"tasks": {NAME: ...}}."""
_OF_SWEEPS = ("asked.json", "log.txt")
"""Files of a sweep in a run's folder."""


class Forgotten(NamedTuple):
  """What became of a task."""

  task: str
  folder: epath.Path
  """The run, or the enrolment, that had it."""
  before: bool
  """Whether it was forgotten already."""
  shared: bool
  """Whether shared parameters that remain were trained with it."""
  data: str
  """Where its recordings still are; empty where they were removed."""
  again: bool
  """Whether results are gone that `hra evaluate` makes again."""
  named: tuple[str, ...]
  """Files of a sweep that still name it."""
  begun_from: tuple[str, ...]
  """Enrolled tasks whose rows began from its row, or from a mean with it."""

  def to_json(self) -> dict[str, Any]:
    return {**self._asdict(), "folder": str(self.folder)}


class _Journal(NamedTuple):
  """What is being removed."""

  root: epath.Path
  task: str
  enrolled: str
  """The enrolment's folder; empty where the run itself has the task."""
  alone: bool
  """Whether that enrolment has no other task."""

  @property
  def home(self) -> epath.Path:
    if not self.enrolled:
      return self.root
    return self.root / claim.ENROLLED / self.enrolled

  def write(self) -> None:
    told = {"task": self.task, "enrolled": self.enrolled, "alone": self.alone}
    write_json(self.root / claim.JOURNAL, told)


def forget(
  workdir: epath.PathLike, task: str, *, retrains: bool = False
) -> Forgotten:
  """Removes `task` from the run in `workdir`, or goes on with that.

  Args:
    retrains: whether the run is to be trained anew without it.

  Raises:
    InputError: the folder is no run's, or an enrolment's; another task is half
      forgotten; an unknown task, the last one, or a run that is not finished;
      one to retrain without a task that it was not trained with.
  """
  root = epath.Path(workdir)
  journal = _opened(root, task)
  if journal is None:
    target.check(root, fix="train another without it: config.data.without")
    journal, before = _found(root, task)
    if retrains and journal.enrolled:
      raise InputError(
        "--retrain",
        expected="a task that the run was trained with",
        got=f"{task!r}, which hra enroll added",
        fix="leave it out: nothing else was trained with that task",
      )
    if before:
      return _outcome(journal, before=True)
    if not journal.alone:
      _set_checkpoints_aside(journal)
    journal.write()
  outcome = _outcome(journal, before=False)
  for step in _STEPS:
    step(journal)
  with storage(root, expected="a journal that can be removed"):
    (root / claim.JOURNAL).unlink()
  results = (journal.home / "results.json").exists()
  return outcome._replace(
    again=not journal.alone and not results, named=_named(journal)
  )


def _opened(root: epath.Path, task: str) -> _Journal | None:
  """What an earlier call left unfinished."""
  path = root / claim.JOURNAL
  if not path.exists():
    return None
  told = read_json(path, keys=_Journal._fields[1:])
  if told["task"] != task:
    raise InputError(
      f"--task={task}",
      expected=f"{told['task']!r}, which is half forgotten",
      got=repr(task),
      fix=f"first finish that: --task={told['task']}",
    )
  return _Journal(root, **told)


def _found(root: epath.Path, task: str) -> tuple[_Journal, bool]:
  """Who has the task, or has forgotten it before, and whether it has."""
  names = members.tasks_of(root)
  known = set(names)
  if task in known:
    _check_finished(root, task)
    if len(names) == 1:
      raise InputError(
        f"--task={task}",
        expected="one of several tasks",
        got=f"the last one of {root}",
        fix="remove the folder: nothing in it is anyone else's",
      )
    return _Journal(root, task, "", False), False
  stem = submodels.file_name(task).removesuffix(".safetensors")
  for folder in claim.enrolments(root):
    added = members.tasks_of(folder)
    known |= set(added)
    if added == [task] or (not added and folder.name == stem):
      return _Journal(root, task, folder.name, True), False
    if task in added:
      target.check_finished(
        folder, instead=f", or remove {folder}: nobody else stands on it"
      )
      return _Journal(root, task, folder.name, False), False
  for folder in (root, *claim.enrolments(root)):
    if members.task_hash(task) in members.forgotten(folder):
      enrolled = "" if folder == root else folder.name
      return _Journal(root, task, enrolled, False), True
  # Nothing remembers who was enrolled and forgotten; nobody else is meant then.
  close = difflib.get_close_matches(task, known, n=1, cutoff=_CLOSE)
  raise InputError(
    f"--task={task}",
    expected=f"one of the {len(known):,} tasks of {root}",
    got="an unknown one, or one that was enrolled and is forgotten already",
    fix=f"did you mean {close[0]!r}?" if close else "",
  )


def _check_finished(folder: epath.Path, task: str) -> None:
  without = f"train another with --config.data.without={task}"
  target.check_finished(folder, instead=f", or {without}")


def _outcome(journal: _Journal, *, before: bool) -> Forgotten:
  """What there is to say of a task, while its configuration is there."""
  shared, data = False, ""
  if not journal.alone:
    described = claim.read_config(journal.home)
    config = claim.config_of(described, journal.home / "config.json")
    files = export.folder_of(journal.root).glob("shared-*")
    owns = config.space.kind != "table" or any(files)
    shared = not journal.enrolled and config.train.shared_part > 0 and owns
    data = config.data.path
  return Forgotten(
    task=journal.task,
    folder=journal.home,
    before=before,
    shared=shared,
    data=data,
    again=False,
    named=_named(journal),
    begun_from=_begun_from(journal),
  )


def _begun_from(journal: _Journal) -> tuple[str, ...]:
  """Who was enrolled from the task's row; means are of the run's own tasks."""
  notes = [
    folder / claim.ENROLMENT for folder in claim.enrolments(journal.root)
  ]
  starts = [
    each
    for note in notes
    if note.exists()
    for each in read_json(note, keys=("starts",))["starts"].items()
  ]
  return tuple(
    task
    for task, each in starts
    if task != journal.task
    and (
      each["task"] == journal.task
      or (each["init"] == "mean" and not journal.enrolled)
    )
  )


def _named(journal: _Journal) -> tuple[str, ...]:
  """Files that `hra sweep` wrote about the run, and that name the task."""
  root = journal.root
  files = (*(root / name for name in _OF_SWEEPS), root.parent / "sweep.json")
  quoted = json.dumps(journal.task)[1:-1]
  return tuple(
    str(file)
    for file in files
    if file.exists()
    and any(name in file.read_text() for name in {journal.task, quoted})
  )


def _set_checkpoints_aside(journal: _Journal) -> None:
  without_task(journal.home, journal.task, journal.home / _ASIDE)


def _remove_enrolment(journal: _Journal) -> None:
  if journal.alone:
    remove_folder(journal.home)


def _swap_checkpoints(journal: _Journal) -> None:
  """What stands aside is whole: it is the only copy from here on."""
  aside = journal.home / _ASIDE
  if journal.alone or not aside.exists():
    return
  checkpoints = journal.home / "checkpoints"
  remove_folder(checkpoints)
  with storage(checkpoints, expected="checkpoints that can be replaced"):
    aside.rename(checkpoints)


def _remove_halves(journal: _Journal) -> None:
  """What was half written when a process was killed: no other will end it."""
  folders = {journal.root, journal.home, export.folder_of(journal.root)}
  for folder in folders:
    if not folder.exists():
      continue
    with storage(folder, expected="files that can be removed"):
      for file in folder.glob(".*.*"):
        if file.is_file() and file.suffix[1:].isdigit():
          file.unlink(missing_ok=True)


def _remove_submodel(journal: _Journal) -> None:
  """Every version of it."""
  folder = export.folder_of(journal.root)
  if folder.exists():
    submodels.Store(folder).delete(journal.task)


def _remove_entries(journal: _Journal) -> None:
  """From the files that say something of each task."""
  if journal.alone:
    return
  home, task = journal.home, journal.task
  for name in (*_BY_TASK, *given.KEPT):
    path = home / name
    if not path.exists():
      continue
    told = read_json(path, keys=("tasks",) if name in _BY_TASK else ())
    entries = told["tasks"] if name in _BY_TASK else told
    if entries.pop(task, None) is not None:
      write_json(path, told)


def _remove_starts(journal: _Journal) -> None:
  """From what enrolments say of the task that theirs started from."""
  for folder in claim.enrolments(journal.root):
    path = folder / claim.ENROLMENT
    if not path.exists():
      continue
    told = read_json(path, keys=("starts",))
    told["starts"] = {
      task: {**each, "task": None} if each["task"] == journal.task else each
      for task, each in told["starts"].items()
      if task != journal.task
    }
    write_json(path, told)


def _remove_texts(journal: _Journal) -> None:
  """Transcripts, recordings kept for the report, and results without them."""
  home = journal.home
  transcripts, results = home / "transcripts.jsonl", home / "results.json"
  left = [
    each
    for each in (read_transcripts(transcripts) if transcripts.exists() else ())
    if each.task != journal.task
  ]
  heard = {each.audio for each in left}
  with storage(home, expected="recordings that can be removed"):
    for clip in (home / "audio").glob("*.wav"):
      if f"audio/{clip.name}" not in heard:
        clip.unlink()
  scored = _scored(results, left, journal.task)
  if scored is None:
    with storage(home, expected="files that can be removed"):
      results.unlink(missing_ok=True)
      transcripts.unlink(missing_ok=True)
    return
  write_json(results, scored)
  lines = [json.dumps(dataclasses.asdict(each)) + "\n" for each in left]
  write_aside(transcripts, "".join(lines).encode())


def _scored(
  results: epath.Path, left: list[metrics.Transcript], task: str
) -> dict[str, Any] | None:
  """results.json of the other tasks; None where it has to be made anew.

  Their own figures stay; those over all are counted from their transcripts.
  """
  told = (
    read_json(results, keys=("tasks",)) if results.exists() else {"tasks": {}}
  )
  tasks = {name: each for name, each in told["tasks"].items() if name != task}
  if not left or {each.task for each in left} != set(tasks):
    return None
  scored = metrics.score(
    left,
    config_tree.from_dict(EvalConfig, told["scoring"], path=str(results)),
    split=told["split"],
    parameters=told["parameters"],
    adapter=told["adapter"],
    train_utterances={},
    verdicts=lambda figures: {
      name: each["verdict"] for name, each in tasks.items()
    },
  )
  return {**told, "overall": scored["overall"], "tasks": tasks}


def _remove_name(journal: _Journal) -> None:
  if not journal.alone:
    claim.forget_task(journal.home, journal.task)


def _write_report(journal: _Journal) -> None:
  """A page that stands in the run, without the task."""
  page = journal.home / "report.html"
  if journal.alone or not page.exists():
    return
  if all((journal.home / name).exists() for name in MADE_BY):
    write_report([journal.home], page)
  else:
    with storage(page, expected="a file that can be removed"):
      page.unlink()


_STEPS: tuple[Callable[[_Journal], None], ...] = (
  _remove_enrolment,
  _remove_halves,
  _swap_checkpoints,
  _remove_submodel,
  _remove_entries,
  _remove_starts,
  _remove_texts,
  _remove_name,
  _write_report,
)
"""In this order, and each of them again where one was interrupted."""
