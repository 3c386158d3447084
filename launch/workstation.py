"""Keeps one training job running on this machine until it is done.

    python launch/workstation.py --retries=5 -- \
      --config=experiments/adapt.py --workdir=runs/mine --config.data.path=data/mine

What follows `--` are the flags of `hra train`. A job that was interrupted (exit code
75: it saved first) ends here too; one that was killed or crashed is started again and
goes on from its last checkpoint. Bad input (exit code 2) is not tried again.
`--dry_run` prints the exact command.
"""

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from absl import app, flags

_RETRIES = flags.DEFINE_integer(
  "retries", 3, "How often a job that died is started again.", lower_bound=0
)
_PAUSE = flags.DEFINE_float(
  "pause", 5.0, "Seconds before a new start; doubled each time."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the command and stop.")

BAD_INPUT = 2
INTERRUPTED = 75


def main(argv: Sequence[str]) -> None:
  command = [sys.executable, "-m", "hra.commands.train", *argv[1:]]
  if _DRY_RUN.value:
    print(shlex.join(command))
    return
  sys.exit(keep_running(command, retries=_RETRIES.value, pause=_PAUSE.value))


def keep_running(command: Sequence[str], *, retries: int, pause: float) -> int:
  """Runs a command until it ends well, is interrupted or has died too often.

  SIGTERM and SIGINT are handed on, so that the job saves.

  Returns:
    The exit code to end with.
  """
  for attempt in range(retries + 1):
    code = _run(command)
    if code in (0, BAD_INPUT, INTERRUPTED):
      return code
    if attempt < retries:
      wait = pause * 2**attempt
      print(
        f"the job died ({_describe(code)}); start {attempt + 2} of "
        f"{retries + 1} in {wait:g} s",
        file=sys.stderr,
        flush=True,
      )
      time.sleep(wait)
  return code if code > 0 else 128 - code


def _run(command: Sequence[str]) -> int:
  # A group of its own: Ctrl-C reaches the job once, from here.
  job = subprocess.Popen(command, start_new_session=True)
  watched = (signal.SIGTERM, signal.SIGINT)
  before = {
    number: signal.signal(number, lambda number, _: job.send_signal(number))
    for number in watched
  }
  try:
    return job.wait()
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _describe(code: int) -> str:
  return f"exit code {code}" if code > 0 else signal.Signals(-code).name


if __name__ == "__main__":
  app.run(main)
