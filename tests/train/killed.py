"""One training in a process of its own, that may be killed: see test_kills.py.

    python killed.py CONFIG.json WORKDIR [save:N | data:N]

Prints "training" when training starts; logs every batch that is loaded to
batches.jsonl; leaves the final state in final.npz. With `save:N` it kills itself
in its N-th save, when all is written and only the name is missing; with `data:N`
in the N-th reading of a recording.
"""

import hashlib
import itertools
import json
import os
import signal
import sys
import threading
from pathlib import Path

import jax
import numpy as np

from hra import config, config_tree, jobs, run
from hra.data import loader
from hra.sharding import named_leaves


def main() -> None:
  described, workdir = Path(sys.argv[1]), Path(sys.argv[2])
  parts = run.assemble(
    config_tree.from_dict(config.Config, json.loads(described.read_text())),
    workdir,
  )
  log_batches(workdir / "batches.jsonl")
  if len(sys.argv) > 3:
    where, count = sys.argv[3].split(":")
    {"save": kill_in_save, "data": kill_in_data}[where](int(count), workdir)
  print("training", flush=True)
  trained = jobs.train(parts, quiet=True)
  leaves = {path: np.asarray(leaf) for path, leaf in named_leaves(trained)}
  np.savez(workdir / "final.npz", **leaves)


def log_batches(path: Path) -> None:
  """Every batch's tasks, own steps and bytes, by its position."""
  load = loader.Loader.__getitem__
  lock = threading.Lock()

  def logged(self, position):
    batch = load(self, position)
    digest = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves(batch):
      digest.update(np.ascontiguousarray(leaf).tobytes())
    line = {
      "position": int(position),
      "task_K": batch.task_K.tolist(),
      "own_step_K": batch.own_step_K.tolist(),
      "digest": digest.hexdigest(),
    }
    with lock, path.open("a") as file:
      file.write(json.dumps(line) + "\n")
    return batch

  loader.Loader.__getitem__ = logged


def kill_in_save(count: int, workdir: Path) -> None:
  calls = itertools.count(1)

  def hook(event, arguments):
    if event != "os.rename":
      return
    source = Path(os.fspath(arguments[0]))
    if source.parent.name != "checkpoints" or "tmp" not in source.name:
      return
    if next(calls) == count:
      die(workdir, "save")

  sys.addaudithook(hook)


def kill_in_data(count: int, workdir: Path) -> None:
  read = loader.Examples.read
  calls = itertools.count(1)

  def fatal(self, index):
    if next(calls) == count:
      die(workdir, "data")
    return read(self, index)

  loader.Examples.read = fatal


def die(workdir: Path, where: str) -> None:
  (workdir / f"killed-in-{where}").touch()
  os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
  main()
