"""The pure training step: K distinct tasks, B utterances each.

A task whose loss or gradient is not finite is left out as if it were absent; where
the sum of the shared gradients is not finite, no task is heard. With g_i the
gradient of the summed loss of task i (`hra.train.gradients`), l_i its labels and
w_i its weight, the gradients are

    shared: sum_i w_i g_i / sum_i w_i l_i        row i: g_i / l_i

A task that stopped early, or lost as many own steps as it may to what is not
finite, takes no part: its row stays and it is not heard.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from hra.adapters import table
from hra.adapters.interface import Tree
from hra.adapters.spaces import TaskSpace
from hra.backbone.network import Backbone
from hra.data.batching import Batch
from hra.data.settings import Settings
from hra.features import specaugment
from hra.model import Model
from hra.train.gradients import make_gradients
from hra.train.noise import WeightNoise, noisy
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
  bad_K: jax.Array
  """Tasks left out because something was not finite."""
  shared_skipped: jax.Array
  """1 where the shared gradient as a whole was not finite, and not applied."""


class Terms(NamedTuple):
  """What a job's steps keep to: traced, so that other seeds and rates need no
  other compiled program."""

  key: jax.Array
  """That tasks' own keys are folded into."""
  shared: Settings | None
  """Of the shared parameters, which are frozen after `steps` joint steps; None
  never trains them, and computes nothing for them."""
  max_bad_steps: int | jax.Array = 1
  """Own steps lost to what is not finite that end a task's part."""
  weight_noise: WeightNoise | None = None
  """On a backbone that trains."""


Step = Callable[
  [TrainState, Backbone | None, Batch, Terms], tuple[TrainState, Metrics]
]


def make_step(
  model: Model,
  space: TaskSpace,
  optimizers: Optimizers,
  *,
  policy: specaugment.Policy | None,
  placement: Batch | None = None,
) -> Step:
  """The step of a model; `policy` None leaves the features as they are.

  The step takes the frozen backbone, or None where the backbone trains.

  Args:
    placement: of the batches, where several devices divide them
      (`hra.train.placement.batch_placement`).
  """
  gradients = make_gradients(model, space, policy=policy, placement=placement)

  def step(
    state: TrainState, frozen: Backbone | None, batch: Batch, terms: Terms
  ) -> tuple[TrainState, Metrics]:
    rows = table.gather(state.rows, batch.task_K)
    found = gradients(
      _heard_at(state, terms),
      rows,
      frozen,
      batch,
      key=terms.key,
      train_shared=terms.shared is not None,
    )
    active_K = _taking_part(state, batch.task_K, terms)
    say_K = _say(state, batch, terms)
    finite_K = jnp.isfinite(found.total_K) & _finite(found.rows)
    # What is frozen, or doesn't hear a task, can't put it in quarantine.
    finite_K &= _finite(found.shared) | (say_K == 0)
    bad_K = active_K & ~finite_K
    ok_K = active_K & finite_K & (found.weight_K > 0)
    weight_K = jnp.where(ok_K, found.weight_K, 0)
    state, shared_norm, whole = _update_shared(
      optimizers.shared,
      state,
      found.shared,
      say_K=jnp.where(ok_K, say_K, 0),
      weight_K=weight_K,
      settings=terms.shared,
    )
    state, row_norm_K = _update_rows(
      optimizers.rows,
      state,
      batch,
      rows=rows,
      gradients=found.rows,
      weight_K=weight_K,
    )
    # Set and not added: adding, devices would exchange the whole table.
    skipped_K = table.gather(state.skipped_N, batch.task_K) + bad_K
    state = state._replace(
      step=state.step + 1,
      skipped_N=table.scatter(state.skipped_N, batch.task_K, skipped_K),
    )
    return state, Metrics(
      loss_K=_masked(found.total_K, ok_K) / jnp.maximum(weight_K, 1),
      weight_K=weight_K,
      row_norm_K=row_norm_K,
      shared_norm=jnp.where(whole, shared_norm, 0),
      bad_K=bad_K,
      shared_skipped=(~whole).astype(jnp.int32),
    )

  return step


def _heard_at(state: TrainState, terms: Terms) -> Tree:
  """The shared parameters that gradients are computed at."""
  if terms.weight_noise is None:
    return state.shared
  backbone = noisy(
    state.shared["backbone"],
    terms.weight_noise,
    key=terms.key,
    step=state.step,
  )
  return {**state.shared, "backbone": backbone}


def _say(state: TrainState, batch: Batch, terms: Terms) -> jax.Array:
  """[K]: weights in the shared gradients; 0 once those are frozen."""
  if terms.shared is None:
    return jnp.zeros_like(batch.shared_weight_K)
  return batch.shared_weight_K * (state.step < terms.shared.steps)


def _taking_part(
  state: TrainState, task_K: jax.Array, terms: Terms
) -> jax.Array:
  """[K]: who is a task, didn't stop and isn't quarantined."""
  skipped_K, stopped_K = table.gather(
    (state.skipped_N, state.progress.stopped_N), task_K
  )
  there_K = task_K < len(state.skipped_N)
  return there_K & ~stopped_K & (skipped_K < terms.max_bad_steps)


def _update_shared(
  optimizer: optax.GradientTransformationExtraArgs,
  state: TrainState,
  gradients: Tree,
  *,
  say_K: jax.Array,
  weight_K: jax.Array,
  settings: Settings | None,
) -> tuple[TrainState, jax.Array, jax.Array]:
  """(state, the gradient's norm, whether that is finite).

  Nothing moves where no task is heard or the sum is not finite.
  """
  if settings is None:
    return state, jnp.zeros(()), jnp.ones((), bool)
  heard = (say_K * weight_K).sum()
  gradient = jax.tree.map(
    lambda leaf: (
      _scaled(_masked(leaf, say_K > 0), say_K).sum(0)
      / jnp.where(heard > 0, heard, 1).astype(leaf.dtype)
    ),
    gradients,
  )
  norm = optax.global_norm(gradient)
  whole = jnp.isfinite(norm) & jnp.isfinite(heard)
  updates, new_state = optimizer.update(
    gradient, state.shared_optimizer, state.shared, settings=settings
  )
  new_shared = optax.apply_updates(state.shared, updates)
  moves = (heard > 0) & whole
  shared, shared_optimizer = jax.tree.map(
    lambda new, old: jnp.where(moves, new, old),
    (new_shared, new_state),
    (state.shared, state.shared_optimizer),
  )
  state = state._replace(shared=shared, shared_optimizer=shared_optimizer)
  return state, norm, whole


def _update_rows(
  optimizer: optax.GradientTransformationExtraArgs,
  state: TrainState,
  batch: Batch,
  *,
  rows: Tree,
  gradients: Tree,
  weight_K: jax.Array,
) -> tuple[TrainState, jax.Array]:
  """(state, norms of the rows' gradients); places without weight write nowhere."""
  ok_K = weight_K > 0
  gradients = jax.tree.map(
    lambda leaf: (_masked(leaf, ok_K).T / jnp.maximum(weight_K, 1)).T, gradients
  )
  new_rows, new_states = update_rows(
    optimizer,
    gradients,
    table.gather(state.rows_optimizer, batch.task_K),
    rows,
    settings_K=batch.settings_K,
  )
  places_K = jnp.where(ok_K, batch.task_K, table.nowhere(len(ok_K)))
  state = state._replace(
    rows=table.scatter(state.rows, places_K, new_rows),
    rows_optimizer=table.scatter(state.rows_optimizer, places_K, new_states),
  )
  if not jax.tree.leaves(gradients):
    return state, jnp.zeros_like(weight_K)
  return state, jax.vmap(optax.global_norm)(gradients)


def _finite(gradients: Tree) -> jax.Array | bool:
  """[K]: whether the global norms of leaves [K, ...] are finite.

  Numbers whose squares are not would stop clipping and moments as NaN does.
  """
  squares = [
    jnp.square(leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)))
    for leaf in jax.tree.leaves(gradients)
  ]
  sums = [leaf.sum(tuple(range(1, leaf.ndim))) for leaf in squares]
  return jnp.isfinite(sum(sums[1:], sums[0])) if sums else True


def _masked(leaf: jax.Array, ok_K: jax.Array) -> jax.Array:
  """Zeros where a task is left out: `where`, since 0 * NaN is NaN."""
  return jnp.where(ok_K.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0)


def _scaled(leaf: jax.Array, factor_K: jax.Array) -> jax.Array:
  """Leaves [K, ...] times a factor of each task, in their own type."""
  shape = (-1, *[1] * (leaf.ndim - 1))
  return leaf * factor_K.astype(leaf.dtype).reshape(shape)
