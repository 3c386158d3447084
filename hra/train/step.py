"""The pure training step: K distinct tasks, B utterances each.

One function computes the loss and gradients of ONE task with respect to its row
and to the shared parameters; `vmap` makes it K. Each task's contribution to the
shared gradient is thereby whole before it is summed, so that a task whose loss or
gradient is not finite is left out as if it were absent; where their sum is not
finite, no task is heard. With g_i the gradient of
the summed loss of task i, l_i its labels and w_i its weight, the gradients are

    shared: sum_i w_i g_i / sum_i w_i l_i        row i: g_i / l_i
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from hra.adapters import table
from hra.adapters.interface import Tree
from hra.backbone.conformer import Conformer
from hra.data.batching import Batch
from hra.features import specaugment
from hra.keys import fold_words
from hra.model import Model
from hra.train.optimizer import update_rows
from hra.train.state import Optimizers, TrainState


class Metrics(NamedTuple):
  """Of one step; entries of empty places weigh nothing."""

  loss_K: jax.Array
  """Nats per label of each task."""
  weight_K: jax.Array
  """Labels; 0 for empty places and for tasks that were left out."""
  row_norm_K: jax.Array
  """Global norm of each row's gradient."""
  shared_norm: jax.Array
  skipped: jax.Array
  """Tasks left out because something was not finite."""
  shared_skipped: jax.Array
  """1 where the shared gradient as a whole was not finite, and not applied."""


Step = Callable[
  [TrainState, Conformer | None, Batch], tuple[TrainState, Metrics]
]


def make_step(
  model: Model,
  optimizers: Optimizers,
  *,
  policy: specaugment.Policy | None,
  key: jax.Array,
) -> Step:
  """The step of a model; `policy` None leaves the features as they are.

  The step takes the frozen backbone, or None where the backbone trains.
  """

  def features(task: Batch) -> tuple[jax.Array, jax.Array]:
    mel_BTF, lengths_B = jax.vmap(model.features)(
      task.wave_KBS, task.lengths_KB
    )
    if policy is not None:
      task_key = fold_words(key, task.name_hash_K2)
      step_key = jax.random.fold_in(task_key, task.own_step_K)
      keys_B = jax.random.split(step_key, len(mel_BTF))
      mel_BTF = specaugment.augment(keys_B, mel_BTF, lengths_B, policy)
    return mel_BTF, lengths_B

  def task_loss(
    shared: Tree,
    row: Tree,
    frozen: Conformer | None,
    task: Batch,
    mel_BTF: jax.Array,
    lengths_B: jax.Array,
  ) -> tuple[jax.Array, jax.Array]:
    backbone = shared["backbone"] if frozen is None else frozen
    loss_B = jax.vmap(model.loss, in_axes=(None, None, None, 0, 0, 0, 0))(
      backbone,
      shared["adapter"],
      row,
      mel_BTF,
      lengths_B,
      task.labels_KBU,
      task.label_lengths_KB,
    )
    return loss_B.total.sum(), loss_B.weight.sum()

  gradient = jax.value_and_grad(task_loss, argnums=(0, 1), has_aux=True)

  def step(
    state: TrainState, frozen: Conformer | None, batch: Batch
  ) -> tuple[TrainState, Metrics]:
    mel_KBTF, lengths_KB = jax.vmap(features)(batch)
    rows = table.gather(state.rows, batch.task_K)
    states = table.gather(state.rows_optimizer, batch.task_K)
    (total_K, weight_K), (shared_gradients, row_gradients) = jax.vmap(
      gradient, in_axes=(None, 0, None, 0, 0, 0)
    )(state.shared, rows, frozen, batch, mel_KBTF, lengths_KB)

    finite_K = _finite((total_K, shared_gradients, row_gradients))
    ok_K = finite_K & (weight_K > 0)
    weight_K = jnp.where(ok_K, weight_K, 0)
    own_weight_K = jnp.maximum(weight_K, 1)

    say_K = jnp.where(ok_K, batch.shared_weight_K, 0)
    heard = (say_K * weight_K).sum()
    shared_gradient = jax.tree.map(
      lambda leaf: (
        _scaled(_masked(leaf, ok_K), say_K).sum(0)
        / jnp.where(heard > 0, heard, 1).astype(leaf.dtype)
      ),
      shared_gradients,
    )
    shared_norm = optax.global_norm(shared_gradient)
    whole = jnp.isfinite(shared_norm) & jnp.isfinite(heard)
    shared, shared_optimizer = _update_shared(
      optimizers.shared, state, shared_gradient, heard=(heard > 0) & whole
    )
    row_gradients = jax.tree.map(
      lambda leaf: (_masked(leaf, ok_K).T / own_weight_K).T, row_gradients
    )
    new_rows, new_states = update_rows(
      optimizers.rows,
      row_gradients,
      states,
      rows,
      own={"steps": batch.own_steps_K},
    )
    # Places that are empty or were left out write nowhere.
    number = len(state.skipped_N)
    places_K = jnp.where(ok_K, batch.task_K, number + jnp.arange(len(ok_K)))
    bad_K = ~finite_K
    state = TrainState(
      step=state.step + 1,
      shared=shared,
      shared_optimizer=shared_optimizer,
      rows=table.scatter(state.rows, places_K, new_rows),
      rows_optimizer=table.scatter(state.rows_optimizer, places_K, new_states),
      skipped_N=state.skipped_N.at[batch.task_K].add(
        bad_K.astype(jnp.int32), mode="drop", unique_indices=True
      ),
    )
    return state, Metrics(
      loss_K=_masked(total_K, ok_K) / own_weight_K,
      weight_K=weight_K,
      row_norm_K=jax.vmap(optax.global_norm)(row_gradients)
      if jax.tree.leaves(row_gradients)
      else jnp.zeros_like(weight_K),
      shared_norm=jnp.where(whole, shared_norm, 0),
      skipped=bad_K.sum(),
      shared_skipped=(~whole).astype(jnp.int32),
    )

  return step


def _update_shared(
  optimizer: optax.GradientTransformation,
  state: TrainState,
  gradient: Tree,
  *,
  heard: jax.Array,
) -> tuple[Tree, Tree]:
  """A step of the shared parameters; none where no task is heard."""
  updates, new_state = optimizer.update(
    gradient, state.shared_optimizer, state.shared
  )
  new_shared = optax.apply_updates(state.shared, updates)
  return jax.tree.map(
    lambda new, old: jnp.where(heard, new, old),
    (new_shared, new_state),
    (state.shared, state.shared_optimizer),
  )


def _finite(trees: Tree) -> jax.Array:
  """[K]: whether everything in leaves [K, ...] is finite."""
  checks = [
    jnp.isfinite(leaf).all(axis=tuple(range(1, leaf.ndim)))
    for leaf in jax.tree.leaves(trees)
  ]
  return jnp.stack(checks).all(axis=0)


def _masked(leaf: jax.Array, ok_K: jax.Array) -> jax.Array:
  """Zeros where a task is left out: `where`, since 0 * NaN is NaN."""
  return jnp.where(ok_K.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0)


def _scaled(leaf: jax.Array, factor_K: jax.Array) -> jax.Array:
  """Leaves [K, ...] times a factor of each task, in their own type."""
  shape = (-1, *[1] * (leaf.ndim - 1))
  return leaf * factor_K.astype(leaf.dtype).reshape(shape)
