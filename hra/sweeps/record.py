"""What a sweep's folder says of its runs: `sweep.json`, and `asked.json` in each.

`asked.json` holds the configuration that was asked for; what is done under it
stays done, whatever the sweep grows to. `sweep.json` is the list that people and
reports read. Runs that a cluster does by themselves have no list to write to at once:
each tells in a `status.json` of its own how it went, which the next list takes in.
"""

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from etils import epath

from hra import claim, config_tree
from hra.config import EvalConfig
from hra.errors import InputError
from hra.files import storage, write_json
from hra.sweeps import plan

NAME = "sweep.json"
ASKED = "asked.json"
STATUS = "status.json"

_ENDED = {"running": "interrupted"}
_OPEN = ("failed", "interrupted")

Needs = Literal["all", "evaluation", "nothing"]


def check(run: plan.Run) -> Needs:
  """What is left to do of a run.

  Raises:
    InputError: its folder is another run's, naming the field that differs.
  """
  asked = _read(run.folder / ASKED)
  if asked is None:
    _check_vacant(run)
    return "all"
  before = _flat_of(asked["config"], path=f"{run.folder / ASKED}: config")
  changed = [
    field
    for field, value in plan.flat(run.config).items()
    if before[field] != value and not _starts(field, claim.FREE)
  ]
  for field in changed:
    if not _starts(field, claim.RESCORED) and claim.has_begun(run.folder):
      raise InputError(
        f"{run.folder}: {field}",
        expected=f"{before[field]!r}, as the run has begun with",
        got=repr(plan.flat(run.config)[field]),
        fix="give another --workdir, or remove that folder",
      )
  if changed:
    return "all"
  if not asked["trained"]:  # what is scored by then is training's own doing
    return "all"
  return "evaluation" if results(run) is None else "nothing"


def ask(run: plan.Run, *, needs: Needs) -> None:
  """Notes in a run's folder what is asked for, before it starts."""
  with storage(run.folder, expected="a folder that can be made"):
    run.folder.mkdir(parents=True, exist_ok=True)
    if needs == "all":  # scores of before would pass for what is asked now
      (run.folder / "results.json").unlink(missing_ok=True)
  _write_asked(run, trained=needs == "evaluation")


def note_trained(run: plan.Run) -> None:
  """Notes that only the evaluation is left."""
  _write_asked(run, trained=True)


def results(run: plan.Run) -> dict[str, Any] | None:
  """results.json of a run, where it is of the split and scoring asked for.

  Raises:
    InputError: it is damaged.
  """
  path = run.folder / "results.json"
  found = _read(path)
  if found is None:
    return None
  try:
    split, told = found["split"], found["scoring"]
  except (KeyError, TypeError) as error:
    raise _damaged(path, expected="results", got=repr(error)) from error
  # A field that is younger than the results has its default.
  scoring = config_tree.from_dict(EvalConfig, told, path=f"{path}: scoring")
  same = (split, scoring) == (run.split, run.config.evaluate)
  return found if same else None


def headline(run: plan.Run) -> dict[str, Any] | None:
  """What sweep.json says of a run's results, where they are those asked for.

  Raises:
    InputError: they are damaged.
  """
  found = results(run)
  if found is None:
    return None
  keys = ("wer", "wer_low", "wer_high", "backbone_wer", "words", "utterances")
  try:
    return {
      "split": found["split"],
      "overall": {key: found["overall"][key] for key in keys},
      "parameters": found["parameters"],
    }
  except (KeyError, TypeError) as error:
    path = run.folder / "results.json"
    raise _damaged(path, expected="results", got=repr(error)) from error


class Record:
  """sweep.json: one entry a run, those of earlier calls included.

  An entry has `name`, `label`, `overrides`, `values` (all fields that vary in the
  folder), `status` (waiting, running, done, failed, interrupted), `seconds` of
  processes, `error`, and the headline `results`. A run whose folder was removed is
  forgotten.
  """

  def __init__(
    self, sweep: plan.Sweep, *, apart: bool = False, anew: bool = True
  ):
    """Opens the list.

    Args:
      apart: whether others list other runs meanwhile: each has its own file.
      anew: whether what isn't done is tried again, whatever became of it.
    """
    self._sweep = sweep
    self._path = sweep.workdir / NAME
    self._apart = apart
    self._started: dict[str, float] = {}
    before = {each["name"]: each for each in entries(sweep.workdir)}
    planned = {run.name: run for run in sweep.runs}
    with storage(sweep.workdir, expected="a folder that can be read"):
      self._told = _told(
        [run.folder / STATUS for run in sweep.runs]
        if apart
        else sorted(sweep.workdir.glob(f"*/{STATUS}"))
      )
    before.update(self._told)
    self.entries = {
      name: {
        "name": name,
        "label": run.label,
        "overrides": dict(run.overrides),
        "status": "waiting",
        "seconds": before.get(name, {}).get("seconds", 0.0),
        "error": None,
        "results": None,
      }
      for name, run in planned.items()
    }
    # Nothing else is at work in the folder: what still runs was killed.
    for entry in before.values():
      entry["status"] = _ENDED.get(entry["status"], entry["status"])
      if not anew and entry["name"] in planned and entry["status"] in _OPEN:
        told = {key: entry[key] for key in ("status", "error")}
        self.entries[entry["name"]].update(told)
    old = {
      name: entry
      for name, entry in before.items()
      if not apart
      and name not in planned
      and (sweep.workdir / name / ASKED).exists()
    }
    self.entries = {**old, **self.entries}
    self._set_values(planned)

  def start(self, run: plan.Run) -> None:
    self._started[run.name] = time.monotonic()
    self._set(run, status="running")

  def finish(self, run: plan.Run, *, error: str = "") -> None:
    """Notes that a run is done, or what ended it."""
    self._set(
      run,
      status="failed" if error else "done",
      error=error or None,
      results=None if error else headline(run),
    )

  def interrupt(self, run: plan.Run) -> None:
    self._set(run, status="interrupted")

  def elapsed(self, run: plan.Run) -> float:
    """Seconds since the run was started by this process."""
    return time.monotonic() - self._started[run.name]

  def write(self) -> None:
    """Writes sweep.json; it has by then what runs told by themselves."""
    if self._apart:
      return
    write_json(
      self._path,
      {
        "config": self._sweep.experiment,
        "settings": list(self._sweep.settings),
        "axes": {name: list(each) for name, each in self._sweep.axes.items()},
        "runs": list(self.entries.values()),
      },
    )
    for name in self._told:
      (self._sweep.workdir / name / STATUS).unlink(missing_ok=True)
    self._told = {}

  def _set(self, run: plan.Run, **changes: Any) -> None:
    entry = self.entries[run.name]
    if entry["status"] == "running":
      changes["seconds"] = round(entry["seconds"] + self.elapsed(run), 1)
    entry.update(changes)
    if self._apart:
      write_json(run.folder / STATUS, entry)
    self.write()

  def _set_values(self, planned: Mapping[str, plan.Run]) -> None:
    """Of fields that some run sets, or that earlier calls had otherwise."""
    values = {name: plan.flat(run.config) for name, run in planned.items()}
    for name in self.entries.keys() - values.keys():
      path = self._sweep.workdir / name / ASKED
      values[name] = _flat_of(_read(path)["config"], path=f"{path}: config")
    one = next(iter(values.values()), {})
    varied = {
      field
      for each in values.values()
      for field, value in each.items()
      if value != one[field] and not _starts(field, claim.FREE)
    }
    varied.update(*(each["overrides"] for each in self.entries.values()))
    for name, entry in self.entries.items():
      entry["values"] = {field: values[name][field] for field in sorted(varied)}


def entries(workdir: epath.Path) -> list[dict[str, Any]]:
  """The runs that a folder's sweep.json lists; none where there is no such file."""
  found = _read(workdir / NAME)
  return [] if found is None else found["runs"]


def _told(paths: Iterable[epath.Path]) -> dict[str, dict[str, Any]]:
  """The entries that runs wrote by themselves since the list was written."""
  found = [entry for entry in map(_read, paths) if entry is not None]
  return {entry["name"]: entry for entry in found}


def _check_vacant(run: plan.Run) -> None:
  if (run.folder / "config.json").exists():
    raise InputError(
      run.folder,
      expected="a run of this sweep, or no such folder",
      got="a run that something else began",
      fix="give another --workdir, or move that folder away",
    )


def _write_asked(run: plan.Run, *, trained: bool) -> None:
  described = {"config": config_tree.to_dict(run.config), "trained": trained}
  write_json(run.folder / ASKED, described)


def _flat_of(config: Mapping[str, Any], *, path: str) -> dict[str, Any]:
  """Fields of a stored configuration; one newer than that has its default."""
  return plan.flat(claim.stored_config(config, path=path))


def _read(path: epath.Path) -> Any:
  """What a file of JSON holds, or None where there is none."""
  if not path.exists():
    return None
  try:
    with storage(path, expected="a file that can be read"):
      return json.loads(path.read_text())
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise _damaged(path, expected="JSON", got=str(error)) from error


def _damaged(path: epath.Path, *, expected: str, got: str) -> InputError:
  return InputError(
    path,
    expected=expected,
    got=got,
    fix="remove that file: it is made again",
  )


def _starts(field: str, beginnings: tuple[str, ...]) -> bool:
  return f"config.{field}".startswith(beginnings)
