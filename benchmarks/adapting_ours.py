"""Our step of many speakers: joint, and one speaker after the other.

Enters: a backbone that was converted, LoRA folders of PEFT. Leaves: what is timed, and
losses, gradients and rows to compare.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import training
from etils import epath
from timing import Run

from hra.adapters import families, spaces
from hra.adapters.interface import Tree
from hra.backbone.store import StoredBackbone
from hra.config import AdapterConfig, Config, OptimizerConfig
from hra.data.batching import Batch
from hra.model import Model
from hra.peft import folder as peft_folder
from hra.sharding import make_mesh
from hra.train.gradients import make_gradients
from hra.train.placement import place_state
from hra.train.state import TrainState

RATE = 1e-3
JOINT, ALONE = NAMES = ("ours, joint", "ours, one by one")


class Shape(NamedTuple):
  """Of a step."""

  speakers: int
  recordings: int
  """Of each speaker."""
  seconds: float
  """Of each recording."""

  def __str__(self) -> str:
    return f"{self.speakers} x {self.recordings} x {self.seconds:g} s"


class Contestants(NamedTuple):
  """Both ways at their start, from the same rows."""

  joint: training.Training
  alone: training.Training
  """Of a table with all speakers too; a batch holds one."""


def config(adapter: AdapterConfig, shape: Shape) -> Config:
  """AdamW as torch's is by default but for decay; nothing clipped nor augmented."""
  found = Config(adapter=adapter)
  found.train.rows = OptimizerConfig(
    learning_rate=RATE, schedule="constant", clip_norm=0.0
  )
  found.data.tasks_per_batch = shape.speakers
  found.data.utterances_per_task = shape.recordings
  return found


def read_rows(
  folders: Sequence[epath.Path], stored: StoredBackbone
) -> tuple[AdapterConfig, Tree]:
  """The adapter that all of PEFT's folders are of, and their rows [N, ...]."""
  read = [peft_folder.read(path, stored) for path in folders]
  rows_N = jax.tree.map(
    lambda *leaves: np.stack(leaves), *[x.row for x in read]
  )
  return read[0].adapter, rows_N


def contestant(
  stored: StoredBackbone,
  folders: Sequence[epath.Path],
  shape: Shape,
  *,
  together: int,
) -> training.Training:
  """A job whose rows are those of the folders.

  Args:
    together: speakers in a batch.
  """
  adapter, rows_N = read_rows(folders[: shape.speakers], stored)
  made = training.make(
    config(adapter, shape._replace(speakers=together)),
    tasks=shape.speakers,
    seconds=shape.seconds,
    backbone=training.Adaptee(stored.module, stored.frontend),
    dense=False,
  )
  placed = place_state(
    made.state._replace(rows=rows_N), make_mesh(Config().mesh)
  )
  return made._replace(state=placed)


def of(batch: Batch, speaker: int) -> Batch:
  """The part of one speaker."""
  return jax.tree.map(lambda leaf: leaf[speaker : speaker + 1], batch)


def batch(shape: Shape, *, labels: int) -> Batch:
  """The noise that `training.make` lets all of the speakers speak."""
  return training.noise(
    config(AdapterConfig(), shape),
    [f"task-{index}" for index in range(shape.speakers)],
    labels=labels,
    seconds=shape.seconds,
  )


def running(made: training.Training, heard: Batch) -> Run:
  """A step of every speaker of a batch each time."""
  if len(made.batch.task_K) == len(heard.task_K):
    return training.advancing(made)
  return one_by_one(made, heard)


def one_by_one(alone: training.Training, heard: Batch) -> Run:
  """The same, one after the other."""
  now = alone.state
  batches = [of(heard, index) for index in range(len(heard.task_K))]

  def run() -> Any:
    nonlocal now
    for each in batches:
      now = alone.step(now, each)
    return now.step

  return run


def stepped(
  made: training.Training, batches: Sequence[Batch], *, steps: int
) -> Tree:
  """Rows [N, ...] after as many steps on each of the batches."""
  now: TrainState = jax.tree.map(jnp.copy, made.state)
  for _ in range(steps):
    for batch in batches:
      now = made.step(now, batch)
  return jax.device_get(now.rows)


def gradients(
  stored: StoredBackbone, adapter: AdapterConfig, rows_K: Tree, batch: Batch
) -> tuple[np.ndarray, Tree]:
  """Each speaker's nats per label, and its gradient by the row, as the step has it."""
  built = families.build(
    adapter, stored.module.config, mels=stored.frontend.width
  )
  model = Model(adapter=built, frontend=stored.frontend)
  space = spaces.build(Config().space, adapter=built, family=adapter)
  found = jax.jit(
    functools.partial(
      make_gradients(model, space, policy=None),
      key=jax.random.key(0),
      train_shared=False,
    )
  )({"adapter": {}, "space": {}}, rows_K, stored.module, batch)
  weight_K = np.asarray(found.weight_K)
  of_rows = jax.tree.map(
    lambda leaf: (
      np.asarray(leaf) / weight_K.reshape(-1, *[1] * (leaf.ndim - 1))
    ),
    found.rows,
  )
  return np.asarray(found.total_K) / weight_K, of_rows
