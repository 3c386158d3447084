"""Pretrains a backbone, or adapts a frozen one to every task of the data.

    hra train --config=experiments/adapt.py --workdir=runs/mine \\
      --config.data.path=data/mine

The run's folder receives config.json, tasks.json, metrics.jsonl, TensorBoard
events, checkpoints and, at the end, Submodels (or the backbone). The same command
goes on from the newest checkpoint; Ctrl-C and SIGTERM save first.
"""

from collections.abc import Sequence

from absl import flags
from etils import epath

from hra.commands import configs, process

_CONFIG = configs.define()
_WORKDIR = flags.DEFINE_string("workdir", "", "The run's folder.")


def main(argv: Sequence[str]) -> None:
  del argv
  process.set_up()
  from hra import claim, jobs, run

  workdir = configs.required(_WORKDIR, "runs/mine")
  config = configs.from_flags()
  with claim.alone(epath.Path(workdir), begins=True):
    parts = run.assemble(config, workdir)
    print(run.describe(parts))
    finished = jobs.is_finished(parts.workdir)
    trained = jobs.train(parts)
    if finished:
      print(f"{workdir} is finished: there is nothing left to train")
      return
    print(f"wrote {jobs.finish(parts, trained)}")
  print(f"next: hra evaluate --workdir={workdir}")


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("train")
