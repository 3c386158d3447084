"""Hierarchical Recurrent Adapters against an explicit loop; sizes; the identity."""

import adapted
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hra.adapters import table
from hra.adapters.hierarchical import HierarchicalRecurrent

DEPTH, FRAMES, WIDTH, CONTROLLER, INNER = 3, 4, 6, 5, 3
VARIANTS = [
  (head, heads)
  for head in ("linear", "feed_forward")
  for heads in ("personal", "shared", "both")
]
CONTROLLERS = [
  (controller, controllers)
  for controller in ("indrnn", "gru", "none")
  for controllers in ("shared", "per_layer")
]


def _adapter(
  head="linear",
  heads="personal",
  controller="indrnn",
  controllers="shared",
  param_dtype="float64",
):
  return HierarchicalRecurrent(
    width=WIDTH,
    layers=DEPTH,
    controller_width=CONTROLLER,
    controller=controller,
    controllers=controllers,
    head=head,
    head_width=INNER,
    heads=heads,
    param_dtype=param_dtype,
  )


def _random(shapes, seed):
  """Every number random, also those that start at zero."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), shapes)


def _trees(adapter):
  key = jax.random.key(0)
  shared = _random(jax.eval_shape(adapter.init_shared, key), 1)
  row = _random(jax.eval_shape(adapter.init_task, key), 2)
  return shared, row


def _layer(l, hidden_TD):
  """A stand-in for the l-th frozen layer: mixes frames and channels."""
  rng = np.random.default_rng([3, l])
  channels = rng.standard_normal((WIDTH, WIDTH))
  frames = rng.standard_normal((FRAMES, FRAMES)) / FRAMES
  return np.tanh(frames @ np.asarray(hidden_TD) @ channels)


def _head(head, state_H):
  if "hidden" in head:
    inner = state_H @ head["hidden"]["kernel"] + head["hidden"]["bias"]
    state_H = np.maximum(inner, 0)
  return state_H @ head["output"]["kernel"] + head["output"]["bias"]


def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


def _next(kind, controller, x_D, state_H):
  """The controller's equation, one frame at a layer."""
  inputs = x_D @ controller["kernel"] + controller["bias"]
  if kind == "none":
    return np.maximum(inputs, 0)
  if kind == "indrnn":
    return np.maximum(inputs + controller["recurrence"] * state_H, 0)
  reset_in, keep_in, new_in = np.split(inputs, 3)
  reset_U, keep_U, new_U = np.split(controller["recurrence"], 3, axis=1)
  reset = _sigmoid(reset_in + state_H @ reset_U)
  keep = _sigmoid(keep_in + state_H @ keep_U)
  new = np.tanh(
    new_in + reset * (state_H @ new_U + controller["candidate_bias"])
  )
  return (1 - keep) * new + keep * state_H


def _loop(adapter, shared, row, hidden_TD):
  """h_l = controller(x, h); x <- x + head(h): layer by layer, frame by frame."""
  state = [np.zeros(CONTROLLER) for _ in range(FRAMES)]
  for l in range(DEPTH):
    hidden_TD = _layer(l, hidden_TD)
    controller = adapted.at_layer(shared)(l)
    if adapter.controllers == "per_layer":
      controller = controller["layers"]
    for t in range(FRAMES):
      state[t] = _next(
        adapter.controller, controller["controller"], hidden_TD[t], state[t]
      )
      update = np.zeros(WIDTH)
      for owner in (shared, row):
        if "head" in owner:
          update += _head(owner["head"], state[t])
      hidden_TD[t] += update
  return hidden_TD, np.stack(state)


def _check_against_the_loop(adapter):
  shared, row = _trees(adapter)
  start_TD = np.random.default_rng(4).standard_normal((FRAMES, WIDTH))
  hidden_TD = jnp.asarray(start_TD)
  carry = adapter.init_carry(hidden_TD)
  for l in range(DEPTH):
    hidden_TD = jnp.asarray(_layer(l, hidden_TD))
    carry, hidden_TD = adapter.after_layer(
      adapted.at_layer(shared)(l), row, jnp.array(l), carry, hidden_TD
    )
  expected_TD, expected_TH = _loop(adapter, shared, row, start_TD)
  np.testing.assert_allclose(hidden_TD, expected_TD, rtol=1e-12, atol=1e-12)
  if adapter.controller == "none":
    assert carry == ()
  else:
    np.testing.assert_allclose(carry, expected_TH, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("head", "heads"), VARIANTS)
def test_equals_the_loop_over_layers_and_frames(float64, head, heads):
  _check_against_the_loop(_adapter(head, heads))


@pytest.mark.parametrize(("controller", "controllers"), CONTROLLERS)
def test_controllers_equal_the_loop(float64, controller, controllers):
  _check_against_the_loop(
    _adapter(controller=controller, controllers=controllers)
  )


def test_gru_is_flax_s(float64):
  """The cell of `flax.nnx`, given the same numbers."""
  adapter = _adapter(controller="gru")
  shared, row = _trees(adapter)
  controller = shared["controller"]
  cell = nnx.GRUCell(
    WIDTH, CONTROLLER, rngs=nnx.Rngs(0), param_dtype=jnp.float64
  )
  cell.dense_i.kernel[...] = jnp.asarray(controller["kernel"])
  cell.dense_i.bias[...] = jnp.asarray(controller["bias"])
  reset_U, keep_U, new_U = np.split(controller["recurrence"], 3, axis=1)
  cell.dense_h.kernel[...] = jnp.concatenate([reset_U, keep_U, new_U], axis=1)
  rng = np.random.default_rng(5)
  hidden_TD = rng.standard_normal((FRAMES, WIDTH))
  state_TH = jnp.asarray(rng.standard_normal((FRAMES, CONTROLLER)))
  controller["candidate_bias"][:] = 0  # which this cell does not have
  ours, _ = adapter.after_layer(
    shared, row, jnp.array(0), state_TH, jnp.asarray(hidden_TD)
  )
  theirs, _ = cell(state_TH, hidden_TD)
  np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_controller_of_each_layer_starts_different():
  adapter = _adapter(
    controller="gru", controllers="per_layer", param_dtype="float32"
  )
  controller = adapter.init_shared(jax.random.key(0))["layers"]["controller"]
  for name in ("kernel", "recurrence"):
    assert np.abs(controller[name][0] - controller[name][1]).max() > 0.01
  for gate in np.split(np.asarray(controller["recurrence"][0]), 3, axis=1):
    np.testing.assert_allclose(gate @ gate.T, np.eye(CONTROLLER), atol=1e-6)


def test_recurrence_carries_the_first_layer_to_the_second(float64):
  adapter = _adapter()
  shared, row = _trees(adapter)
  hidden_TD = jnp.asarray(_layer(0, np.ones((FRAMES, WIDTH))))

  def second(shared, state_TH):
    return adapter.after_layer(shared, row, jnp.array(1), state_TH, hidden_TD)[
      1
    ]

  state_TH, _ = adapter.after_layer(
    shared, row, jnp.array(0), adapter.init_carry(hidden_TD), hidden_TD
  )
  # Perturbing frame 2 of the state moves frame 2 of the output, and no other.
  perturbed_TH = state_TH.at[2].add(1.0)
  moved = np.any(
    second(shared, state_TH) != second(shared, perturbed_TH), axis=1
  )
  assert moved.tolist() == [False, False, True, False]
  # It's the recurrence that does it: without u, nothing moves.
  controller = shared["controller"]
  without = {
    **shared,
    "controller": {**controller, "recurrence": np.zeros(CONTROLLER)},
  }
  np.testing.assert_array_equal(
    second(without, state_TH), second(without, perturbed_TH)
  )


@pytest.mark.parametrize(("head", "heads"), VARIANTS)
def test_sizes_of_heads(head, heads):
  shared, row = _sizes(_adapter(head, heads, param_dtype="float32"))
  controller = WIDTH * CONTROLLER + 2 * CONTROLLER
  one_head = {
    "linear": CONTROLLER * WIDTH + WIDTH,
    "feed_forward": CONTROLLER * INNER + INNER + INNER * WIDTH + WIDTH,
  }[head]
  assert shared == controller + (heads != "personal") * one_head
  assert row == (heads != "shared") * one_head


@pytest.mark.parametrize(("controller", "controllers"), CONTROLLERS)
def test_sizes_of_controllers(controller, controllers):
  adapter = _adapter(
    controller=controller, controllers=controllers, param_dtype="float32"
  )
  shared, _ = _sizes(adapter)
  inputs = WIDTH * CONTROLLER
  one = {
    "indrnn": inputs + 2 * CONTROLLER,
    "gru": 3 * inputs + 3 * CONTROLLER**2 + 4 * CONTROLLER,
    "none": inputs + CONTROLLER,
  }[controller]
  assert shared == one * (DEPTH if controllers == "per_layer" else 1)


def _sizes(adapter):
  """Numbers of the shared parameters, and of a row."""
  key = jax.random.key(0)
  return (
    table.count(jax.eval_shape(adapter.init_shared, key)),
    table.count(jax.eval_shape(adapter.init_task, key)),
  )


def test_smallest_model_of_the_paper():
  """2dh + 2h + d at d = 1536, h = 256: the paper's 0.8M parameters."""
  adapter = HierarchicalRecurrent(width=1536, layers=32, controller_width=256)
  key = jax.random.key(0)
  shapes = jax.eval_shape(
    lambda: (adapter.init_shared(key), adapter.init_task(key))
  )
  assert table.count(shapes) == 788_480


def test_state_and_sums_are_float32_on_a_bfloat16_stream():
  """A sum of 301 ones: bfloat16 has 300 and 302, and nothing between."""
  adapter = HierarchicalRecurrent(width=301, layers=2, controller_width=2)
  shared = jax.tree.map(
    lambda leaf: jnp.ones(leaf.shape, leaf.dtype),
    jax.eval_shape(adapter.init_shared, jax.random.key(0)),
  )
  shared["controller"]["bias"] *= 0.25
  row = adapter.init_task(jax.random.key(0))
  hidden_TD = jnp.ones((FRAMES, 301), jnp.bfloat16)
  carry = adapter.init_carry(hidden_TD)
  for total in (301.25, 602.5):
    carry, hidden_TD = adapter.after_layer(
      shared, row, jnp.array(0), carry, hidden_TD
    )
    assert carry.dtype == jnp.float32
    assert hidden_TD.dtype == jnp.bfloat16
    np.testing.assert_array_equal(carry, np.full((FRAMES, 2), total))
