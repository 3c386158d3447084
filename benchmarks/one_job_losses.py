"""Nats a label on dev recordings, of rows that were trained together and alone.

Enters: the folder of a joint run, and those of its tasks alone. Leaves: of each of
them its loss by the backbone, by the joint row and by its own, on the same batches.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np
from etils import epath

from hra import run
from hra.adapters.interface import Tree
from hra.data.batching import Batch
from hra.data.loader import EvaluationLoader
from hra.submodels import Store, Submodel
from hra.train.gradients import make_gradients

_Sums = Callable[[Tree, Tree, Batch], tuple[jax.Array, jax.Array]]


def dev_losses(
  joint: epath.Path, alone: Mapping[str, epath.Path]
) -> dict[str, dict[str, float]]:
  """By task: `backbone_loss`, `joint_loss`, `alone_loss`, and `rows_apart`.

  `rows_apart` is the norm of both rows' difference over that of the joint one.

  Args:
    joint: the run's folder.
    alone: by task, those of runs of that task alone.
  """
  parts = run.reopen(joint)
  loader = EvaluationLoader(
    parts.split(parts.config.data.dev_split),
    tokenizer=parts.backbone.tokenizer,
    table=parts.tasks,
    bounds=parts.bounds,
    config=parts.config.data,
  )
  sums = _sums(parts)
  adapter = parts.model.adapter
  fresh = (
    adapter.init_task(jax.random.key(0)),
    adapter.init_shared(jax.random.key(0)),
  )
  store = Store(joint / "submodels")
  found = {}
  for task, folder in alone.items():
    together, itself = store[task], Store(folder / "submodels")[task]
    heard = functools.partial(_loss, sums, loader.of([task]))
    found[task] = {
      "backbone_loss": heard(*fresh),
      "joint_loss": heard(together.row, together.shared),
      "alone_loss": heard(itself.row, itself.shared),
      "rows_apart": apart(itself, together),
    }
  return found


def apart(one: Submodel, other: Submodel) -> float:
  """The norm of two rows' difference over the other's."""

  def norm(row: Tree) -> float:
    squares = [np.square(leaf).sum() for leaf in jax.tree.leaves(row)]
    return float(np.sqrt(sum(squares)))

  difference = jax.tree.map(np.subtract, one.row, other.row)
  return norm(difference) / norm(other.row)


def _sums(parts: run.Parts) -> _Sums:
  """(row, shared, batch) -> nats and labels of all who speak in it."""
  gradients = make_gradients(parts.model, parts.space, policy=None)
  frozen = parts.frozen

  @jax.jit
  def compiled(frozen, row, shared, batch):
    places = len(batch.task_K)
    rows_K = jax.tree.map(
      lambda leaf: jax.numpy.broadcast_to(leaf, (places, *leaf.shape)), row
    )
    found = gradients(
      {"adapter": shared, "space": {}},
      rows_K,
      frozen,
      batch,
      key=jax.random.key(0),
      train_shared=False,
    )
    return found.total_K.sum(), found.weight_K.sum()

  return functools.partial(compiled, frozen)


def _loss(
  sums: _Sums, loader: EvaluationLoader, row: Tree, shared: Tree
) -> float:
  parts = [sums(row, shared, batch) for batch, _ in loader.batches()]
  total, weight = np.asarray(parts, np.float64).sum(axis=0)
  return float(total / weight)
