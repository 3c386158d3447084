"""One job in a process of its own: see test_independence.py.

    python alone.py CONFIG.json WORKDIR

Leaves in final.npz the state, what each task ends with, and of every joint step
the tasks, their own steps and losses. 64-bit numbers by JAX_ENABLE_X64.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np

from hra import config, config_tree, jobs, run
from hra.sharding import named_leaves
from hra.train import loop
from hra.train.state import TrainState, chosen_rows


def main() -> None:
  described, workdir = Path(sys.argv[1]), Path(sys.argv[2])
  told = json.loads(described.read_text())
  parts = run.assemble(config_tree.from_dict(config.Config, told), workdir)
  losses = []
  add = loop.Window.add

  def added(self, metrics, batch):
    add(self, metrics, batch)
    losses.append((batch.task_K, batch.own_step_K, metrics.loss_K))

  loop.Window.add = added
  trained = jobs.train(parts, start=_away_from_zero(parts), quiet=True)
  leaves = {path: np.asarray(leaf) for path, leaf in named_leaves(trained)}
  for path, leaf in named_leaves(chosen_rows(trained)):
    leaves[f"chosen/{path}"] = np.asarray(leaf)
  for name, column in zip(
    ("task", "own_step", "loss"), zip(*losses, strict=True), strict=True
  ):
    leaves[f"log/{name}"] = np.stack(jax.device_get(column))
  np.savez(workdir / "final.npz", **leaves, tasks=np.asarray(parts.tasks))


def _away_from_zero(parts: run.Parts) -> TrainState:
  """A start whose shared parameters are as if trained: they are fixed here.

  A generator of zeros would hand no gradient on to embeddings.
  """
  rng = np.random.default_rng(0)
  start = run.initial_state(parts)
  shared = jax.tree.map(
    lambda leaf: (
      leaf + 0.1 * rng.standard_normal(leaf.shape).astype(leaf.dtype)
    ),
    start.shared,
  )
  return start._replace(shared=shared)


if __name__ == "__main__":
  main()
