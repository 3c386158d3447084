"""128 or 4,096 atypical speakers on one frozen backbone of two billion parameters.

The backbone is a Conformer of the shape of USM 2B (32 layers of 1,536, arXiv
2303.01037), which isn't public: `--config.backbone_path` names a folder of one that
pretraining made or `hra convert` wrote. A plan needs neither it nor data:

    hra plan --config=experiments/usm_2b_euphonia.py --topology=v5e:16x16 --tasks=128
    hra plan --config=experiments/usm_2b_euphonia.py --topology=v5e:16x16 --tasks=4096
    hra plan --config=experiments/usm_2b_euphonia.py --topology=v4:2x2x4 --tasks=128 \\
      --config.data.tasks_per_batch=16

docs/plan.md has what they say: 1.6 and 1.7 of 16 GiB a chip of the v5e-256, 6.6 of 32 of
the v4-32. Then, on a v5e-256 under Kubernetes,

    python -m launch --launcher=jobset --name=euphonia --accelerator=v5e:16x16 \\
      --image=IMAGE --queue=QUEUE -- train --config=experiments/usm_2b_euphonia.py \\
      --workdir=gs://BUCKET/euphonia --config.backbone_path=gs://BUCKET/usm_2b \\
      --config.data.path=gs://BUCKET/data

and on a v4-32 of TPU VMs, whose 16 chips take a quarter of the tasks at a time,

    python -m launch --launcher=tpu_vm --name=euphonia --accelerator=v4:2x2x4 \\
      --tpu=NAME --zone=us-central2-b -- train --config=experiments/usm_2b_euphonia.py \\
      --workdir=gs://BUCKET/euphonia --config.backbone_path=gs://BUCKET/usm_2b \\
      --config.data.path=gs://BUCKET/data --config.data.tasks_per_batch=16

As many tasks share the batches as the data have. The speakers are those of Project
Euphonia in arXiv 2403.19709, whose smallest linear heads have an h of about 256.
"""

from hra.config import (
  AdapterConfig,
  BackboneConfig,
  Config,
  DataConfig,
  FrontendConfig,
  MeshConfig,
  OptimizerConfig,
  SpecAugmentConfig,
  TrainConfig,
)

WIDTH = 1536


def get_config() -> Config:
  return Config(
    name="usm_2b_euphonia",
    backbone_path="",
    features=FrontendConfig(num_mels=128),
    augment=SpecAugmentConfig(
      freq_masks=2, freq_width=27, time_masks=5, time_width=100, time_ratio=0.05
    ),
    backbone=BackboneConfig(
      width=WIDTH,
      layers=32,
      heads=16,
      feed_forward=4 * WIDTH,
      kernel=5,
      position="relative",
      subsampling_channels=128,
      vocabulary=4096,
      dtype="bfloat16",
      param_dtype="bfloat16",
      remat="full",
    ),
    adapter=AdapterConfig(family="hra", width=256, head="linear", heads="both"),
    data=DataConfig(
      tasks_per_batch=64,
      utterances_per_task=8,
      eval_batch=256,
      buckets=4,
      max_seconds=30.0,
      speed_low=0.9,
      speed_high=1.1,
    ),
    mesh=MeshConfig(data=-1, fsdp=4, tensor=4),
    train=TrainConfig(
      steps=1000,
      eval_every=200,
      select="best",
      save_seconds=600.0,
      rows=OptimizerConfig(learning_rate=2e-3, warmup_steps=20),
      shared=OptimizerConfig(learning_rate=1e-3, warmup_steps=100),
    ),
  )
