"""Residual adapters against an explicit loop; how they start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hra.adapters.residual import Residual

DEPTH, FRAMES, WIDTH, BOTTLENECK = 3, 4, 6, 5


def _adapter(norm="frozen", param_dtype="float64"):
  return Residual(
    width=WIDTH,
    layers=DEPTH,
    bottleneck=BOTTLENECK,
    norm=norm,
    param_dtype=param_dtype,
  )


def _random_row(adapter):
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape),
    jax.eval_shape(adapter.init_task, jax.random.key(0)),
  )


def _layer(l, hidden_TD):
  """A stand-in for the l-th frozen layer."""
  rng = np.random.default_rng([3, l])
  return np.tanh(np.asarray(hidden_TD) @ rng.standard_normal((WIDTH, WIDTH)))


def _loop(row, hidden_TD):
  """x + up(relu(down(norm(x)))): layer by layer, frame by frame."""
  own = row["layers"]
  for l in range(DEPTH):
    hidden_TD = _layer(l, hidden_TD)
    for t, x in enumerate(hidden_TD):
      normed = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
      if "norm" in own:
        normed = normed * own["norm"]["scale"][l] + own["norm"]["bias"][l]
      inner = normed @ own["down"]["kernel"][l] + own["down"]["bias"][l]
      outer = np.maximum(inner, 0) @ own["up"]["kernel"][l]
      hidden_TD[t] = x + outer + own["up"]["bias"][l]
  return hidden_TD


@pytest.mark.parametrize("norm", ["frozen", "per_task"])
def test_equals_the_loop_over_layers_and_frames(float64, norm):
  adapter = _adapter(norm)
  row = _random_row(adapter)
  start_TD = np.random.default_rng(4).standard_normal((FRAMES, WIDTH))
  hidden_TD = jnp.asarray(start_TD)
  for l in range(DEPTH):
    own = jax.tree.map(lambda leaf, l=l: leaf[l], row)
    hidden_TD = jnp.asarray(_layer(l, hidden_TD))
    _, hidden_TD = adapter.after_layer({}, own, jnp.array(l), (), hidden_TD)
  np.testing.assert_allclose(
    hidden_TD, _loop(row, start_TD), rtol=1e-12, atol=1e-12
  )


def test_starts_with_a_random_way_down_and_none_up():
  row = Residual(
    width=400, layers=DEPTH, bottleneck=50, norm="per_task"
  ).init_task(jax.random.key(0))["layers"]
  kernel = np.asarray(row["down"]["kernel"])
  assert kernel.std() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
  assert np.abs(kernel[0] - kernel[1]).max() > 0.01
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(row["up"]))
  np.testing.assert_array_equal(row["norm"]["scale"], 1)
  np.testing.assert_array_equal(row["norm"]["bias"], 0)


def test_the_norms_statistics_are_float32_on_a_bfloat16_stream():
  """The mean of 256 and 258 is 257, which no bfloat16 is."""
  row = {
    "down": {"kernel": np.eye(2, dtype=np.float32), "bias": np.zeros(2)},
    "up": {"kernel": 4 * np.eye(2, dtype=np.float32), "bias": np.zeros(2)},
  }
  adapter = Residual(width=2, layers=1, bottleneck=2)
  hidden_TD = jnp.array([[256.0, 258.0]], jnp.bfloat16)
  _, adapted_TD = adapter.after_layer(
    {}, {"layers": row}, jnp.array(0), (), hidden_TD
  )
  assert adapted_TD.dtype == jnp.bfloat16
  # Standardised they are -1 and 1; relu leaves the second, times 4.
  np.testing.assert_array_equal(adapted_TD, [[256.0, 262.0]])
