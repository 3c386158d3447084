"""One of several processes on loopback: what it sees and agrees on, as JSON.

python worker.py agree|fail|late|waits|asks
"""

import json
import os
import sys
import time

from hra import joining, processes
from hra.commands import evaluate
from hra.commands import main as cli
from hra.errors import Interrupted


def agree() -> None:
  joining.join()
  first = processes.is_first()
  done: list[str] = []
  found = processes.first_does(lambda: done.append("written") or len(done))
  import jax

  told = {
    "index": processes.index(),
    "count": processes.count(),
    "first": first,
    "done": done,
    "found": found,
    "any": [
      processes.any_of(not first),
      processes.any_of(False),
      processes.any_of(True),
    ],
    "says": processes.first_says({"from": processes.index()}),
    "devices": [len(jax.devices()), len(jax.local_devices())],
    "points": _points(),
  }
  processes.wait_for_all("end")
  print(json.dumps(told))


def _points() -> list[tuple[int, str]]:
  """Where all stop, of points that take each process another time."""
  stop, save = processes.Agreed("stop"), processes.Agreed("save")
  asks = {
    0: lambda: processes.is_first() and save.ask("save 1"),
    1: lambda: processes.is_first() or stop.ask("stop"),
    2: lambda: processes.is_first() and save.ask("save 2"),
  }
  reached: list[tuple[int, str]] = []
  for point in range(2000):
    ask = asks.pop(len(reached), None)
    if ask is not None:
      ask()
    time.sleep(0.002 * (1 + processes.index()))
    for each in (stop, save):
      why = each.reached()
      if why is not None:
        reached.append((point, why))
    if len(reached) == 3:
      break
  return reached


def fail() -> None:
  joining.join()
  if processes.index() == int(sys.argv[2]):
    processes.fail("no bread", code=2)
    os._exit(2)
  processes.wait_for_all("never")


def late() -> None:
  """A verb whose first process alone goes on, for some seconds."""
  seconds = float(sys.argv.pop())

  def main(argv: list[str]) -> None:
    del argv
    joining.join()
    if processes.is_first():
      time.sleep(seconds)
      print("reported")

  evaluate.main = main
  sys.argv.pop()
  cli.run_verb("evaluate")


def waits() -> None:
  """A verb whose second process waits for what the first does."""

  def main(argv: list[str]) -> None:
    del argv
    joining.join()
    print("joined", flush=True)
    processes.first_does(lambda: time.sleep(300))

  evaluate.main = main
  sys.argv.pop()
  cli.run_verb("evaluate")


def asks() -> None:
  """A verb that is stopped just after the first process has asked for something."""

  def main(argv: list[str]) -> None:
    del argv
    if os.environ["JAX_PROCESS_ID"] != "0":
      processes._LOOK_SECONDS = 300.0  # it hears nothing before its end
    joining.join()
    save = processes.Agreed("save")
    if processes.is_first():
      save.ask("it is time")
      time.sleep(2)  # it hears itself, and waits for the second
    raise Interrupted("stopped")

  evaluate.main = main
  sys.argv.pop()
  cli.run_verb("evaluate")


if __name__ == "__main__":
  does = {
    "agree": agree,
    "fail": fail,
    "late": late,
    "waits": waits,
    "asks": asks,
  }
  does[sys.argv[1]]()
