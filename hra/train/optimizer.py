"""AdamW per parameter group; for rows, each task is an optimizer of its own.

A group's optimizer is an optax transformation written for one task; `init_rows`
and `update_rows` `vmap` it, so that a row has its own moments, step count,
schedule, decay and clipping, and only the rows of a batch are read or written.
`hra.data.settings.Settings` says how, and is traced: of a batch, each leaf [K].
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from hra.adapters.interface import Tree
from hra.data.settings import SCHEDULES, Settings


def learning_rate(settings: Settings, count: jax.Array) -> jax.Array:
  """The learning rate of update `count` = 0, 1, ... of `settings.steps`.

  With peak p, warm-up w = min(warmup_steps, steps), h the first update after
  hold_steps at the peak, h = min(w + hold_steps, steps), and d = max(steps - h, 1),

      p / w + (p - p / w) min(count / max(w - 1, 1), 1)     where count < w
      p decay(clip(count - h, 0, d) / d)                    from there on

  where decay(x) is (1 + cos(pi x)) / 2, 1 - x, 1 or 100^-x: with that one, ramp,
  hold and decay of SpecAugment (Park et al. 2019, arXiv 1904.08779). All of it may be
  traced, so that under `vmap` each row has a schedule that ends with its own steps.
  """
  number = jnp.result_type(float)
  peak = jnp.asarray(settings.learning_rate, number)
  warmup = jnp.minimum(settings.warmup_steps, settings.steps)
  # A warm-up from zero would not move at step 0: it starts at peak / warmup.
  first = peak / jnp.maximum(warmup, 1)
  rise = jnp.maximum(warmup - 1, 1)
  # Not added up first: both may be as large as an int32.
  held = warmup + jnp.minimum(settings.hold_steps, settings.steps - warmup)
  rest = jnp.maximum(settings.steps - held, 1)
  risen = jnp.clip(count, 0, rise).astype(number)
  done = jnp.clip(count - held, 0, rest).astype(number)
  # Times a reciprocal is what XLA makes of a division by a constant: traced
  # steps then give the same bits as steps that are known when compiling.
  rising = (first - peak) * (1 - risen * (1 / rise.astype(number))) + peak
  part = done * (1 / rest.astype(number))
  decays = jnp.stack([_DECAYS[name](part) for name in SCHEDULES])
  return jnp.where(count < warmup, rising, peak * decays[settings.schedule])


_DECAYS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "constant": jnp.ones_like,
  "cosine": lambda part: 0.5 * (1 + jnp.cos(jnp.pi * part)),
  "linear": lambda part: 1 - part,
  "exponential": lambda part: 100.0**-part,
}


@functools.cache  # equal ones are one, so that jobs can share a compiled step
def build(*, b1: float, b2: float) -> optax.GradientTransformationExtraArgs:
  """AdamW (Loshchilov and Hutter 2019) behind a global-norm clip.

  Its `update` needs the extra argument `settings`, of the group or of one row.
  """
  adam = optax.scale_by_adam(b1=b1, b2=b2)

  def update(
    gradient: Tree,
    state: optax.ScaleByAdamState,
    params: Tree = None,
    *,
    settings: Settings,
  ) -> tuple[Tree, optax.ScaleByAdamState]:
    rate = learning_rate(settings, state.count)
    gradient = _clipped(gradient, settings.clip_norm)
    updates, state = adam.update(gradient, state)

    def scaled(update: jax.Array, param: jax.Array) -> jax.Array:
      decayed = update + _as(settings.weight_decay, param) * param
      return -_as(rate, decayed) * decayed

    return jax.tree.map(scaled, updates, params), state

  return optax.GradientTransformationExtraArgs(adam.init, update)


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
  settings_K: Settings,
) -> tuple[Tree, Tree]:
  """One step of each row [K, ...] by itself -> (rows, states)."""

  def update(
    gradient: Tree, state: Tree, row: Tree, settings: Settings
  ) -> tuple[Tree, Tree]:
    updates, state = optimizer.update(gradient, state, row, settings=settings)
    return optax.apply_updates(row, updates), state

  return jax.vmap(update)(gradients, states, rows, settings_K)


def updates_done(states: Tree) -> jax.Array:
  """How often each row moved, int32 [N], from `init_rows`'s states."""
  return states.count


def _clipped(gradient: Tree, most: jax.Array) -> Tree:
  """The gradient, scaled down to a global norm of `most`; 0 leaves it alone."""
  if not jax.tree.leaves(gradient):
    return gradient
  norm = optax.global_norm(gradient)
  factor = jnp.where((most > 0) & (norm > most), most / norm, 1)
  return jax.tree.map(lambda leaf: leaf * _as(factor, leaf), gradient)


def _as(number: jax.Array, leaf: jax.Array) -> jax.Array:
  return jnp.asarray(number).astype(leaf.dtype)
