"""Submodels in a folder or bucket: listed, published, rolled back, deleted, packed.

    hra store --store=store
    hra store --store=store --action=versions --task=anna
    hra store --store=s3://bucket/store --action=publish --submodel=runs/mine/submodels
    hra store --store=store --action=rollback --task=anna --version=2
    hra store --store=store --action=delete --task=anna
    hra store --store=store --action=pack

A line for each Submodel: task, version, family, verdict, bytes and fingerprint, with
tabs between them. Whoever is stopped while a store changes leaves it whole. hra export
--store publishes a run's.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from absl import flags
from etils import epath

from hra import submodels
from hra.commands import configs
from hra.config_tree import nearest
from hra.errors import InputError
from hra.files import write_aside
from hra.submodels import Entry, Store, Submodel

_STORE = flags.DEFINE_string("store", "", "The store's folder or URL.")
_ACTION = flags.DEFINE_enum(
  "action",
  "list",
  ["list", "versions", "publish", "rollback", "delete", "pack"],
  "list: what is current; versions: of --task; publish: --submodel; rollback: --task "
  "to --version; delete: all versions of --task; pack: what is current into one file "
  "for each kind of Submodels, for stores of many thousands.",
)
_TASK = flags.DEFINE_string(
  "task", "", "Whose; of a store that is published, empty is everybody's."
)
_VERSION = flags.DEFINE_integer(
  "version", None, "The version that is to be current again.", lower_bound=1
)
_SUBMODEL = flags.DEFINE_string(
  "submodel", "", "A Submodel's file, or a folder of them, to publish."
)
_JSON = flags.DEFINE_string(
  "json", "", "Also write what is listed or was published to this file."
)


def main(argv: Sequence[str]) -> None:
  """Does what the flags name.

  Raises:
    InputError: flags; a store, task or version that isn't there; a file that is
      damaged, after all others are listed.
  """
  del argv
  folder = configs.required(_STORE, "store")
  if _ACTION.value == "publish":
    entries, refused = _publish(folder)
  else:
    entries, refused = _ACTIONS[_ACTION.value](Store(folder))
  for each in entries:
    print(_line(each))
  if _JSON.value:
    told = json.dumps([_told(each) for each in entries], indent=2) + "\n"
    write_aside(_JSON.value, told.encode())
  for error in refused[1:]:
    print(f"hra store: {error}", file=sys.stderr)
  if refused:
    raise refused[0]


def _list(store: Store) -> "_Outcome":
  found = store.listing()
  return found.entries, found.refused


def _versions(store: Store) -> "_Outcome":
  return _known(store, store.versions), []


def _publish(folder: str) -> "_Outcome":
  path = configs.required(_SUBMODEL, "runs/mine/submodels")
  given = _given(epath.Path(path))
  return submodels.create(folder).publish_all(given), []


def _rollback(store: Store) -> "_Outcome":
  version = _VERSION.value
  if version is None:
    raise InputError("--version", expected="a number", got="none")
  kept = [each.version for each in _known(store, store.versions)]
  if version not in kept:
    raise InputError(
      f"--version={version}",
      expected=f"one of {', '.join(map(str, kept))}",
      got="none that is kept",
    )
  return [store.rollback(_TASK.value, version)], []


def _delete(store: Store) -> "_Outcome":
  task = configs.required(_TASK, "anna")
  if not store.delete(task):
    raise _unknown(store)
  print(f"deleted {task!r} from {store.folder}")
  return [], []


def _pack(store: Store) -> "_Outcome":
  found = store.pack()
  print(f"packed {found.packed:,} Submodels of {store.folder}")
  return [], found.refused


_Outcome = tuple[list[Entry], list[InputError]]
_ACTIONS: dict[str, Callable[[Store], _Outcome]] = {
  "list": _list,
  "versions": _versions,
  "rollback": _rollback,
  "delete": _delete,
  "pack": _pack,
}


def _given(path: epath.Path) -> Iterable[Submodel]:
  """A file's Submodel, or those of a folder."""
  if not path.is_dir():
    return [submodels.load(path)]
  theirs = Store(path)
  if _TASK.value:
    return [_known(theirs, theirs.__getitem__)]
  return (theirs[task] for task in theirs)


def _known(store: Store, ask: Callable[[str], Any]) -> Any:
  """What a store says of --task, if it has it."""
  try:
    return ask(configs.required(_TASK, "anna"))
  except KeyError:
    raise _unknown(store) from None


def _unknown(store: Store) -> InputError:
  tasks = list(store)
  close = nearest(_TASK.value, tasks) if tasks else ""
  return InputError(
    f"--task={_TASK.value}",
    expected=f"one of the {len(tasks):,} tasks of {store.folder}",
    got="an unknown one",
    fix=f"did you mean {close!r}?" if close else "",
  )


def _line(entry: Entry) -> str:
  return (
    f"{entry.task}\t{entry.version}\t{entry.adapter.family}\t{entry.verdict}\t"
    f"{entry.bytes}\t{entry.fingerprint}"
  )


def _told(entry: Entry) -> dict[str, Any]:
  return {
    "task": entry.task,
    "version": entry.version,
    "fingerprint": entry.fingerprint,
    "family": entry.adapter.family,
    "verdict": entry.verdict,
    "bytes": entry.bytes,
    "backbone": entry.backbone_fingerprint,
    "shared": entry.shared_fingerprint,
  }


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("store")
