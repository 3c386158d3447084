"""Hierarchical Recurrent Adapters (Munkhdalai et al. 2024, arXiv 2403.19709).

One controller, shared by all tasks and all layers, recurs over depth for each
frame by itself; one head, reused at every layer, writes into the residual stream:

    h_l = relu(W x_l + u * h_{l-1} + b)        IndRNN, h_0 = 0     (section 3)
    x_l <- x_l + head(h_l)

with head(h) = M h + c (linear) or M2 relu(M1 h + c1) + c2 (feed-forward). A head's
last matrix and bias start at zero, so a fresh row is the backbone. The shared
controller costs D H + 2 H numbers, a personal linear head H D + D.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from hra.adapters.interface import Frozen, Tree

Head = Literal["linear", "feed_forward"]
Heads = Literal["personal", "shared", "both"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HierarchicalRecurrent(Frozen):
  """HRA for residual streams of `width`, with a controller of `controller`.

  `heads` says who owns them: each task (`personal`), all tasks together
  (`shared`, the control that knows no speaker), or `both`, summed.
  """

  width: int
  controller: int
  head: Head = "linear"
  head_width: int = 64
  heads: Heads = "personal"
  param_dtype: str = "float32"

  def init_shared(self, key: jax.Array) -> Tree:
    """W ~ N(0, 1/D), u ~ U(0, 1) (IndRNN: Li et al. 2018, section 4), b = 0."""
    dtype = jnp.dtype(self.param_dtype)
    key_input, key_recurrence, key_head = jax.random.split(key, 3)
    size = (self.width, self.controller)
    shared = {
      "controller": {
        "kernel": jax.random.normal(key_input, size, dtype) / self.width**0.5,
        "recurrence": jax.random.uniform(
          key_recurrence, (self.controller,), dtype
        ),
        "bias": jnp.zeros((self.controller,), dtype),
      }
    }
    if self.heads != "personal":
      shared["head"] = self._init_head(key_head)
    return shared

  def init_task(self, key: jax.Array) -> Tree:
    return {} if self.heads == "shared" else {"head": self._init_head(key)}

  def _init_head(self, key: jax.Array) -> Tree:
    dtype = jnp.dtype(self.param_dtype)

    def zeros(inputs: int) -> Tree:
      return {
        "kernel": jnp.zeros((inputs, self.width), dtype),
        "bias": jnp.zeros((self.width,), dtype),
      }

    if self.head == "linear":
      return {"output": zeros(self.controller)}
    size = (self.controller, self.head_width)
    scale = (2 / self.controller) ** 0.5
    return {
      "hidden": {
        "kernel": scale * jax.random.normal(key, size, dtype),
        "bias": jnp.zeros((self.head_width,), dtype),
      },
      "output": zeros(self.head_width),
    }

  def init_carry(self, hidden_TD: jax.Array) -> jax.Array:
    """The controller's state [T, H], in at least float32."""
    dtype = jnp.promote_types(hidden_TD.dtype, jnp.float32)
    return jnp.zeros((len(hidden_TD), self.controller), dtype)

  def after_layer(
    self,
    shared: Tree,
    row: Tree,
    layer: jax.Array,
    carry: jax.Array,
    hidden_TD: jax.Array,
  ) -> tuple[jax.Array, jax.Array]:
    del layer
    controller = shared["controller"]
    recurrent_TH = controller["recurrence"].astype(carry.dtype) * carry
    state_TH = jax.nn.relu(_affine(hidden_TD, controller) + recurrent_TH)
    inputs_TH = state_TH.astype(hidden_TD.dtype)
    for owner in (shared, row):
      if "head" in owner:
        update_TD = _apply_head(owner["head"], inputs_TH)
        hidden_TD += update_TD.astype(hidden_TD.dtype)
    return state_TH, hidden_TD


def _apply_head(head: Tree, state_TH: jax.Array) -> jax.Array:
  if "hidden" in head:
    state_TH = jax.nn.relu(_affine(state_TH, head["hidden"])).astype(
      state_TH.dtype
    )
  return _affine(state_TH, head["output"])


def _affine(x: jax.Array, layer: Tree) -> jax.Array:
  """x kernel + bias: multiplied in x's type, summed in at least float32."""
  exact = jnp.promote_types(x.dtype, jnp.float32)
  product = jnp.dot(
    x, layer["kernel"].astype(x.dtype), preferred_element_type=exact
  )
  return product + layer["bias"].astype(exact)
