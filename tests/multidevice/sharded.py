"""A table divided over eight simulated devices, along its tasks.

    python sharded.py OUT

Trains three steps, and judges two tasks, with the table (rows, moments, best) divided
and replicated; saves both, and what the other restores from a checkpoint of each;
prints the sizes of the collectives of what is compiled.
"""

import functools
import json
import sys

import hlo
import jax
import numpy as np
import tiny

from hra.adapters import table
from hra.checkpoint import Checkpoints
from hra.config import AdapterConfig, MeshConfig
from hra.sharding import make_mesh, replicated
from hra.train import judge, state
from hra.train.placement import (
  batch_placement,
  jit_step,
  laid_out,
  make_state,
  place_batch,
)
from hra.train.step import make_step

ROWS = 4093
"""What eight devices don't divide."""
PLACES = 8
ADAPTER = AdapterConfig(width=8, heads="both")
NAMES = tuple(f"task{place}" for place in range(ROWS))


def main(out: str) -> None:
  mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
  optimizers = tiny.optimizers()
  fresh = functools.partial(
    state.init,
    tiny.space(ADAPTER),
    optimizers,
    NAMES,
    key=jax.random.key(2),
    keep_best=True,
  )
  backbone = jax.device_put(tiny.backbone(), replicated(mesh))
  placement = batch_placement(mesh, axis=0)
  step = make_step(
    tiny.model(ADAPTER),
    tiny.space(ADAPTER),
    optimizers,
    policy=None,
    placement=placement,
  )
  told, shapes, trained = {}, {}, {}
  for name, asked in (("replicated", "never"), ("divided", "always")):
    shapes[name] = laid_out(jax.eval_shape(fresh), mesh, shard_rows=asked)
    begun = make_state(fresh, mesh=mesh, shard_rows=asked)
    job = jit_step(step, tiny.terms(), begun, mesh)
    trained[name], told[name] = _trained(begun, job, backbone, placement)
    told[f"{name}_stays"] = _placed(trained[name]) == _placed(shapes[name])
    told[f"{name}_compilations"] = job.func._cache_size()
    rows = (trained[name].rows, trained[name].progress.best)
    told[f"{name}_rows"] = sorted(
      {len(leaf.addressable_shards[0].data) for leaf in jax.tree.leaves(rows)}
    )
  for name, other in (("replicated", "divided"), ("divided", "replicated")):
    checkpoints = Checkpoints(f"{out}/{name}")
    checkpoints.save(3, trained[name])
    checkpoints.wait()
    restored = checkpoints.restore(shapes[other])
    told[f"{name}_restored"] = _placed(restored) == _placed(shapes[other])
    _save(f"{out}/{name}.npz", trained[name])
    _save(f"{out}/{name}-restored.npz", restored)
  owned = jax.eval_shape(tiny.space(ADAPTER).init_task, jax.random.key(0))
  told["rows"] = 4 * table.count(owned) * PLACES
  print(json.dumps(told))


def _trained(begun, job, backbone, placement):
  """(state after three steps, two tasks judged after the second, bytes of all
  collectives)."""
  trained, sizes = begun, []
  for own_step, chosen in enumerate((NAMES[::600], NAMES[5::600], NAMES[:6])):
    batch = tiny.batch(
      chosen[:6], names=NAMES, places=PLACES, own_step=own_step
    )
    if own_step == 2:
      batch.wave_KBS[1, 0, 500] = np.nan
      sizes += _collectives(
        judge._note.lower(trained, *[np.ones(4, np.int32)] * 5, judging=True)
      )
      trained = _judge(trained)._noted(
        trained,
        [5, 605],
        judge.Figures(np.array([3, 4]), np.array([9, 9])),
        judging=True,
      )
    batch = place_batch(batch, placement)
    if not sizes:
      sizes += _collectives(
        job.func.lower(trained, backbone, batch, **job.keywords)
      )
    trained, _ = job(trained, backbone, batch)
  return trained, sizes


def _judge(trained):
  plan = judge.Plan(
    places=lambda position: [],
    own_steps_N=np.full(ROWS, tiny.STEPS),
    patience_N=np.zeros(ROWS, np.int64),
    every=0,
    frozen_from=0,
    max_bad_steps=1,
  )
  return judge.Judge(trained, plan, None, position=0)


def _placed(tree):
  return [str(leaf.sharding) for leaf in jax.tree.leaves(tree)]


def _save(path, trained):
  """Whatever a table has beyond its tasks is left out."""
  rows = (trained.rows, trained.rows_optimizer, trained.progress)
  kept = [leaf[:ROWS] for leaf in jax.tree.leaves(rows)]
  kept += jax.tree.leaves((trained.skipped_N, trained.shared))
  np.savez(path, *map(np.asarray, kept))


def _collectives(lowered) -> list[int]:
  """Bytes of each array that devices exchange."""
  program = hlo.parse(lowered.compile().as_text())
  return [
    array.bytes
    for instruction in hlo.collectives(program)
    for array in instruction.arrays
  ]


if __name__ == "__main__":
  main(sys.argv[1])
