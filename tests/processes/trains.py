"""`hra VERB` as one of several processes, in which something happens at a step.

    python trains.py VERB FLAGS...

$HAPPENS is PROCESS:STEP:WHAT: a signal's number that the process sends itself,
`refuse` for a recording that can't be read, `crash` for a bug. $PAUSE is how many
seconds a step takes at least.
"""

import os
import sys
import time

from hra import processes
from hra.commands import main as cli
from hra.errors import InputError
from hra.train import loop


def main() -> None:
  process, step, what = os.environ.get("HAPPENS", "0:-1:none").split(":")
  pause = float(os.environ.get("PAUSE", "0"))
  add, steps = loop.Window.add, [0]

  def happens(self, metrics, batch):
    add(self, metrics, batch)
    steps[0] += 1
    time.sleep(pause)
    if processes.index() != int(process) or steps[0] != int(step):
      return
    if what == "refuse":
      raise InputError("utterance 'anna/1'", expected="sound", got="silence")
    if what == "crash":
      raise ZeroDivisionError("by nobody")
    os.kill(os.getpid(), int(what))

  loop.Window.add = happens
  cli.run_verb(sys.argv.pop(1))


if __name__ == "__main__":
  main()
