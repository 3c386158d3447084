"""Schedules and row optimizers against optax's own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hra.config import OptimizerConfig
from hra.train import optimizer

KINDS = ("constant", "cosine", "linear")


def optax_schedule(config, steps):
  """The same in optax's words, where the number of steps is a constant."""
  peak, warmup = config.learning_rate, min(config.warmup_steps, steps)
  rest = max(steps - warmup, 1)
  decay = {
    "cosine": optax.cosine_decay_schedule(peak, rest),
    "linear": optax.linear_schedule(peak, 0.0, rest),
    "constant": optax.constant_schedule(peak),
  }[config.schedule]
  if not warmup:
    return decay
  rise = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
  return optax.join_schedules([rise, decay], [warmup])


@pytest.mark.parametrize("warmup", [0, 1, 2, 10, 33])
@pytest.mark.parametrize("kind", KINDS)
def test_learning_rate_is_optax_s(kind, warmup):
  config = OptimizerConfig(
    learning_rate=5e-3, schedule=kind, warmup_steps=warmup
  )
  traced = jax.jit(
    jax.vmap(
      lambda count, steps: optimizer.learning_rate(config, count, steps),
      in_axes=(0, None),
    )
  )
  count = np.arange(310, dtype=np.int32)
  for steps in (1, 7, 20, 260, 300):
    rate = traced(count, steps)
    expected = jax.vmap(optax_schedule(config, steps))(count)
    np.testing.assert_allclose(rate, expected, rtol=1e-6, atol=1e-9)
    if warmup < steps:
      assert rate[warmup] == np.float32(config.learning_rate)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_every_schedule_moves_at_its_first_step_and_ends_with_its_last(kind):
  config = OptimizerConfig(learning_rate=1.0, schedule=kind, warmup_steps=10)
  for steps in (1, 5, 10, 11, 40):
    count = jnp.arange(steps + 1)
    rate = optimizer.learning_rate(config, count, steps)
    assert (rate[:steps] > 0).all()
    assert rate[0] == pytest.approx(1 / min(10, steps))
    if steps > 10:
      assert rate[steps] == pytest.approx(0, abs=1e-6)
    else:
      assert rate[steps - 1] == pytest.approx(1)


def test_each_row_is_an_optax_adamw_with_its_own_schedule():
  config = OptimizerConfig(
    learning_rate=0.1, warmup_steps=3, weight_decay=0.01, clip_norm=1.0
  )
  steps_K = (2, 6, 9)
  rng = np.random.default_rng(0)
  rows = jnp.asarray(rng.standard_normal((3, 5)), jnp.float32)
  gradients = rng.standard_normal((9, 3, 5)).astype(np.float32)
  ours = optimizer.build(config)
  states = optimizer.init_rows(ours, rows, count=3)
  together = rows
  for gradient in gradients:
    together, states = optimizer.update_rows(
      ours,
      gradient,
      states,
      together,
      own={"steps": jnp.asarray(steps_K)},
    )
  assert optimizer.updates_done(states).tolist() == [9, 9, 9]
  for k, steps in enumerate(steps_K):
    alone = optax.chain(
      optax.clip_by_global_norm(1.0),
      optax.adamw(optax_schedule(config, steps), weight_decay=0.01),
    )
    row, state = rows[k], alone.init(rows[k])
    for gradient in gradients[:, k]:
      updates, state = alone.update(gradient, state, row)
      row = optax.apply_updates(row, updates)
    np.testing.assert_allclose(together[k], row, rtol=1e-5, atol=1e-6)


def test_a_fixed_schedule_needs_no_argument():
  config = OptimizerConfig(learning_rate=0.1, schedule="linear", clip_norm=0)
  fixed = optimizer.build_fixed(config, steps=2)
  row = jnp.ones(3)
  state = fixed.init(row)
  sizes = []
  for _ in range(3):
    updates, state = fixed.update(jnp.ones(3), state, row)
    sizes.append(float(-updates[0]))
  np.testing.assert_allclose(sizes, [0.1, 0.05, 0], rtol=1e-4, atol=1e-9)


def test_rows_without_numbers_still_count():
  ours = optimizer.build(OptimizerConfig())
  states = optimizer.init_rows(ours, {}, count=4)
  _, after = optimizer.update_rows(
    ours, {}, states, {}, own={"steps": jnp.ones(4, jnp.int32)}
  )
  assert optimizer.updates_done(after).tolist() == [1, 1, 1, 1]
