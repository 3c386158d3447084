"""Hierarchical Recurrent Adapters (Munkhdalai et al. 2024, arXiv 2403.19709).

A controller, shared by all tasks, recurs over depth for each frame by itself; one
head, reused at every layer, writes into the residual stream (section 3):

    h_l = controller(x_l, h_{l-1})         h_0 = 0
    x_l <- x_l + head(h_l)

The controller is one for all layers (the paper), or one for each; either way its
state flows over depth (and what the first layer's recurrence multiplies is zero):

    indrnn   h_l = relu(W x_l + u * h_{l-1} + b)                Li et al. 2018
    gru      r = sigmoid(W_r x_l + b_r + U_r h_{l-1})           Cho et al. 2014,
             z = sigmoid(W_z x_l + b_z + U_z h_{l-1})           in the form of
             n = tanh(W_n x_l + b_n + r * (U_n h_{l-1} + c))    Flax's GRUCell
             h_l = (1 - z) * n + z * h_{l-1}
    none     h_l = relu(W x_l + b)

A head is M h + c (linear) or M2 relu(M1 h + c1) + c2 (feed-forward). Its last
matrix and bias start at zero, so a fresh row adds nothing; a head that all tasks
share acts on it once that is trained. Of D residual channels and a state of H, the
IndRNN costs D H + 2 H numbers, the GRU 3 D H + 3 H^2 + 4 H, no recurrence D H + H,
and a personal linear head H D + D.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from hra.adapters.interface import Frozen, Tree
from hra.nn.affine import affine, product

Controller = Literal["indrnn", "gru", "none"]
Controllers = Literal["shared", "per_layer"]
Head = Literal["linear", "feed_forward"]
Heads = Literal["personal", "shared", "both"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HierarchicalRecurrent(Frozen):
  """HRA for `layers` layers of a residual stream of `width`.

  `heads` says who owns them: each task (`personal`), all tasks together
  (`shared`, the control that knows no speaker), or `both`, summed.
  """

  width: int
  layers: int
  controller_width: int
  controller: Controller = "indrnn"
  controllers: Controllers = "shared"
  head: Head = "linear"
  head_width: int = 64
  heads: Heads = "personal"
  param_dtype: str = "float32"

  def init_shared(self, key: jax.Array) -> Tree:
    """W ~ N(0, 1/D), biases 0, u ~ U(0, 1) (IndRNN: section 4), U orthogonal."""
    key_input, key_recurrence, key_head = jax.random.split(key, 3)
    if self.controllers == "shared":
      controller = self._init_controller(key_input, key_recurrence)
      shared = {"controller": controller}
    else:
      controller_L = jax.vmap(self._init_controller)(
        jax.random.split(key_input, self.layers),
        jax.random.split(key_recurrence, self.layers),
      )
      shared = {"layers": {"controller": controller_L}}
    if self.heads != "personal":
      shared["head"] = self._init_head(key_head)
    return shared

  def init_task(self, key: jax.Array) -> Tree:
    """A head of one's own that writes zeros; nothing with `heads` "shared".

    With "shared" and "both", the shared head acts all the same: then a fresh row
    is the identity only until that head is trained.
    """
    return {} if self.heads == "shared" else {"head": self._init_head(key)}

  def _init_controller(
    self, key_input: jax.Array, key_recurrence: jax.Array
  ) -> Tree:
    dtype, size = jnp.dtype(self.param_dtype), self.controller_width
    wide = 3 * size if self.controller == "gru" else size
    kernel = jax.random.normal(key_input, (self.width, wide), dtype)
    controller = {
      "kernel": kernel / self.width**0.5,
      "bias": jnp.zeros((wide,), dtype),
    }
    if self.controller == "indrnn":
      controller["recurrence"] = jax.random.uniform(
        key_recurrence, (size,), dtype
      )
    if self.controller == "gru":
      orthogonal = jax.nn.initializers.orthogonal()
      gates = [
        orthogonal(key, (size, size), dtype)
        for key in jax.random.split(key_recurrence, 3)
      ]
      controller["recurrence"] = jnp.concatenate(gates, axis=1)
      controller["candidate_bias"] = jnp.zeros((size,), dtype)
    return controller

  def _init_head(self, key: jax.Array) -> Tree:
    dtype = jnp.dtype(self.param_dtype)

    def zeros(inputs: int) -> Tree:
      return {
        "kernel": jnp.zeros((inputs, self.width), dtype),
        "bias": jnp.zeros((self.width,), dtype),
      }

    if self.head == "linear":
      return {"output": zeros(self.controller_width)}
    size = (self.controller_width, self.head_width)
    scale = (2 / self.controller_width) ** 0.5
    return {
      "hidden": {
        "kernel": scale * jax.random.normal(key, size, dtype),
        "bias": jnp.zeros((self.head_width,), dtype),
      },
      "output": zeros(self.head_width),
    }

  def init_carry(self, hidden_TD: jax.Array) -> Tree:
    """The controller's state [T, H], in at least float32; none without one."""
    if self.controller == "none":
      return ()
    dtype = jnp.promote_types(hidden_TD.dtype, jnp.float32)
    return jnp.zeros((len(hidden_TD), self.controller_width), dtype)

  def after_layer(
    self,
    shared: Tree,
    row: Tree,
    layer: jax.Array,
    carry: Tree,
    hidden_TD: jax.Array,
  ) -> tuple[Tree, jax.Array]:
    del layer
    own = shared["layers"] if self.controllers == "per_layer" else shared
    controller = own["controller"]
    if self.controller == "gru":
      carry = state_TH = _gru(controller, carry, hidden_TD)
    elif self.controller == "indrnn":
      carry = state_TH = _indrnn(controller, carry, hidden_TD)
    else:
      state_TH = jax.nn.relu(affine(hidden_TD, controller))
    inputs_TH = state_TH.astype(hidden_TD.dtype)
    heads = [owner["head"] for owner in (shared, row) if "head" in owner]
    if self.head == "linear" and len(heads) == 2:  # the sum is a head
      heads = [jax.tree.map(jnp.add, *heads)]
    for head in heads:
      update_TD = _apply_head(head, inputs_TH)
      hidden_TD += update_TD.astype(hidden_TD.dtype)
    return carry, hidden_TD


def _indrnn(
  controller: Tree, state_TH: jax.Array, hidden_TD: jax.Array
) -> jax.Array:
  recurrent_TH = controller["recurrence"].astype(state_TH.dtype) * state_TH
  return jax.nn.relu(affine(hidden_TD, controller) + recurrent_TH)


def _gru(
  controller: Tree, state_TH: jax.Array, hidden_TD: jax.Array
) -> jax.Array:
  """Kernels hold the gates r, z, n side by side.

  Products take the state in the stream's type; what is kept of it is exact.
  """
  rounded_TH = state_TH.astype(hidden_TD.dtype)
  inputs = jnp.split(affine(hidden_TD, controller), 3, axis=-1)
  states = jnp.split(product(rounded_TH, controller["recurrence"]), 3, axis=-1)
  reset_TH = jax.nn.sigmoid(inputs[0] + states[0])
  keep_TH = jax.nn.sigmoid(inputs[1] + states[1])
  bias_H = controller["candidate_bias"].astype(state_TH.dtype)
  candidate_TH = jnp.tanh(inputs[2] + reset_TH * (states[2] + bias_H))
  return (1 - keep_TH) * candidate_TH + keep_TH * state_TH


def _apply_head(head: Tree, state_TH: jax.Array) -> jax.Array:
  if "hidden" in head:
    state_TH = jax.nn.relu(affine(state_TH, head["hidden"])).astype(
      state_TH.dtype
    )
  return affine(state_TH, head["output"])
