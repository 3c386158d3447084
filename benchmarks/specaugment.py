"""What SpecAugment adds to a training step of a Conformer of 10M parameters.

    python benchmarks/specaugment.py

Pretraining steps of Conformer (S) (Gulati et al. 2020, table 1: 16 layers of width
144) on 8 recordings of 10 s, without SpecAugment and with every published policy, time
warp included. Blocks of steps take turns in one process; ratios are medians of each
block's quotient by the block without, beside it, and on a machine that others use they
tell a few per cent at best. So each policy is also timed alone, as a part of the step
without. FLOPs of augmenting are XLA's; those of a step at least 6 for each weight of the
layers and each frame, so that the share is at most what is told. Writes
docs/specaugment.json and docs/specaugment.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import results
import tqdm
import training
from absl import app, flags, logging
from timing import Run, Times, median_ratio, take_turns

from hra.commands import process
from hra.config import (
  AdapterConfig,
  BackboneConfig,
  Config,
  SpecAugmentConfig,
  TrainConfig,
)
from hra.features import specaugment
from hra.nn.subsampling import subsampled

_OUT = results.define_out()
_BLOCKS = flags.DEFINE_integer("blocks", 9, "Blocks of each policy.")
_STEPS = flags.DEFINE_integer("steps", 1, "Steps of a block.")

NONE = "none"
_CALLS = 10
"""Of a policy alone, in a block."""
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
  about = results.about("specaugment")
  rows = _rows(
    policies,
    times=take_turns(runs, blocks=_BLOCKS.value, steps=_STEPS.value),
    weights=sum(x.size for x in jax.tree.leaves(backbone.module.layers)),
  )
  results.write(
    "specaugment",
    figures={**about, "rows": rows},
    markdown=_markdown(about, rows),
    out=_OUT.value,
  )


def _rows(
  policies: Mapping[str, SpecAugmentConfig],
  *,
  times: Mapping[str, Times],
  weights: int,
) -> dict[str, dict[str, Any]]:
  """By policy.

  Args:
    times: of steps.
    weights: of the layers.
  """
  alone = {
    name: _augmenting(config)
    for name, config in policies.items()
    if name != NONE
  }
  apart = take_turns(
    {name: each.run for name, each in alone.items()},
    blocks=_BLOCKS.value,
    steps=_CALLS,
  )
  frames = UTTERANCES * subsampled(round(SECONDS / HOP), BACKBONE)
  rows: dict[str, dict[str, Any]] = {}
  for name, each in times.items():
    rows[name] = {
      "wall_seconds": each.wall,
      "cpu_seconds": each.cpu,
      "wall_ratio": median_ratio(each.walls, times[NONE].walls),
      "cpu_ratio": median_ratio(each.cpus, times[NONE].cpus),
    }
    if name != NONE:
      rows[name] |= {
        "alone_cpu_seconds": apart[name].cpu,
        "alone_cpu_share": apart[name].cpu / times[NONE].cpu,
        "flops": alone[name].flops,
        "flops_share": alone[name].flops / (6 * weights * frames),
      }
  return rows


def _step(backbone: training.Adaptee, augment: SpecAugmentConfig) -> Run:
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


class Augmenting(NamedTuple):
  """A policy by itself on a batch."""

  run: Run
  flops: float


def _augmenting(config: SpecAugmentConfig) -> Augmenting:
  rng = np.random.default_rng(0)
  frames = round(SECONDS / HOP)
  given = (
    jax.random.key(0),
    rng.standard_normal((UTTERANCES, frames, 80), np.float32),
    np.full(UTTERANCES, frames, np.int32),
    specaugment.make_policy(config),
  )
  compiled = jax.jit(specaugment.augment).lower(*given).compile()
  given = jax.device_put(given)
  return Augmenting(lambda: compiled(*given), compiled.cost_analysis()["flops"])


def _markdown(about: dict[str, Any], rows: dict[str, dict[str, Any]]) -> str:
  lines = [
    results.title(
      about, note=f"medians of {_BLOCKS.value} blocks of {_STEPS.value} steps."
    ),
    "",
    "| policy | step: wall, s | CPU, s | wall / none | CPU / none | alone: CPU, ms "
    "| of a step | FLOPs: at most, of a step |",
    "|---|---|---|---|---|---|---|---|",
  ]
  for name, row in rows.items():
    own = ("", "", "")
    if name != NONE:
      own = (
        f"{1000 * row['alone_cpu_seconds']:.1f}",
        f"{row['alone_cpu_share']:.2%}",
        f"{row['flops_share']:.2%}",
      )
    lines.append(
      f"| {name} | {row['wall_seconds']:.3f} | {row['cpu_seconds']:.3f} | "
      f"{row['wall_ratio']:.3f} | {row['cpu_ratio']:.3f} | {' | '.join(own)} |"
    )
  return "\n".join([*lines, ""])


if __name__ == "__main__":
  app.run(main)
