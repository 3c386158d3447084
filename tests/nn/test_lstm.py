"""The LSTM against flax's cell, frame by frame."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hra.nn.lstm import Lstm, LstmStack
from hra.nn.types import Types

FRAMES, INPUTS, WIDTH = 7, 3, 4
TYPES = Types(dtype=jnp.float64, param_dtype=jnp.float64)


def _lstm(types=TYPES):
  return Lstm(INPUTS, WIDTH, types=types, rngs=nnx.Rngs(0))


def _inputs(seed=0):
  return np.random.default_rng(seed).standard_normal((FRAMES, INPUTS))


def _by_flax(lstm, inputs_TD):
  """Hidden states [T, H] of flax's cell with our weights, forget gates opened."""
  cell = nnx.OptimizedLSTMCell(
    INPUTS,
    WIDTH,
    dtype=jnp.float64,
    param_dtype=jnp.float64,
    rngs=nnx.Rngs(1),
  )
  opened = np.repeat([0.0, 1.0, 0.0, 0.0], WIDTH)
  cell.dense_i.kernel[...] = lstm.input.kernel[...]
  cell.dense_h.kernel[...] = lstm.recurrent.kernel[...]
  cell.dense_h.bias[...] = lstm.input.bias[...] + opened
  carry = (np.zeros(WIDTH), np.zeros(WIDTH))
  hidden = []
  for input_D in inputs_TD:
    carry, hidden_H = cell(carry, input_D)
    hidden.append(hidden_H)
  return np.stack(hidden)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 4, FRAMES])
def test_all_frames_are_as_flax_has_them(float64, length, reverse):
  """Backwards it begins at the last frame that is speech, whatever follows."""
  lstm, inputs_TD = _lstm(), _inputs()
  lstm.input.bias[...] = np.random.default_rng(2).standard_normal(4 * WIDTH)
  spoken_TD = inputs_TD[:length]
  inputs_TD[length:] = 1e3
  found_TH = lstm(inputs_TD, np.arange(FRAMES) < length, reverse=reverse)
  step = -1 if reverse else 1
  expected_TH = _by_flax(lstm, spoken_TD[::step])[::step]
  np.testing.assert_allclose(found_TH[:length], expected_TH, rtol=1e-12)


def test_steps_of_a_stack_are_its_whole(float64):
  stack = LstmStack(INPUTS, WIDTH, layers=2, types=TYPES, rngs=nnx.Rngs(0))
  inputs_TD = _inputs()
  whole_TH = stack(inputs_TD)
  states = stack.start()
  for input_D, expected_H in zip(inputs_TD, whole_TH, strict=True):
    states = stack.step(states, input_D)
    np.testing.assert_allclose(states[-1].hidden_H, expected_H, rtol=1e-12)
  assert len(states) == 2


def test_taps_hear_of_both_projections():
  types = Types(dtype=jnp.float32, param_dtype=jnp.float32)
  lstm, inputs_TD = _lstm(types), np.float32(_inputs())
  plain_TH = lstm(inputs_TD)
  heard = {}

  def tap(site, inputs, outputs):
    heard[site] = inputs.shape, outputs.shape
    return outputs

  same_TH = lstm(inputs_TD, site="forward", tap=tap)
  np.testing.assert_array_equal(plain_TH, same_TH)
  assert heard == {
    "forward.input": ((FRAMES, INPUTS), (FRAMES, 4 * WIDTH)),
    "forward.recurrent": ((WIDTH,), (4 * WIDTH,)),
  }
  for site in heard:

    def moved(at, inputs, outputs, site=site):
      return outputs + (at == site)

    other_TH = lstm(inputs_TD, site="forward", tap=moved)
    # The first frame has no state before it, but the recurrent bias is there.
    assert (np.abs(other_TH - plain_TH) > 1e-4).all()


def test_bfloat16_keeps_its_cells_in_float32():
  half = Types(dtype=jnp.bfloat16, param_dtype=jnp.float32)
  start = _lstm(half).start()
  after = _lstm(half).step(start, jnp.ones(INPUTS, jnp.bfloat16))
  for state in (start, after):
    assert state.cell_H.dtype == jnp.float32
    assert state.hidden_H.dtype == jnp.bfloat16


def test_gradients_through_padding_are_finite_and_none():
  types = Types(dtype=jnp.float32, param_dtype=jnp.float32)
  lstm = _lstm(types)

  @jax.jit
  @functools.partial(jax.grad, argnums=0)
  def gradient(inputs_TD):
    valid_T = jnp.arange(FRAMES) < 4
    hidden_TH = lstm(inputs_TD, valid_T, reverse=True)
    return jnp.where(valid_T[:, None], hidden_TH, 0).sum()

  found_TD = np.asarray(gradient(np.float32(_inputs())))
  assert (found_TD[:4] != 0).all()
  assert (found_TD[4:] == 0).all()
