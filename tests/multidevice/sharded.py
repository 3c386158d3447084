"""A table divided over eight simulated devices, along its tasks.

    python sharded.py OUT

Trains three steps with the table (rows, moments, best) divided and replicated;
saves both; prints the largest collectives of the compiled step.
"""

import json
import sys

import hlo
import jax
import numpy as np
import tiny
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hra.config import AdapterConfig, MeshConfig
from hra.sharding import BATCH, make_mesh, replicated, shardings
from hra.train import state
from hra.train.placement import batch_placement, place_batch
from hra.train.step import make_step

ROWS = 4096
PLACES = 8
ADAPTER = AdapterConfig(width=8, heads="both")


def main(out: str) -> None:
  mesh = make_mesh(MeshConfig(data=8, fsdp=1, tensor=1))
  optimizers = tiny.optimizers()
  names = tuple(f"task{place}" for place in range(ROWS))
  fresh = jax.device_get(
    state.init(
      tiny.space(ADAPTER),
      optimizers,
      names,
      key=jax.random.key(2),
      keep_best=True,
    )
  )
  everywhere = shardings({"": fresh}, mesh)[""]
  backbone = jax.device_put(tiny.backbone(), replicated(mesh))
  placement = batch_placement(mesh, axis=0)
  step = make_step(
    tiny.model(ADAPTER),
    tiny.space(ADAPTER),
    optimizers,
    policy=None,
    placement=placement,
  )
  terms = jax.device_put(tiny.terms(), replicated(mesh))
  told = {}
  for name, placed in (
    ("replicated", everywhere),
    ("divided", _divided(everywhere, mesh)),
  ):
    compiled = None
    trained = jax.device_put(fresh, placed)
    for own_step, chosen in enumerate((names[::600], names[5::600], names[:6])):
      batch = tiny.batch(
        chosen[:6], names=names, places=PLACES, own_step=own_step
      )
      if own_step == 2:
        batch.wave_KBS[1, 0, 500] = np.nan
      batch = place_batch(batch, placement)
      if compiled is None:
        compiled = (
          jax.jit(
            step, donate_argnums=0, out_shardings=(placed, replicated(mesh))
          )
          .lower(trained, backbone, batch, terms)
          .compile()
        )
        told[name] = _collectives(hlo.parse(compiled.as_text()))
      trained, _ = compiled(trained, backbone, batch, terms)
    leaves = jax.tree.leaves((trained.rows, trained.rows_optimizer))
    told[f"{name}_shards"] = len(leaves[0].addressable_shards[0].data)
    kept = (*leaves, trained.skipped_N, *jax.tree.leaves(trained.shared))
    np.savez(f"{out}/{name}.npz", *map(np.asarray, kept))
  rows = jax.tree.leaves(fresh.rows)
  told["rows"] = sum(leaf.nbytes for leaf in rows) * PLACES // ROWS
  print(json.dumps(told))


def _divided(placed: state.TrainState, mesh) -> state.TrainState:
  by_task = NamedSharding(mesh, P(BATCH))

  def divide(tree):
    return jax.tree.map(lambda _: by_task, tree)

  return placed._replace(
    rows=divide(placed.rows),
    rows_optimizer=divide(placed.rows_optimizer),
    progress=placed.progress._replace(best=divide(placed.progress.best)),
  )


def _collectives(program: hlo.Program) -> list[int]:
  """Bytes of each array that devices exchange."""
  return [
    array.bytes
    for instruction in hlo.collectives(program)
    for array in instruction.arrays
  ]


if __name__ == "__main__":
  main(sys.argv[1])
