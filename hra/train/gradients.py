"""Losses and gradients of a batch's K tasks, each task by itself.

One function computes the loss and the gradients of ONE task with respect to what it
owns and to what tasks share; `vmap` makes it K. So each task's share of the shared
gradient is whole, and can be left out, before anything is summed.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
from jax.sharding import NamedSharding, PartitionSpec

from hra.adapters.interface import Tree
from hra.adapters.spaces import TaskSpace
from hra.backbone.network import Backbone
from hra.data.batching import Batch
from hra.features import specaugment
from hra.features.frontend import Mel
from hra.keys import fold_words
from hra.model import Model


class Gradients(NamedTuple):
  """Of the summed loss of each task, not yet divided by anything."""

  total_K: jax.Array
  """Nats."""
  weight_K: jax.Array
  """Labels."""
  rows: Tree
  """[K, ...]"""
  shared: Tree
  """[K, ...]; `{}` where what is shared doesn't train."""


class TaskGradients(Protocol):
  """What tasks share, what K tasks own, the frozen backbone and a batch -> theirs."""

  def __call__(
    self,
    shared: Tree,
    rows: Tree,
    frozen: Backbone | None,
    batch: Batch,
    *,
    key: jax.Array,
    train_shared: bool,
  ) -> Gradients: ...


def make_gradients(
  model: Model,
  space: TaskSpace,
  *,
  policy: specaugment.Policy | None,
  placement: Batch | None = None,
) -> TaskGradients:
  """The gradients of a model; `policy` None leaves the features as they are.

  Args:
    placement: of a batch that devices divide, whose spectra each then computes
      of its own part; without it XLA would give every device all of the batch.
  """
  features = _features(model, placement)
  over_tasks, over_utterances = None, None
  if placement is not None:
    waves = placement.wave_KBS
    over_tasks, over_utterances = (*waves.spec, None)[:2]
    model = dataclasses.replace(
      model, placed=NamedSharding(waves.mesh, PartitionSpec())
    )

  def task_loss(
    trained: tuple[Tree, ...],
    shared: Tree,
    frozen: Backbone | None,
    task: Batch,
    mel_BTF: jax.Array,
    lengths_B: jax.Array,
  ) -> tuple[jax.Array, jax.Array]:
    owned, *given = trained
    shared = given[0] if given else shared
    backbone = shared["backbone"] if frozen is None else frozen
    loss_B = jax.vmap(
      model.loss,
      in_axes=(None, None, None, 0, 0, 0, 0),
      spmd_axis_name=over_utterances,
    )(
      backbone,
      shared["adapter"],
      space.row(shared["space"], owned),
      mel_BTF,
      lengths_B,
      task.labels_KBU,
      task.label_lengths_KB,
    )
    return loss_B.total.sum(), loss_B.weight.sum()

  gradient = jax.value_and_grad(task_loss, has_aux=True)

  def gradients(
    shared: Tree,
    rows: Tree,
    frozen: Backbone | None,
    batch: Batch,
    *,
    key: jax.Array,
    train_shared: bool,
  ) -> Gradients:
    mel_KBTF, lengths_KB = features(batch.wave_KBS, batch.lengths_KB)
    if policy is not None:
      augmented = functools.partial(_augmented, policy, key)
      mel_KBTF = jax.vmap(augmented)(batch, mel_KBTF, lengths_KB)
    trained: tuple[Tree, ...] = (rows, shared) if train_shared else (rows,)
    axes = (0, None) if train_shared else (0,)
    (total_K, weight_K), (of_rows, *of_shared) = jax.vmap(
      gradient,
      in_axes=(axes, None, None, 0, 0, 0),
      spmd_axis_name=over_tasks,
    )(trained, shared, frozen, batch, mel_KBTF, lengths_KB)
    return Gradients(
      total_K, weight_K, of_rows, of_shared[0] if of_shared else {}
    )

  return gradients


def _features(
  model: Model, placement: Batch | None
) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
  """Waveforms [K, B, S] and lengths in samples -> mel_KBTF and lengths in frames."""
  features = jax.vmap(jax.vmap(model.features))
  if placement is None:
    return features
  waves, lengths = placement.wave_KBS, placement.lengths_KB
  return jax.shard_map(
    features,
    mesh=waves.mesh,
    in_specs=(waves.spec, lengths.spec),
    out_specs=Mel(waves.spec, lengths.spec),
  )


def _augmented(
  policy: specaugment.Policy,
  key: jax.Array,
  task: Batch,
  mel_BTF: jax.Array,
  lengths_B: jax.Array,
) -> jax.Array:
  """mel_BTF of one task, augmented by the task's own keys and steps.

  Utterances that are noise-perturbed instead stay as they are, in the same pass.
  """
  task_key = fold_words(key, task.name_hash_K2)
  step_key = jax.random.fold_in(task_key, task.own_step_K)
  keys_B = jax.random.split(step_key, len(mel_BTF))
  now = specaugment.at_step(policy, task.own_step_K)
  probability_B = now.probability * task.augment_KB
  now = dataclasses.replace(now, probability=probability_B)
  return specaugment.augment(keys_B, mel_BTF, lengths_B, now)
