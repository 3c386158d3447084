"""Adds a task to a finished run from its recordings, all else frozen.

    hra enroll --workdir=runs/mine --source=zoe.jsonl
    hra enroll --workdir=runs/mine --source=zoe.jsonl --task=zoe --init=nearest

--source is what `hra prepare` takes; several new tasks train in one job. Part of
the recordings is held out: it says when to stop, and whether the Submodel is
better than the backbone; where it isn't, the backbone goes on answering.

The new Submodels stand beside those of the run: hra transcribe
--workdir=runs/mine --task=zoe. How they were made is a run of its own in
runs/mine/enrolled. The same command goes on where it was interrupted.
"""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from absl import flags
from etils import epath

from hra import config_tree
from hra.commands import configs, process
from hra.files import write_aside
from hra.growth.options import Fit, Init, Options

if TYPE_CHECKING:
  from hra.growth.enrolment import Enrolled

_WORKDIR = flags.DEFINE_string("workdir", "", "The finished run's folder.")
_SOURCE = flags.DEFINE_string(
  "source", "", "Recordings of the new tasks: see hra prepare --help."
)
_TASK = flags.DEFINE_string(
  "task", "", "The task of all recordings, where they name none or another."
)
_INIT = flags.DEFINE_enum(
  "init",
  Options.init,
  get_args(Init),
  "What a row starts from. mean: the mean of the run's tasks; nearest: the task "
  "whose row has the lowest loss on the new training recordings; fresh: as the "
  "run's tasks started; given: what --start names.",
)
_START = flags.DEFINE_string(
  "start",
  "",
  "A Submodel's file or a LoRA folder of PEFT that rows start from, in place of "
  "--init; or a folder that has one for each new task, by its name.",
)
_FIT = flags.DEFINE_enum(
  "fit",
  Options.fit,
  get_args(Fit),
  "What is fitted. auto: the embedding where the run has an embedding space, the "
  "row where it has none.",
)
_STEPS = flags.DEFINE_integer(
  "steps", 0, "Training steps; 0 is as many as the run's, 100 at most."
)
_UNGUARDED = flags.DEFINE_bool(
  "unguarded",
  False,
  "Go on where too little is held out to judge the result by.",
)
_SKIP_BAD = flags.DEFINE_bool(
  "skip_bad",
  False,
  "Leave out recordings that can't be used instead of stopping.",
)
_JSON = flags.DEFINE_string("json", "", "Also write the outcome to this file.")
configs.define_settings()


def main(argv: Sequence[str]) -> None:
  """Enrolls, and prints how well that went.

  Raises:
    InputError: a run, recordings or options that can't be used.
    Interrupted: after a signal, when the state is saved.
  """
  del argv
  process.set_up()
  from hra import claim
  from hra.growth.enrolment import enroll

  workdir = configs.required(_WORKDIR, "runs/mine")
  source = configs.required(_SOURCE, "recordings.jsonl")
  with claim.alone(epath.Path(workdir)):
    enrolled = enroll(workdir, source, _options())
  sys.stdout.write(_told(enrolled, workdir))
  if _JSON.value:
    text = json.dumps(enrolled.to_json(), indent=2) + "\n"
    write_aside(_JSON.value, text.encode())


def _options() -> Options:
  values = {
    "task": _TASK.value,
    "init": _INIT.value,
    "start": _START.value,
    "fit": _FIT.value,
    "steps": _STEPS.value,
    "unguarded": _UNGUARDED.value,
    "skip_bad": _SKIP_BAD.value,
    "settings": tuple(configs.settings()),
  }
  return config_tree.from_dict(Options, values, path="flags")


def _told(enrolled: "Enrolled", workdir: str) -> str:
  from hra.evaluate.table import table

  lines = []
  if enrolled.dev:
    lines += ["on what was held out (dev):", table(enrolled.dev)]
  for task, verdict in enrolled.verdicts.items():
    if verdict == "not better":
      lines.append(
        f"{task}: no better than the backbone, which will answer in its place; "
        "more recordings may help"
      )
    elif verdict == "unjudged":
      lines.append(
        f"{task}: not judged beside the backbone; its Submodel will answer"
      )
  task = min(enrolled.verdicts)
  return "\n".join(
    [
      *lines,
      f"enrolled {len(enrolled.verdicts)} task(s); {enrolled.submodels}",
      f"next: hra transcribe --workdir={workdir} --task={task} FILE.wav",
      "",
    ]
  )


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("enroll")
