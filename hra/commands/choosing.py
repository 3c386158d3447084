"""Flags that name a backbone and a Submodel, of a run or by their paths."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags
from etils import epath

from hra.commands import configs
from hra.errors import InputError

if TYPE_CHECKING:
  from hra.evaluate.recognizer import Recognizer
  from hra.submodels import Store, Submodel

WORKDIR = flags.DEFINE_string(
  "workdir", "", "A trained run's folder: its backbone and its Submodels."
)
TASK = flags.DEFINE_string(
  "task",
  "",
  "Whose Submodel of the run to use; with --submodel, whose a LoRA folder is "
  "called.",
)
BACKBONE = flags.DEFINE_string(
  "backbone", "", "A backbone's folder, or tiny; with --workdir, the run's own."
)
SUBMODEL = flags.DEFINE_string(
  "submodel", "", "A Submodel's file, or a LoRA folder that PEFT saved."
)


def load(
  *, store: str = "", **asked: Any
) -> tuple["Recognizer", "Submodel | None"]:
  """What the flags name; no Submodel where they name none.

  Args:
    store: where the task's Submodel is; empty is in the run's folder.
    asked: fields of `hra.backbone.prompted.Asked` that are to be other ones than a
      run's, or a backbone's own.

  Raises:
    InputError: nothing is there by these names, or what can't be used together.
  """
  from hra import export, run, submodels
  from hra.backbone.prompted import Asked
  from hra.evaluate.recognizer import load_backbone

  workdir = epath.Path(WORKDIR.value) if WORKDIR.value else None
  if store:
    _check_only(store)
  elif workdir is None and TASK.value and not SUBMODEL.value:
    configs.required(WORKDIR, "runs/mine")
  default = (
    run.backbone_of(workdir) if workdir and not BACKBONE.value else "tiny"
  )
  of_run = run.asked_of(workdir) if workdir else Asked()
  recognizer = load_backbone(
    BACKBONE.value or default, asked=of_run._replace(**asked)
  )
  if SUBMODEL.value:
    return recognizer, recognizer.submodel(SUBMODEL.value, task=TASK.value)
  if store:
    return recognizer, submodel_of(submodels.Store(store), TASK.value)
  if workdir is None or not TASK.value:
    return recognizer, None
  return recognizer, submodel_of(
    submodels.Store(export.folder_of(workdir)), TASK.value
  )


def submodel_of(store: "Store", task: str) -> "Submodel":
  """The Submodel of a task that --task names.

  Raises:
    InputError: the store has none, or a damaged one.
  """
  try:
    return store[task]
  except KeyError:
    raise unknown(task, list(store)) from None


def unknown(task: str, tasks: Sequence[str]) -> InputError:
  """What --task is told where it names none of these."""
  return InputError(
    f"--task={task}",
    expected=f"one of {len(tasks)} tasks ({', '.join(tasks[:8])}...)",
    got="an unknown one",
  )


def _check_only(store: str) -> None:
  """Whether a store's Submodel is the only one that is named."""
  configs.required(TASK, "anna")
  if SUBMODEL.value:
    raise InputError(
      f"--submodel={SUBMODEL.value}",
      expected=f"nothing beside --store={store}",
      got="another Submodel",
    )
