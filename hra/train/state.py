"""What training changes, in three groups of which two stand here.

`shared` and `rows` train; the frozen backbone is an argument of the step that is
never differentiated, donated or saved again. When pretraining, the backbone
itself is what tasks share: it stands in `shared["backbone"]`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from hra.adapters import table
from hra.adapters.interface import Tree
from hra.adapters.spaces import TaskSpace
from hra.backbone.network import Backbone
from hra.train import optimizer


class Progress(NamedTuple):
  """What dev evaluations said of each task; every leaf is [N, ...]."""

  best: Tree
  """What the task owned at its lowest dev WER; `{}` where the last is used."""
  best_step_N: jax.Array
  """Own steps that it had done then; -1 where it was never judged."""
  best_errors_N: jax.Array
  """Word errors of that evaluation."""
  waited_N: jax.Array
  """Evaluations since then."""
  stopped_N: jax.Array
  """Whether the task stopped early."""
  evaluated_N: jax.Array
  """Own steps at the latest evaluation, judged or not."""
  errors_N: jax.Array
  """Word errors of the latest evaluation."""
  words_N: jax.Array
  """Reference words of the task's dev split; 0 before the first evaluation."""


class TrainState(NamedTuple):
  """A pytree: saved whole, restored bit for bit."""

  step: jax.Array
  """Joint steps done: the position in the data plan."""
  shared: Tree
  """`adapter`, `space`, and `backbone` when pretraining."""
  shared_optimizer: Tree
  rows: Tree
  """[N, ...]: what each task owns in its space; where devices divide it, with rows of
  nobody at the end (`hra.train.placement.laid_out`)."""
  rows_optimizer: Tree
  """[N, ...]: each row's own moments and step count."""
  skipped_N: jax.Array
  """Own steps that a task lost to a loss or gradient that was not finite."""
  progress: Progress


class Optimizers(NamedTuple):
  """One transformation a group; each needs `settings` (`optimizer.build`)."""

  shared: optax.GradientTransformationExtraArgs
  rows: optax.GradientTransformationExtraArgs


def init(
  space: TaskSpace,
  optimizers: Optimizers,
  names: Sequence[str],
  *,
  key: jax.Array,
  pretrained: Backbone | None = None,
  keep_best: bool = False,
) -> TrainState:
  """A fresh state for the tasks `names`.

  Args:
    pretrained: the backbone to train; None when it stays frozen.
    keep_best: whether rows of the lowest dev WER are kept beside the last.
  """
  key_shared, key_rows = jax.random.split(key)
  shared = {
    "adapter": space.adapter.init_shared(key_shared),
    "space": space.init_shared(jax.random.fold_in(key_shared, 1)),
  }
  if pretrained is not None:
    shared["backbone"] = pretrained
  rows = table.init_rows(space.init_task, names, key_rows)
  return of_parts(
    optimizers, shared=shared, rows=rows, count=len(names), keep_best=keep_best
  )


def of_parts(
  optimizers: Optimizers,
  *,
  shared: Tree,
  rows: Tree,
  count: int,
  keep_best: bool,
) -> TrainState:
  """A state at step 0 with these parameters, for `count` tasks."""

  def zeros() -> jax.Array:
    return jnp.zeros((count,), jnp.int32)

  return TrainState(
    step=jnp.zeros((), jnp.int32),
    shared=shared,
    shared_optimizer=optimizers.shared.init(shared),
    rows=rows,
    rows_optimizer=optimizer.init_rows(optimizers.rows, rows, count=count),
    skipped_N=zeros(),
    progress=Progress(
      best=jax.tree.map(jnp.copy, rows) if keep_best else {},
      best_step_N=zeros() - 1,
      best_errors_N=zeros(),
      waited_N=zeros(),
      stopped_N=jnp.zeros((count,), bool),
      evaluated_N=zeros(),
      errors_N=zeros(),
      words_N=zeros(),
    ),
  )


def chosen_rows(state: TrainState, task_K: jax.Array | None = None) -> Tree:
  """What tasks end with: the best, where one was judged, or the last.

  Args:
    task_K: whose rows [K, ...] are asked for; None is all tasks.
  """
  tasks = len(state.skipped_N)

  def of(table_N: Tree) -> Tree:
    if task_K is not None:
      return table.gather(table_N, task_K)
    return jax.tree.map(lambda leaf_N: leaf_N[:tasks], table_N)

  if not jax.tree.leaves(state.progress.best):
    return of(state.rows)
  judged = of(state.progress.best_step_N) >= 0
  return jax.tree.map(
    lambda best, last: jnp.where(
      judged.reshape(-1, *[1] * (last.ndim - 1)), best, last
    ),
    of(state.progress.best),
    of(state.rows),
  )
