"""Our forward passes of a batch of many speakers' LoRAs: three ways to find rows.

Enters: a converted backbone, rows that PEFT reads too, features. Leaves: frames or
logits [B, T, D].
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hra.adapters import families
from hra.adapters.interface import Frozen, Tree
from hra.adapters.lookup import Lookup
from hra.adapters.lora import Lora
from hra.backbone.network import Backbone
from hra.backbone.store import StoredBackbone
from hra.config import AdapterConfig
from hra.model import Model

Forward = Callable[[], jax.Array]


@jax.custom_batching.custom_vmap
def _ragged(
  x_TI: jax.Array, a_NIR: jax.Array, b_NRO: jax.Array, id: jax.Array
) -> jax.Array:
  """x A B with the id's factors; a batch is sorted, and multiplied in groups."""
  return x_TI @ a_NIR[id] @ b_NRO[id]


@_ragged.def_vmap
def _ragged_batch(
  size: int,
  batched: Sequence[Any],
  x_BTI: Any,
  a_NIR: Any,
  b_NRO: Any,
  id_B: Any,
) -> tuple[jax.Array, bool]:
  x_batched, a_batched, b_batched, id_batched = batched
  if not x_batched or a_batched or b_batched or not id_batched:
    raise NotImplementedError("a batch of frames and ids, and one table")
  order_B = jnp.argsort(id_B)
  sizes_N = x_BTI.shape[1] * jnp.bincount(id_B, length=len(a_NIR))
  x_FI = x_BTI[order_B].reshape(-1, x_BTI.shape[-1])
  inner_FR = jax.lax.ragged_dot(x_FI, a_NIR, sizes_N)
  outer_FO = jax.lax.ragged_dot(inner_FR, b_NRO, sizes_N)
  sorted_BTO = outer_FO.reshape(*x_BTI.shape[:2], -1)
  return sorted_BTO[jnp.argsort(order_B)], True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ragged(Lora):
  """LoRA whose shared parameters are the table, and whose row is a place in it."""

  def tap(
    self,
    shared: Tree,
    row: Tree,
    layer: jax.Array,
    site: str,
    inputs: jax.Array,
    outputs: jax.Array,
  ) -> jax.Array:
    del layer
    own = shared["layers"].get(site)
    if own is None:
      return outputs
    scale = (self.alpha or 2.0 * self.rank) / self.rank
    update = _ragged(inputs, own["a"], own["b"], row["id"])
    return outputs + scale * update


class Contestants:
  """Forward passes of one batch, recording by recording of some row of a table."""

  def __init__(
    self,
    stored: StoredBackbone,
    config: AdapterConfig,
    mel_BTF: np.ndarray,
  ):
    self._backbone = _cut(stored.module, mel_BTF.shape[1])
    self._adapter = families.build(config, stored.config)
    self._frontend = stored.frontend
    self._mel_BTF = jnp.asarray(mel_BTF)

  def base(self) -> Forward:
    """Without any LoRA."""
    return self._compiled(Frozen(), {}, {}, lambda rows, ids: {}, None)

  def gather(self, rows_N: Tree, row_B: np.ndarray) -> Forward:
    """As serving does, layer by layer."""
    return self._compiled(
      Lookup(family=self._adapter),
      Lookup.shared({}, rows_N),
      {},
      lambda rows, ids: Lookup.row(ids),
      row_B,
    )

  def one_hot(self, rows_N: Tree, row_B: np.ndarray) -> Forward:
    """As in Biadsy et al. 2022 (arXiv 2203.12559), section 3.1."""

    def looked_up(rows_N: Tree, row_B: jax.Array) -> Tree:
      return jax.tree.map(
        lambda leaf: jnp.tensordot(
          jax.nn.one_hot(row_B, len(leaf), dtype=leaf.dtype), leaf, 1
        ),
        rows_N,
      )

    return self._compiled(self._adapter, {}, rows_N, looked_up, row_B)

  def ragged(self, rows_N: Tree, row_B: np.ndarray) -> Forward:
    """Frames in groups of speakers against the table, which isn't gathered."""
    fields = {
      field.name: getattr(self._adapter, field.name)
      for field in dataclasses.fields(Lora)
    }
    by_layer = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), rows_N)
    return self._compiled(
      Ragged(**fields), by_layer, {}, lambda rows, ids: {"id": ids}, row_B
    )

  def _compiled(
    self,
    adapter: Any,
    shared: Tree,
    rows_N: Tree,
    find: Callable[[Tree, Any], Tree],
    row_B: np.ndarray | None,
  ) -> Forward:
    """Compiles now."""
    model = Model(adapter=adapter, frontend=self._frontend)
    whisper = self._backbone.positions is not None

    def one(backbone: Backbone, shared: Tree, row: Tree, mel_TF: jax.Array):
      length = jnp.int32(len(mel_TF))
      heard = model.encode(backbone, shared, row, mel_TF, length)
      if whisper:
        return heard.hidden_TD
      return heard.decoder.logits(heard.hidden_TD, heard.length, None)

    def all_of(
      backbone: Backbone, shared: Tree, rows_N: Tree, row_B: Any, mel_BTF: Any
    ) -> jax.Array:
      rows_B = find(rows_N, row_B)
      return jax.vmap(one, (None, None, 0, 0))(
        backbone, shared, rows_B, mel_BTF
      )

    given = (self._backbone, shared, rows_N, row_B, self._mel_BTF)
    given = jax.tree.map(jnp.asarray, given)
    compiled = jax.jit(all_of).lower(*given).compile()
    return lambda: compiled(*given)


def _cut(module: Backbone, frames: int) -> Backbone:
  """With places for so many frames, if it has a table of them."""
  if module.positions is None:
    return module
  graph, state = nnx.split(module)
  cut = nnx.merge(graph, state)
  cut.positions = nnx.Param(module.positions[...][: frames // 2])
  return cut


def tables(rows: Sequence[Tree], place_K: np.ndarray, table_rows: int) -> Tree:
  """Rows [N, ...] in which the speakers' are at their places."""
  rng = np.random.default_rng(0)

  def leaf(*own: Any) -> jax.Array:
    whole = 0.1 * rng.standard_normal((table_rows, *own[0].shape), np.float32)
    whole[place_K] = np.stack(own)
    return jnp.asarray(whole)

  return jax.tree.map(leaf, *rows)
