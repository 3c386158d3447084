"""AdamW per parameter group; for rows, each task is an optimizer of its own.

A group's optimizer is an optax transformation written for one task; `init_rows`
and `update_rows` `vmap` it, so that a row has its own moments, step count,
schedule and clipping, and only the rows of a batch are read or written. What
differs from row to row enters as extra arguments of `update`, traced, [K].
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from hra.adapters.interface import Tree
from hra.config import OptimizerConfig


def learning_rate(
  config: OptimizerConfig, count: jax.Array, steps: int | jax.Array
) -> jax.Array:
  """The learning rate of update `count` = 0, 1, ... of `steps`.

  With peak p, warm-up w = min(warmup_steps, steps) and d = max(steps - w, 1),

      p / w + (p - p / w) min(count / max(w - 1, 1), 1)     where count < w
      p decay(min(count - w, d) / d)                        from there on

  where decay(x) is (1 + cos(pi x)) / 2, 1 - x or 1. All of it may be traced, so
  that under `vmap` each row has a schedule that ends with its own steps.
  """
  number = jnp.result_type(float)
  peak = config.learning_rate
  warmup = jnp.minimum(config.warmup_steps, steps)
  # A warm-up from zero would not move at step 0: it starts at peak / warmup.
  first = peak / jnp.maximum(warmup, 1)
  rise = jnp.maximum(warmup - 1, 1)
  rest = jnp.maximum(steps - warmup, 1)
  risen = jnp.clip(count, 0, rise).astype(number)
  done = jnp.clip(count - warmup, 0, rest).astype(number)
  # Times a reciprocal is what XLA makes of a division by a constant: traced
  # steps then give the same bits as steps that are known when compiling.
  rising = (first - peak) * (1 - risen * (1 / rise.astype(number))) + peak
  decay = _DECAYS[config.schedule](done, 1 / rest.astype(number))
  return jnp.where(count < warmup, rising, peak * decay)


_DECAYS: Mapping[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  "cosine": lambda done, step: 0.5 * (1 + jnp.cos(done * (jnp.pi * step))),
  "linear": lambda done, step: 1 - done * step,
  "constant": lambda done, step: jnp.ones_like(done),
}


def build(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
  """AdamW (Loshchilov and Hutter 2019) behind a global-norm clip.

  Its `update` needs the extra argument `steps`: the length of the schedule, a
  number or, for rows, the own steps of the task.
  """
  clip = (
    optax.clip_by_global_norm(config.clip_norm)
    if config.clip_norm
    else optax.identity()
  )
  return optax.chain(
    clip,
    optax.chain(
      optax.scale_by_adam(b1=config.b1, b2=config.b2),
      optax.add_decayed_weights(config.weight_decay),
      _scale_by_schedule(config),
    ),
  )


def build_fixed(
  config: OptimizerConfig, *, steps: int
) -> optax.GradientTransformation:
  """`build` for a group whose schedule is `steps` long."""
  own = build(config)

  def update(
    updates: Tree, state: Tree, params: Tree = None
  ) -> tuple[Tree, Tree]:
    return own.update(updates, state, params, steps=steps)

  return optax.GradientTransformation(own.init, update)


def init_rows(
  optimizer: optax.GradientTransformation, rows: Tree, *, count: int
) -> Tree:
  """The optimizer states of `count` rows, stacked [N, ...]."""
  if not jax.tree.leaves(rows):
    row_state = optimizer.init(rows)
    return jax.tree.map(
      lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), row_state
    )
  return jax.vmap(optimizer.init)(rows)


def update_rows(
  optimizer: optax.GradientTransformationExtraArgs,
  gradients: Tree,
  states: Tree,
  rows: Tree,
  *,
  own: Mapping[str, jax.Array],
) -> tuple[Tree, Tree]:
  """One step of each row [K, ...] by itself -> (rows, states).

  Args:
    own: the extra arguments of the optimizer's `update`, each [K].
  """

  def update(
    gradient: Tree, state: Tree, row: Tree, own: Mapping[str, jax.Array]
  ) -> tuple[Tree, Tree]:
    updates, state = optimizer.update(gradient, state, row, **own)
    return optax.apply_updates(row, updates), state

  return jax.vmap(update)(gradients, states, rows, own)


def updates_done(states: Tree) -> jax.Array:
  """How often each row moved, int32 [N], from `init_rows`'s states."""
  _, (_, _, schedule) = states
  return schedule.count


def _scale_by_schedule(
  config: OptimizerConfig,
) -> optax.GradientTransformationExtraArgs:
  """`optax.scale_by_learning_rate` of a schedule as long as `steps` says."""

  def init(params: Tree) -> optax.ScaleByScheduleState:
    del params
    return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

  def update(
    updates: Tree,
    state: optax.ScaleByScheduleState,
    params: Tree = None,
    *,
    steps: int | jax.Array,
    **others: jax.Array,
  ) -> tuple[Tree, optax.ScaleByScheduleState]:
    del params, others
    scale = -learning_rate(config, state.count, steps)
    scaled = jax.tree.map(lambda leaf: scale.astype(leaf.dtype) * leaf, updates)
    return scaled, optax.ScaleByScheduleState(
      count=optax.safe_increment(state.count)
    )

  return optax.GradientTransformationExtraArgs(init, update)
