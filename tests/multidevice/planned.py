"""What a run really keeps on the first device, beside what is planned of it.

    python planned.py DATA BACKBONE WORKDIR DATA_AXIS FSDP TENSOR ASSIGNMENT...

Prints {name: [planned bytes, planned numbers, bytes, numbers]}.
"""

import json
import sys
from pathlib import Path

import corpus
import jax

from hra import config_tree, jobs, run
from hra.adapters import table
from hra.config import Config, MeshConfig
from hra.planning import outlines, plan


def main(argv: list[str]) -> None:
  data, backbone, workdir, *axes = argv[:6]
  config = corpus.config(Path(data), Path(backbone))
  config.mesh = MeshConfig(*map(int, axes))
  for assignment in argv[6:]:
    config_tree.override(config, assignment)
  told = _planned(config)
  parts = run.assemble(config, workdir)
  fresh = run.initial_state(parts)
  shared = dict(fresh.shared)
  trained = shared.pop("backbone", None)
  job = jobs.make_job(parts, jobs.make_loader(parts), initial=fresh)
  real = {
    "backbone": trained if parts.frozen is None else parts.frozen,
    "shared": shared,
    "shared optimizer": fresh.shared_optimizer,
    "rows": fresh.rows,
    "rows optimizer": fresh.rows_optimizer,
    "progress": (fresh.progress, fresh.step, fresh.skipped_N),
    "batch": next(job.batches(0)),
  }
  print(
    json.dumps(
      {
        name: [*reversed(told[name]), _held(tree), table.count(tree)]
        for name, tree in real.items()
      }
    )
  )


def _planned(config: Config) -> dict[str, plan.Group]:
  outline = outlines.of_config(config)
  return plan.plan(config, outline, devices=len(jax.devices())).kept


def _held(tree) -> int:
  """Bytes on the first device."""
  first = jax.devices()[0]
  return sum(
    shard.data.nbytes
    for leaf in jax.tree.leaves(tree)
    for shard in leaf.addressable_shards
    if shard.device == first
  )


if __name__ == "__main__":
  main(sys.argv[1:])
