"""AdamW per parameter group; for rows, each task is an optimizer of its own.

A group's optimizer is an optax transformation written for one task; `init_rows`
and `update_rows` `vmap` it, so that a row has its own moments, step count,
schedule and clipping, and only the rows of a batch are read or written.
"""

import jax
import jax.numpy as jnp
import optax

from hra.adapters.interface import Tree
from hra.config import OptimizerConfig


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
  """The learning rate at a step: linear warm-up, then the decay to zero."""
  peak, warmup = config.learning_rate, config.warmup_steps
  rest = max(steps - warmup, 1)
  if config.schedule == "cosine":
    decay = optax.cosine_decay_schedule(peak, rest)
  elif config.schedule == "linear":
    decay = optax.linear_schedule(peak, 0.0, rest)
  else:
    decay = optax.constant_schedule(peak)
  if not warmup:
    return decay
  # Step 0 of a warm-up from zero would not move: start at peak / warmup.
  rise = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
  return optax.join_schedules([rise, decay], [warmup])


def build(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
  """AdamW (Loshchilov and Hutter 2019) behind a global-norm clip."""
  clip = (
    optax.clip_by_global_norm(config.clip_norm)
    if config.clip_norm
    else optax.identity()
  )
  return optax.chain(
    clip,
    optax.adamw(
      schedule(config, steps),
      b1=config.b1,
      b2=config.b2,
      weight_decay=config.weight_decay,
    ),
  )


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
  optimizer: optax.GradientTransformation,
  gradients: Tree,
  states: Tree,
  rows: Tree,
) -> tuple[Tree, Tree]:
  """One step of each row [K, ...] by itself -> (rows, states)."""

  def update(gradient: Tree, state: Tree, row: Tree) -> tuple[Tree, Tree]:
    updates, state = optimizer.update(gradient, state, row)
    return optax.apply_updates(row, updates), state

  return jax.vmap(update)(gradients, states, rows)
