"""Pretrains a backbone, adapts a frozen one to every task of the data, or trains a
language model.

    hra train --config=experiments/adapt.py --workdir=runs/mine \\
      --config.data.path=data/mine

The run's folder receives config.json, tasks.json, metrics.jsonl, TensorBoard
events, checkpoints and, at the end, Submodels (or what was trained). The same command
goes on from the newest checkpoint; Ctrl-C and SIGTERM save first. SIGUSR1 captures
the next steps as --profile does (docs/observing.md).

As several processes, that a scheduler or launch/ starts with one and the same command:
they share the run's folder, and the first one writes and prints. All end together.
"""

import math
import signal
from collections.abc import Sequence

from absl import flags
from etils import epath

from hra.commands import configs, process
from hra.config import Config
from hra.errors import InputError

_CONFIG = configs.define()
_WORKDIR = flags.DEFINE_string("workdir", "", "The run's folder.")
_DETERMINISTIC = flags.DEFINE_bool(
  "deterministic",
  False,
  "On GPUs: the same bits each time, also after a restart; slower, as XLA may choose "
  "among fewer kernels.",
)
_PROFILE = flags.DEFINE_string(
  "profile", "", "FROM:TO, steps to capture into WORKDIR/profile."
)


def main(argv: Sequence[str]) -> None:
  del argv
  signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until a loop listens
  process.set_up(several=True, deterministic=_DETERMINISTIC.value)
  from hra import claim, jobs, run
  from hra.train import profiler

  profile = profiler.read_range(_PROFILE.value)
  workdir = configs.required(_WORKDIR, "runs/mine")
  config = configs.from_flags()
  if profile is not None and config.train.mode == "language_model":
    raise InputError(
      "--profile",
      expected="none with config.train.mode 'language_model'",
      got=repr(_PROFILE.value),
    )
  with claim.alone(epath.Path(workdir), begins=True):
    if config.train.mode == "language_model":
      _train_language_model(config, workdir)
      return
    parts = run.assemble(config, workdir)
    print(run.describe(parts))
    finished = jobs.is_finished(parts.workdir)
    trained = jobs.train(parts, profile=profile)
    if finished:
      print(f"{workdir} is finished: there is nothing left to train")
      return
    print(f"wrote {jobs.finish(parts, trained)}")
  print(f"next: hra evaluate --workdir={workdir}")


def _train_language_model(config: Config, workdir: str) -> None:
  from hra import language_jobs

  parts = language_jobs.assemble(config, workdir)
  print(language_jobs.describe(parts))
  if language_jobs.is_finished(parts):
    print(f"{workdir} is finished: there is nothing left to train")
    return
  print(f"wrote {language_jobs.train(parts)}")
  loss = language_jobs.dev_loss(workdir)
  if loss is not None:
    print(f"dev perplexity {math.exp(loss):.2f} for each label")


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("train")
