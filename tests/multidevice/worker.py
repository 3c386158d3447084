"""Trains 20 steps on a mesh of simulated devices; prints losses, saves rows.

    python worker.py DTYPE OUT BACKBONE CONTROLLER DATA FSDP TENSOR [CHECKPOINTS]

BACKBONE is a folder; each process reads of it what its devices hold. With a folder of
checkpoints it stops after half of the steps and saves, or does the other half. Runs in
processes of their own: the number of devices is fixed when JAX starts.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
import tiny

from hra import joining, processes
from hra.adapters import families, spaces, table
from hra.backbone import store
from hra.backbone.tensors import TensorFile
from hra.checkpoint import Checkpoints
from hra.config import AdapterConfig, BackboneConfig, MeshConfig, SpaceConfig
from hra.model import Model
from hra.sharding import make_mesh
from hra.train import state
from hra.train.placement import (
  batch_placement,
  jit_step,
  make_state,
  own_places,
  place_batch,
)
from hra.train.step import make_step

STEPS = 20
PLACES = 4
ADAPTERS = {
  "tiny": AdapterConfig(width=128, heads="both"),
  "small": AdapterConfig(width=8, heads="both"),
}
"""The quickstart's, for the bundled backbone; one for the tests' own."""


def main(
  dtype: str,
  out: str,
  folder: str,
  controller: str,
  axes: list[int],
  kept: str | None,
) -> None:
  joining.join()
  jax.config.update("jax_enable_x64", dtype == "float64")
  mesh = make_mesh(MeshConfig(*axes, shard_rows="always"))
  read = _counted()
  stored = store.load(
    folder,
    computed=BackboneConfig(dtype=dtype, param_dtype=dtype),
    mesh=mesh,
  )
  config = dataclasses.replace(
    ADAPTERS.get(folder, ADAPTERS["small"]), controller=controller
  )
  mels = stored.frontend.width
  adapter = families.build(config, stored.config, mels=mels)
  model = Model(adapter=adapter, frontend=stored.frontend)
  space = spaces.build(SpaceConfig(), adapter=adapter, family=config)
  optimizers = tiny.optimizers()
  trained = make_state(
    lambda: state.init(space, optimizers, tiny.NAMES, key=jax.random.key(2)),
    mesh=mesh,
    shard_rows="always",
  )
  placement = batch_placement(mesh, axis=0)
  step = jit_step(
    make_step(model, space, optimizers, policy=None, placement=placement),
    tiny.terms(steps=STEPS),
    trained,
    mesh,
  )
  checkpoints = kept and Checkpoints(Path(kept))
  begin, end = 0, STEPS
  if checkpoints:
    done = processes.first_says(checkpoints.latest)
    begin, end = (done, STEPS) if done else (0, STEPS // 2)
    if done:
      trained = checkpoints.restore(trained)
  losses = []
  for own_step in range(begin, end):
    batch = tiny.batch(
      tiny.NAMES[:PLACES], own_step=own_step, dtype=np.dtype(dtype).type
    )
    own = jax.tree.map(lambda leaf: leaf[own_places(mesh, PLACES)], batch)
    trained, metrics = step(trained, stored.module, place_batch(own, placement))
    losses.append(processes.fetch(metrics.loss_K).tolist())
  if checkpoints:
    if not begin:
      checkpoints.save(end, trained)
      checkpoints.wait()
    checkpoints.close()
  owned = processes.fetch((trained.rows, trained.shared["adapter"]))
  held = sum(_held(leaf) for leaf in jax.tree.leaves(stored.module))
  print(
    json.dumps(
      {
        "losses": losses,
        "compilations": step.func._cache_size(),
        "fingerprint": stored.fingerprint,
        "numbers": table.count(stored.module),
        "held": held,
        "largest": max(read),
        "row_shards": len(
          {str(s.index) for s in trained.skipped_N.addressable_shards}
        ),
      }
    )
  )
  if processes.is_first():
    leaves = [leaf[: len(tiny.NAMES)] for leaf in jax.tree.leaves(owned[0])]
    np.savez(out, *leaves, *jax.tree.leaves(owned[1]))


def _counted() -> list[int]:
  """Bytes of each read of a backbone's file."""
  read, bytes_of = [], TensorFile._bytes

  def counted(self, file, size):
    read.append(size)
    return bytes_of(self, file, size)

  TensorFile._bytes = counted
  return read


def _held(leaf: jax.Array) -> int:
  """Different numbers of a leaf that this process's devices hold."""
  return sum(
    shard.data.size
    for shard in {str(s.index): s for s in leaf.addressable_shards}.values()
  )


if __name__ == "__main__":
  main(
    *sys.argv[1:5],
    axes=[int(each) for each in sys.argv[5:8]],
    kept=sys.argv[8] if len(sys.argv) > 8 else None,
  )
