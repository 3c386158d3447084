"""Removes a task, and all that is its alone, from a run.

    hra forget --workdir=runs/mine --task=anna
    hra forget --workdir=runs/mine --task=anna --retrain=runs/without_anna

Its row leaves every checkpoint, its Submodel, figures, transcripts and clips their
files; of a task that hra enroll added by itself, the recordings too (of several that it
added together, they stay in the enrolment's folder, which is named). The others stay as
they are. A hash of the name remains, as the data still have the task. When it is
interrupted, the same command goes on.
"""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags
from etils import epath

from hra.commands import configs, process
from hra.files import absolute, write_aside

if TYPE_CHECKING:
  from hra.growth.forgetting import Forgotten

_WORKDIR = flags.DEFINE_string("workdir", "", "The run's folder.")
_TASK = flags.DEFINE_string("task", "", "Whom to forget.")
_RETRAIN = flags.DEFINE_string(
  "retrain",
  "",
  "Also train the run anew without the task, in this new folder: then nothing "
  "shared has heard it.",
)
_JSON = flags.DEFINE_string("json", "", "Also write the outcome to this file.")


def main(argv: Sequence[str]) -> None:
  """Forgets, says what remains, and trains anew where that is asked for.

  Raises:
    InputError: a run or a task that can't be forgotten.
    Interrupted: while training anew, after a signal, when the state is saved.
  """
  del argv
  process.set_up()
  from hra import claim
  from hra.growth.forgetting import forget
  from hra.growth.retraining import check_vacant

  workdir = configs.required(_WORKDIR, "runs/mine")
  task = configs.required(_TASK, "anna")
  if _RETRAIN.value:
    check_vacant(absolute(_RETRAIN.value), absolute(workdir), task)
  with claim.alone(epath.Path(workdir)):
    outcome = forget(workdir, task, retrains=bool(_RETRAIN.value))
  sys.stdout.write(_told(outcome, workdir))
  if _JSON.value:
    text = json.dumps(outcome.to_json(), indent=2) + "\n"
    write_aside(_JSON.value, text.encode())
  if _RETRAIN.value:
    _retrain(workdir)


def _told(outcome: "Forgotten", workdir: str) -> str:
  before = " already" if outcome.before else ""
  lines = [f"task {outcome.task!r} is forgotten{before}: {outcome.folder}"]
  if outcome.shared:
    lines.append(
      "the shared parameters were trained with it and stay as they are; "
      "--retrain=NEWDIR trains a run without it"
    )
  if outcome.data:
    lines.append(f"its recordings stay where they are: {outcome.data}")
  if outcome.begun_from:
    lines.append(
      "rows of enrolled tasks began from its row, or from a mean that it is in: "
      f"{', '.join(outcome.begun_from)}; enrolling them anew makes others"
    )
  if outcome.named:
    lines.append(
      f"the sweep's own files still name it: {', '.join(outcome.named)}"
    )
  if outcome.again:
    lines.append(f"results are gone: hra evaluate --workdir={outcome.folder}")
  return "\n".join([*lines, ""])


def _retrain(workdir: str) -> None:
  from hra import claim, jobs, members, run
  from hra.growth import retraining

  out = absolute(_RETRAIN.value)
  with claim.alone(out, begins=True):
    parts = run.assemble(retraining.configuration(workdir, out), out)
    print(run.describe(parts))
    finished = jobs.is_finished(out)
    trained = jobs.train(parts)
    if finished:
      print(f"{out} is finished: there is nothing left to train")
    else:
      print(f"wrote {jobs.finish(parts, trained)}")
  for added in claim.enrolments(epath.Path(workdir)):
    print(
      f"not in it, as they joined later: {', '.join(members.tasks_of(added))}"
    )
  print(f"next: hra evaluate --workdir={out}")


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("forget")
