"""Submodels in another place or form: a store, or a LoRA folder that PEFT loads.

    hra export --workdir=runs/mine --store=store
    hra export --workdir=runs/mine --task=anna,bert --store=s3://bucket/store
    hra export --workdir=runs/mine --task=anna --out=peft/anna
    hra export --backbone=backbones/parakeet --submodel=peft/anna --store=store

A store gets all Submodels of a run, those of tasks that were enrolled too, or those
that are named; what it has already keeps its version. PEFT loads LoRA alone, of
backbones that `hra convert` made; what it loads hears as the Submodel does. What came
from PEFT goes back as it was, byte for byte.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from absl import flags
from etils import epath

from hra.commands import choosing, process
from hra.errors import InputError

if TYPE_CHECKING:
  from hra.evaluate.recognizer import Recognizer
  from hra.submodels import Submodel

flags.adopt_module_key_flags(choosing)
_STORE = flags.DEFINE_string(
  "store",
  "",
  "Publish to the store in this folder or URL; of --workdir, --task names several "
  "with commas between them, and none is all.",
)
_OUT = flags.DEFINE_string(
  "out", "", "A new folder, for a LoRA that PEFT loads."
)


def main(argv: Sequence[str]) -> None:
  """Writes what the flags name.

  Raises:
    InputError: flags, a Submodel that can't be read, or one that has no such form.
  """
  del argv
  if bool(_STORE.value) == bool(_OUT.value):
    raise InputError(
      "hra export",
      expected="--store=STORE or --out=FOLDER",
      got="both" if _OUT.value else "neither",
    )
  process.set_up()
  if _OUT.value:
    _write_folder(epath.Path(_OUT.value))
    return
  from hra import submodels

  given = _of_run() if _is_of_run() else [_one()[1]]
  for entry in submodels.create(_STORE.value).publish_all(given):
    print(f"published {entry.task!r}, version {entry.version}")


def _write_folder(out: epath.Path) -> None:
  from hra.peft import folder

  recognizer, submodel = _one()
  print(f"wrote {folder.write(out, submodel, recognizer.stored)}")


def _is_of_run() -> bool:
  return bool(choosing.WORKDIR.value) and not choosing.SUBMODEL.value


def _one() -> tuple["Recognizer", "Submodel"]:
  recognizer, submodel = choosing.load()
  if submodel is None:
    raise InputError(
      "--task",
      expected="whose Submodel of --workdir it is, or --submodel=PATH",
      got="nothing",
    )
  return recognizer, submodel


def _of_run() -> Iterator["Submodel"]:
  """Those of --workdir that --task names; of an enrolment its own alone."""
  from hra import claim, export, members, submodels

  workdir = epath.Path(choosing.WORKDIR.value)
  claim.read(workdir)
  store = submodels.Store(export.folder_of(workdir))
  is_enrolment = claim.parent_of(workdir) is not None
  own = members.tasks_of(workdir) if is_enrolment else store
  asked = choosing.TASK.value
  names = list(own)
  if asked:
    names = [asked] if asked in own else asked.split(",")
  for name in names:
    if name not in own:
      raise choosing.unknown(name, list(own))
  return (choosing.submodel_of(store, name) for name in names)


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("export")
