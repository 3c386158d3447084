"""Trains 20 steps on a mesh of simulated devices; prints losses, saves rows.

    python worker.py DTYPE OUT DATA FSDP TENSOR

Runs in a process of its own: the number of devices is fixed when JAX starts.
"""

import json
import sys

import jax
import numpy as np
import tiny

from hra.adapters import table
from hra.config import AdapterConfig, MeshConfig
from hra.sharding import make_mesh, shardings
from hra.train import state
from hra.train.placement import (
  batch_placement,
  jit_step,
  place_batch,
  place_state,
)
from hra.train.step import make_step

STEPS = 20


def main(dtype: str, out: str, *axes: int) -> None:
  jax.config.update("jax_enable_x64", dtype == "float64")
  devices = jax.devices()[: int(np.prod(axes))]
  mesh = make_mesh(MeshConfig(*axes), devices)
  types = {"dtype": dtype, "param_dtype": dtype}
  adapter = AdapterConfig(width=8, heads="both")
  model = tiny.model(adapter, **types)
  space = tiny.space(adapter, **types)
  backbone = tiny.backbone(**types)
  backbone = jax.device_put(
    backbone, shardings({"backbone": backbone}, mesh)["backbone"]
  )
  optimizers = tiny.optimizers()
  initial = place_state(
    state.init(space, optimizers, tiny.NAMES, key=jax.random.key(2)),
    mesh,
  )
  placement = batch_placement(mesh, axis=0)
  step = jit_step(
    make_step(
      model,
      space,
      optimizers,
      policy=None,
      placement=placement,
    ),
    tiny.terms(steps=STEPS),
    initial,
    mesh,
  )
  trained, losses = initial, []
  for own_step in range(STEPS):
    batch = tiny.batch(
      tiny.NAMES[:4], own_step=own_step, dtype=np.dtype(dtype).type
    )
    trained, metrics = step(trained, backbone, place_batch(batch, placement))
    losses.append([float(loss) for loss in metrics.loss_K])
  kernel = backbone.layers.first.up.kernel[...]
  print(
    json.dumps(
      {
        "losses": losses,
        "compilations": step.func._cache_size(),
        "shards": len({str(s.index) for s in kernel.addressable_shards}),
        "rows": table.count(trained.rows),
      }
    )
  )
  leaves = jax.tree.leaves((trained.rows, trained.shared["adapter"]))
  np.savez(out, *map(np.asarray, leaves))


if __name__ == "__main__":
  main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
