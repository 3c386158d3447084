"""A small job of several processes that stands for `hra train`.

All processes count steps together until a SIGTERM to any of them, which saves and
ends with 75; the next start goes on from there, to a few steps more. The folder that
is named receives `saved.json`.
"""

import json
import signal
import sys
import time
from pathlib import Path

MORE = 5


def main(folder: Path) -> None:
  from hra import joining, processes

  joining.join()
  import numpy as np
  from jax.experimental import multihost_utils

  saved = folder / "saved.json"
  state = json.loads(saved.read_text()) if saved.exists() else {}
  last = state["step"] + MORE if state else None
  state = state or {"step": 0, "total": 0, "starts": 0}
  processes.wait_for_all("read")
  state["starts"] += 1
  asked = processes.Agreed("interruption")
  signal.signal(signal.SIGTERM, lambda *_: asked.ask("SIGTERM"))
  code = 0
  while state["step"] != last:
    own = np.array(processes.index() + state["step"])
    state["total"] += int(multihost_utils.process_allgather(own).sum())
    state["step"] += 1
    (folder / f"begun{processes.index()}").touch()
    if asked.reached():
      code = 75
      break
    time.sleep(0.02)
  processes.first_does(lambda: saved.write_text(json.dumps(state)))
  print("saved", flush=True)
  sys.exit(code)


if __name__ == "__main__":
  main(Path(sys.argv[1]))
