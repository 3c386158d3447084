"""Hierarchical Recurrent Adapters against an explicit loop; sizes; the identity."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hra.adapters import table
from hra.adapters.hierarchical import HierarchicalRecurrent
from hra.config import AdapterConfig

DEPTH, FRAMES, WIDTH, CONTROLLER, INNER = 3, 4, 6, 5, 3
VARIANTS = [
  (head, heads)
  for head in ("linear", "feed_forward")
  for heads in ("personal", "shared", "both")
]


def _adapter(head="linear", heads="personal", param_dtype="float64"):
  return HierarchicalRecurrent(
    width=WIDTH,
    controller=CONTROLLER,
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


def _loop(shared, row, hidden_TD):
  """h_l = relu(W x + u * h + b); x <- x + head(h): layer by layer, frame by frame."""
  controller = shared["controller"]
  state = [np.zeros(CONTROLLER) for _ in range(FRAMES)]
  for l in range(DEPTH):
    hidden_TD = _layer(l, hidden_TD)
    for t in range(FRAMES):
      state[t] = np.maximum(
        hidden_TD[t] @ controller["kernel"]
        + controller["recurrence"] * state[t]
        + controller["bias"],
        0,
      )
      update = np.zeros(WIDTH)
      for owner in (shared, row):
        if "head" in owner:
          update += _head(owner["head"], state[t])
      hidden_TD[t] += update
  return hidden_TD, np.stack(state)


@pytest.mark.parametrize(("head", "heads"), VARIANTS)
def test_equals_the_loop_over_layers_and_frames(float64, head, heads):
  adapter = _adapter(head, heads)
  shared, row = _trees(adapter)
  start_TD = np.random.default_rng(4).standard_normal((FRAMES, WIDTH))
  hidden_TD = jnp.asarray(start_TD)
  carry = adapter.init_carry(hidden_TD)
  for l in range(DEPTH):
    hidden_TD = jnp.asarray(_layer(l, hidden_TD))
    carry, hidden_TD = adapter.after_layer(
      shared, row, jnp.array(l), carry, hidden_TD
    )
  expected_TD, expected_TH = _loop(shared, row, start_TD)
  np.testing.assert_allclose(hidden_TD, expected_TD, rtol=1e-12, atol=1e-12)
  np.testing.assert_allclose(carry, expected_TH, rtol=1e-12, atol=1e-12)


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
def test_sizes(head, heads):
  adapter = _adapter(head, heads, param_dtype="float32")
  key = jax.random.key(0)
  shared = table.count(jax.eval_shape(adapter.init_shared, key))
  row = table.count(jax.eval_shape(adapter.init_task, key))
  controller = WIDTH * CONTROLLER + 2 * CONTROLLER
  one_head = {
    "linear": CONTROLLER * WIDTH + WIDTH,
    "feed_forward": CONTROLLER * INNER + INNER + INNER * WIDTH + WIDTH,
  }[head]
  assert shared == controller + (heads != "personal") * one_head
  assert row == (heads != "shared") * one_head


def test_smallest_model_of_the_paper():
  """2dh + 2h + d at d = 1536, h = 256: the paper's 0.8M parameters."""
  adapter = HierarchicalRecurrent(width=1536, controller=256)
  key = jax.random.key(0)
  shapes = jax.eval_shape(
    lambda: (adapter.init_shared(key), adapter.init_task(key))
  )
  assert table.count(shapes) == 788_480


@functools.partial(jax.jit, static_argnums=0)
def _logits(model, backbone, shared, row, mel_TF, length):
  return model.encode(backbone, shared, row, mel_TF, length).logits_TV


@pytest.fixture(scope="module")
def bare():
  """Backbone, mel_TF, its logits."""
  backbone = tiny.backbone()
  rng = np.random.default_rng(0)
  mel_TF = rng.standard_normal((24, 16)).astype(np.float32)
  model = tiny.model(AdapterConfig(family="none"))
  return backbone, mel_TF, _logits(model, backbone, {}, {}, mel_TF, 20)


@pytest.mark.parametrize(
  ("head", "heads"),
  [
    ("linear", "personal"),
    ("feed_forward", "shared"),
    ("feed_forward", "both"),
  ],
)
def test_fresh_row_is_the_backbone_bit_for_bit(bare, head, heads):
  backbone, mel_TF, expected = bare
  config = AdapterConfig(width=8, head=head, head_width=4, heads=heads)
  model = tiny.model(config)
  shared = model.adapter.init_shared(jax.random.key(1))
  row = model.adapter.init_task(jax.random.key(2))
  # A controller far from its start, and no bias at zero.
  shared["controller"] = _random(shared["controller"], 5)
  logits = _logits(model, backbone, shared, row, mel_TF, 20)
  np.testing.assert_array_equal(logits, expected)
  # Not because the adapter is never run.
  owner = shared if heads == "shared" else row
  owner["head"]["output"]["bias"] += 1.0
  changed = _logits(model, backbone, shared, row, mel_TF, 20)
  assert np.abs(changed - expected).max() > 1e-3


def test_state_and_sums_are_float32_on_a_bfloat16_stream():
  """A sum of 301 ones: bfloat16 has 300 and 302, and nothing between."""
  adapter = HierarchicalRecurrent(width=301, controller=2)
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
