"""Long short-term memory along time (Hochreiter and Schmidhuber 1997).

In: frames of one utterance, or one frame at a time with the state before it. Out:
hidden states. With forget gates (Gers et al. 2000) that start open,

    i, f, g, o = x W + h R + b
    c <- sigmoid(f + 1) c + sigmoid(i) tanh(g)        h <- sigmoid(o) tanh(c)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from hra.nn.tap import Tap, no_tap
from hra.nn.types import Types


class LstmState(NamedTuple):
  """After a frame."""

  cell_H: jax.Array
  """In at least float32."""
  hidden_H: jax.Array
  """What the layer says of the frame."""


class Lstm(nnx.Module):
  """One layer in one direction, [T, D] -> [T, H]."""

  def __init__(self, inputs: int, width: int, *, types: Types, rngs: nnx.Rngs):
    self.width = width
    self.dtype = types["dtype"]
    self.input = nnx.Linear(inputs, 4 * width, rngs=rngs, **types)
    self.recurrent = nnx.Linear(
      width,
      4 * width,
      use_bias=False,
      kernel_init=nnx.initializers.orthogonal(),
      rngs=rngs,
      **types,
    )

  def start(self) -> LstmState:
    """The state before anything is heard."""
    dtype = jnp.dtype(self.dtype)
    exact = jnp.promote_types(dtype, jnp.float32)
    return LstmState(jnp.zeros(self.width, exact), jnp.zeros(self.width, dtype))

  def step(self, state: LstmState, input_D: jax.Array) -> LstmState:
    """The state after one more input."""
    return self._advanced(state, self.input(input_D), site="", tap=no_tap)

  def __call__(
    self,
    input_TD: jax.Array,
    valid_T: jax.Array | None = None,
    *,
    reverse: bool = False,
    site: str = "",
    tap: Tap = no_tap,
  ) -> jax.Array:
    """All frames: what enters is projected at once, outside the recurrence.

    Args:
      valid_T: frames that are speech, at the beginning of T; the others don't
        change the state, so that `reverse` begins at the last that is.
    """
    gates_TG = tap(f"{site}.input", input_TD, self.input(input_TD))
    if valid_T is None:
      valid_T = jnp.ones(len(input_TD), bool)

    def body(
      state: LstmState, scanned: tuple[jax.Array, jax.Array]
    ) -> tuple[LstmState, jax.Array]:
      gates_G, valid = scanned
      after = self._advanced(state, gates_G, site=site, tap=tap)
      after = jax.tree.map(
        lambda new, old: jnp.where(valid, new, old), after, state
      )
      return after, after.hidden_H

    start = self.start()
    _, hidden_TH = jax.lax.scan(
      body, start, (gates_TG, valid_T), reverse=reverse
    )
    return hidden_TH

  def _advanced(
    self, state: LstmState, gates_G: jax.Array, *, site: str, tap: Tap
  ) -> LstmState:
    recurrent_G = self.recurrent(state.hidden_H)
    recurrent_G = tap(f"{site}.recurrent", state.hidden_H, recurrent_G)
    exact = state.cell_H.dtype
    gates_G = gates_G.astype(exact) + recurrent_G.astype(exact)
    enter, keep, new, leave = jnp.split(gates_G, 4)
    cell_H = jax.nn.sigmoid(keep + 1) * state.cell_H
    cell_H += jax.nn.sigmoid(enter) * jnp.tanh(new)
    hidden_H = jax.nn.sigmoid(leave) * jnp.tanh(cell_H)
    return LstmState(cell_H, hidden_H.astype(state.hidden_H.dtype))


class LstmStack(nnx.Module):
  """Layers one above the other, one input at a time: a decoder's memory."""

  def __init__(
    self,
    inputs: int,
    width: int,
    *,
    layers: int,
    types: Types,
    rngs: nnx.Rngs,
  ):
    self.layers = nnx.List(
      Lstm(width if layer else inputs, width, types=types, rngs=rngs)
      for layer in range(layers)
    )

  def start(self) -> tuple[LstmState, ...]:
    return tuple(layer.start() for layer in self.layers)

  def step(
    self, states: tuple[LstmState, ...], input_D: jax.Array
  ) -> tuple[LstmState, ...]:
    """The states after one more input; the last one's hidden_H is what it says."""
    after = []
    for layer, state in zip(self.layers, states, strict=True):
      state = layer.step(state, input_D)
      after.append(state)
      input_D = state.hidden_H
    return tuple(after)

  def __call__(self, input_TD: jax.Array) -> jax.Array:
    """All inputs at once, [T, D] -> [T, H]."""
    for layer in self.layers:
      input_TD = layer(input_TD)
    return input_TD
