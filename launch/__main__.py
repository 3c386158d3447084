"""Runs one `hra` command on this machine, TPU VMs, Slurm or Kubernetes.

    python -m launch --processes=2 -- train --config=experiments/adapt.py \
      --workdir=runs/mine --config.data.path=data/mine
    python -m launch --launcher=slurm --hosts=4 --accelerator=gpu:8 --dry_run -- train ...
    python -m launch --launcher=jobset --accelerator=v5e:16x16 --image=... -- train ...
    python -m launch --launcher=tpu_vm --tpu=mine --zone=us-central2-b -- train ...

What follows `--` is what follows `hra`. `--dry_run` prints exactly what would run, or
what the scheduler would be given. docs/launch.md says more.
"""

import sys
from collections.abc import Sequence

from absl import app
from absl import flags as absl_flags

from hra.errors import InputError
from launch import flags
from launch.job import BAD_INPUT, Submission
from launch.launchers import LAUNCHERS

_LAUNCHER = absl_flags.DEFINE_enum(
  "launcher", "workstation", list(LAUNCHERS), "Where it runs."
)
_DRY_RUN = absl_flags.DEFINE_bool(
  "dry_run", False, "Print what would run, or be submitted, and stop."
)


def main(argv: Sequence[str]) -> None:
  try:
    job = flags.job(tuple(argv[1:]))
    launcher = LAUNCHERS[_LAUNCHER.value]
    if not _DRY_RUN.value:
      sys.exit(launcher.launch(job))
    rendered = launcher.render(job)
  except InputError as error:
    print(f"launch: {error}", file=sys.stderr)
    sys.exit(BAD_INPUT)
  if isinstance(rendered, Submission):
    rendered = rendered.text
  sys.stdout.write(rendered)


if __name__ == "__main__":
  flags.define()
  app.run(main)
