"""What benchmarks time is a step that trains."""

import jax
import numpy as np
import tiny
import training

from hra.config import AdapterConfig, Config, TrainConfig


def test_a_random_backbone_is_trained():
  backbone = training.random_backbone(tiny.BACKBONE)
  config = Config(
    adapter=AdapterConfig(family="none"), train=TrainConfig(mode="pretrain")
  )
  config.data.tasks_per_batch, config.data.utterances_per_task = 1, 2
  made = training.make(
    config, tasks=1, seconds=0.5, backbone=backbone, dense=False
  )
  assert made.flops > 0 < made.temporaries
  before = jax.device_get(made.state.shared["backbone"])
  after = made.advance(made.state)
  assert int(after.step) == 1
  moved = [
    bool(np.any(a != b))
    for a, b in zip(
      jax.tree.leaves(before),
      jax.tree.leaves(after.shared["backbone"]),
      strict=True,
    )
  ]
  assert all(moved)
