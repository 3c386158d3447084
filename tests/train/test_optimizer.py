"""Schedules and row optimizers against optax's own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hra.config import OptimizerConfig
from hra.data.settings import of_tasks, settings
from hra.train import optimizer

KINDS = ("constant", "cosine", "linear", "exponential")


def optax_schedule(config, steps):
  """The same in optax's words, where the number of steps is a constant."""
  peak, warmup = config.learning_rate, min(config.warmup_steps, steps)
  hold = min(config.hold_steps, steps - warmup)
  rest = max(steps - warmup - hold, 1)
  decay = {
    "cosine": optax.cosine_decay_schedule(peak, rest),
    "linear": optax.linear_schedule(peak, 0.0, rest),
    "constant": optax.constant_schedule(peak),
    "exponential": optax.exponential_decay(
      peak, rest, 0.01, end_value=peak / 100
    ),
  }[config.schedule]
  if hold:
    decay = optax.join_schedules([optax.constant_schedule(peak), decay], [hold])
  if not warmup:
    return decay
  rise = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
  return optax.join_schedules([rise, decay], [warmup])


@pytest.mark.parametrize("hold", [0, 12, 2**31 - 1])
@pytest.mark.parametrize("warmup", [0, 1, 2, 10, 33])
@pytest.mark.parametrize("kind", KINDS)
def test_learning_rate_is_optax_s(kind, warmup, hold):
  config = OptimizerConfig(
    learning_rate=5e-3, schedule=kind, warmup_steps=warmup, hold_steps=hold
  )
  traced = jax.jit(
    jax.vmap(
      lambda count, steps: optimizer.learning_rate(
        settings(config, steps=0)._replace(steps=steps), count
      ),
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
    rate = optimizer.learning_rate(settings(config, steps=steps), count)
    assert (rate[:steps] > 0).all()
    assert rate[0] == pytest.approx(1 / min(10, steps))
    if steps > 10:
      assert rate[steps] == pytest.approx(0, abs=1e-6)
    else:
      assert rate[steps - 1] == pytest.approx(1)


def test_ramp_hold_and_decay_of_the_las_schedule():
  """(s_r, s_i, s_f) = (1, 140, 320), in thousands of steps (Park et al. 2019)."""
  config = OptimizerConfig(
    learning_rate=1e-3,
    schedule="exponential",
    warmup_steps=1_000,
    hold_steps=139_000,
  )
  told = settings(config, steps=320_000)
  count = np.array([0, 499, 1_000, 139_999, 140_000, 230_000, 320_000, 400_000])
  rate = jax.vmap(lambda count: optimizer.learning_rate(told, count))(count)
  parts = np.array([1e-3, 0.5, 1, 1, 1, 0.1, 0.01, 0.01])
  np.testing.assert_allclose(rate, 1e-3 * parts, rtol=1e-3)


OWN = (
  OptimizerConfig(learning_rate=0.1, warmup_steps=3, weight_decay=0.01),
  OptimizerConfig(learning_rate=0.02, schedule="linear", clip_norm=0.3),
  OptimizerConfig(
    learning_rate=0.05, schedule="constant", weight_decay=0.2, clip_norm=0
  ),
)


def test_each_row_is_an_optax_adamw_of_its_own():
  """Own rate, schedule, warm-up, steps, decay and clipping, in one program."""
  steps_K = (2, 6, 9)
  rng = np.random.default_rng(0)
  rows = jnp.asarray(rng.standard_normal((3, 5)), jnp.float32)
  gradients = rng.standard_normal((9, 3, 5)).astype(np.float32)
  ours = optimizer.build(b1=0.9, b2=0.999)
  states = optimizer.init_rows(ours, rows, count=3)
  each = [settings(own, steps=n) for own, n in zip(OWN, steps_K, strict=True)]
  settings_K = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
  update = jax.jit(
    lambda gradient, states, rows: optimizer.update_rows(
      ours, gradient, states, rows, settings_K=settings_K
    )
  )
  together = rows
  for gradient in gradients:
    together, states = update(gradient, states, together)
  assert optimizer.updates_done(states).tolist() == [9, 9, 9]
  for k, (config, steps) in enumerate(zip(OWN, steps_K, strict=True)):
    alone = optax.chain(
      optax.clip_by_global_norm(config.clip_norm or jnp.inf),
      optax.adamw(
        optax_schedule(config, steps), weight_decay=config.weight_decay
      ),
    )
    row, state = rows[k], alone.init(rows[k])
    for gradient in gradients[:, k]:
      updates, state = alone.update(gradient, state, row)
      row = optax.apply_updates(row, updates)
    np.testing.assert_allclose(together[k], row, rtol=1e-5, atol=1e-6)


def test_rows_without_numbers_still_count():
  ours = optimizer.build(b1=0.9, b2=0.999)
  states = optimizer.init_rows(ours, {}, count=4)
  four = of_tasks("abcd", OptimizerConfig(), steps_N=[1] * 4, given={})
  _, after = optimizer.update_rows(ours, {}, states, {}, settings_K=four)
  assert optimizer.updates_done(after).tolist() == [1, 1, 1, 1]
