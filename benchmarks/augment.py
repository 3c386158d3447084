"""What SpecAugment adds to a training step of a Conformer of 10M parameters.

    python benchmarks/augment.py

Pretraining steps of Conformer (S) (Gulati et al. 2020, table 1: 16 layers of width
144) on 8 recordings of 10 s, without SpecAugment and with every published policy, time
warp included. Blocks of steps take turns in one process; wall and CPU seconds are
medians of each block's quotient by the block without, beside it. FLOPs of augmenting
are XLA's; those of a step at least 6 for each weight of the layers and each frame, so
that the share is at most what is told. Writes docs/augment.json and docs/augment.md.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import results
import tqdm
import training
from absl import app, flags, logging
from timing import Run, median_ratio, take_turns

from hra.commands import process
from hra.config import (
  AdapterConfig,
  BackboneConfig,
  Config,
  SpecAugmentConfig,
  TrainConfig,
)
from hra.features import specaugment
from hra.nn.convolution import subsampled

_OUT = results.define_out()
_BLOCKS = flags.DEFINE_integer("blocks", 9, "Blocks of each policy.")
_STEPS = flags.DEFINE_integer("steps", 1, "Steps of a block.")

NONE = "none"
SECONDS, UTTERANCES, HOP = 10.0, 8, 0.01
BACKBONE = BackboneConfig(
  width=144,
  layers=16,
  heads=4,
  feed_forward=576,
  kernel=31,
  subsampling_channels=144,
  vocabulary=1024,
)


def main(argv: Sequence[str]) -> None:
  del argv
  logging.set_verbosity(logging.FATAL)
  process.set_up()
  policies = {NONE: SpecAugmentConfig(), **specaugment.CONFIGS}
  backbone = training.random_backbone(BACKBONE)
  runs = {
    name: _step(backbone, config)
    for name, config in tqdm.tqdm(policies.items(), "compiling")
  }
  times = take_turns(runs, blocks=_BLOCKS.value, steps=_STEPS.value)
  rows: dict[str, dict[str, Any]] = {
    name: {
      "wall_seconds": each.wall,
      "cpu_seconds": each.cpu,
      "wall_ratio": median_ratio(each.walls, times[NONE].walls),
      "cpu_ratio": median_ratio(each.cpus, times[NONE].cpus),
    }
    for name, each in times.items()
  }
  weights = sum(x.size for x in jax.tree.leaves(backbone.module.layers))
  frames = UTTERANCES * subsampled(round(SECONDS / HOP))
  for name, row in rows.items():
    own = 0.0 if name == NONE else _flops(policies[name])
    row["flops"] = own
    row["flops_share"] = own / (6 * weights * frames)
  about = results.about("augment")
  results.write(
    "augment",
    figures={**about, "rows": rows},
    markdown=_markdown(about, rows),
    out=_OUT.value,
  )


def _step(backbone: training.Backbone, augment: SpecAugmentConfig) -> Run:
  config = Config(
    adapter=AdapterConfig(family="none"),
    augment=augment,
    train=TrainConfig(mode="pretrain"),
  )
  config.data.tasks_per_batch = 1
  config.data.utterances_per_task = UTTERANCES
  made = training.make(
    config, tasks=1, seconds=SECONDS, backbone=backbone, dense=False
  )
  return training.advancing(made)


def _flops(config: SpecAugmentConfig) -> float:
  """Of augmenting a batch."""
  mels = jax.ShapeDtypeStruct(
    (UTTERANCES, round(SECONDS / HOP), 80), jnp.float32
  )
  lengths = jax.ShapeDtypeStruct((UTTERANCES,), jnp.int32)
  compiled = (
    jax.jit(specaugment.augment)
    .lower(jax.random.key(0), mels, lengths, specaugment.make_policy(config))
    .compile()
  )
  return compiled.cost_analysis()["flops"]


def _markdown(about: dict[str, Any], rows: dict[str, dict[str, Any]]) -> str:
  lines = [
    results.title(
      about, note=f"medians of {_BLOCKS.value} blocks of {_STEPS.value} steps."
    ),
    "",
    "| policy | step: wall, s | CPU, s | wall / none | CPU / none | FLOPs: at "
    "most, of a step |",
    "|---|---|---|---|---|---|",
  ]
  lines += [
    f"| {name} | {row['wall_seconds']:.3f} | {row['cpu_seconds']:.3f} | "
    f"{row['wall_ratio']:.3f} | {row['cpu_ratio']:.3f} | "
    f"{row['flops_share']:.2%} |"
    for name, row in rows.items()
  ]
  return "\n".join([*lines, ""])


if __name__ == "__main__":
  app.run(main)
