"""Multi-head attention of one utterance, and how it knows of positions.

In: hidden_TD and the `Context` that all layers share, or what is attended to from
elsewhere (`CrossAttention`). Out: hidden_TD.
Rotary positions: Su et al. 2021, section 3.2. Relative positions: Dai et al.
2019 (Transformer-XL), section 3.3, as the Conformer uses them (Gulati et al.
2020, section 2.1). Distances: Shaw et al. 2018, section 3.2, in the keys alone.
"""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from hra.nn.softmax import mixed, softmax, weighted
from hra.nn.tap import Tap, no_tap
from hra.nn.types import Types

Position = Literal["rotary", "relative", "distance"]


class Limits(NamedTuple):
  """Offsets that position `distance` tells apart; others count as the farthest."""

  left: int
  right: int


class Context(NamedTuple):
  """What attention and convolution need to know of an utterance, once."""

  valid_T: jax.Array
  """True where a frame is speech, False where it is padding."""
  visible_TT: jax.Array
  """[query, key]: which frames a frame may attend to."""
  positions: jax.Array
  """Rotary: angles [T, I/2]. Of offsets (query - key) T-1 .. -(T-1) otherwise:
  relative: sinusoids [2T-1, D]; distance: rows of a layer's table [2T-1]. None:
  nothing [0]."""


def make_context(
  frames: int,
  length: jax.Array,
  *,
  position: Position | None,
  width: int,
  heads: int,
  limits: Limits | None = None,
  causal: bool = False,
  left_context: int = 0,
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> Context:
  """The context of an utterance with `length` valid frames of `frames`.

  Args:
    limits: what position `distance` asks for, and no other.
  """
  index_T = jnp.arange(frames)
  valid_T = index_T < length
  visible_TT = jnp.broadcast_to(valid_T[None, :], (frames, frames))
  if causal:
    distance_TT = index_T[:, None] - index_T[None, :]
    visible_TT &= distance_TT >= 0
    if left_context:
      visible_TT &= distance_TT <= left_context
  if position == "rotary":
    positions = _angles(index_T, width // heads, dtype=dtype)
    return Context(valid_T, visible_TT, positions)
  if position is None:
    return Context(valid_T, visible_TT, jnp.zeros(0, dtype))
  offsets = jnp.arange(frames - 1, -frames, -1)
  if position == "distance":
    assert limits is not None
    ahead = jnp.clip(-offsets, -limits.left, limits.right)
    return Context(valid_T, visible_TT, ahead + limits.left)
  angles = _angles(offsets, width, dtype=dtype)
  pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
  positions = pairs.reshape(2 * frames - 1, width)
  return Context(valid_T, visible_TT, positions)


_DISTANCE_SCALE = 0.02
"""Deviation of a fresh table's vectors."""


class Cache(NamedTuple):
  """Keys, turned to their positions, and values of the last T frames: a ring."""

  key_TAI: jax.Array
  value_TAI: jax.Array


class Attention(nnx.Module):
  """Self-attention with an output projection; softmax in at least float32."""

  def __init__(
    self,
    width: int,
    *,
    heads: int,
    position: Position | None,
    limits: Limits | None = None,
    bias: bool = True,
    key_bias: bool | None = None,
    types: Types,
    rngs: nnx.Rngs,
  ):
    """Args:
    bias: of the projections.
    key_bias: of the keys', where it is another.
    """
    self.heads = heads
    self.position = position

    def linear(bias: bool = bias) -> nnx.Linear:
      return nnx.Linear(
        width,
        width,
        use_bias=bias,
        rngs=rngs,
        **types,
      )

    self.query = linear()
    self.key = linear(bias if key_bias is None else key_bias)
    self.value = linear()
    self.output = linear()
    if position == "relative":
      shape = (heads, width // heads)
      self.relative = linear(bias=False)
      self.content_bias = nnx.Param(jnp.zeros(shape, types["param_dtype"]))
      self.position_bias = nnx.Param(jnp.zeros(shape, types["param_dtype"]))
    elif position == "distance":
      assert limits is not None
      table = (limits.left + 1 + limits.right, width // heads)
      self.distance = nnx.Param(
        _DISTANCE_SCALE
        * jax.random.normal(rngs.params(), table, types["param_dtype"])
      )

  def __call__(
    self, hidden_TD: jax.Array, context: Context, *, tap: Tap = no_tap
  ) -> jax.Array:
    query_TAI, key_TAI, value_TAI = self._projected(hidden_TD, tap)
    if self.position == "rotary":
      query_TAI = _rotate(query_TAI, context.positions)
      key_TAI = _rotate(key_TAI, context.positions)
    if self.position == "relative":
      scores_ATT = self._relative_scores(query_TAI, key_TAI, context.positions)
    elif self.position == "distance":
      scores_ATT = self._distance_scores(query_TAI, key_TAI, context.positions)
    else:
      scores_ATT = _products(query_TAI, key_TAI)
    mixed_TAI = mixed(scores_ATT, value_TAI, context.visible_TT)
    mixed_TD = mixed_TAI.reshape(hidden_TD.shape)
    return tap("attention.output", mixed_TD, self.output(mixed_TD))

  def step(
    self,
    hidden_D: jax.Array,
    cache: Cache,
    count: jax.Array,
    *,
    tap: Tap = no_tap,
  ) -> tuple[jax.Array, Cache]:
    """One more frame, where T frames at most are seen, itself included.

    What a call says of frame `count` with causal attention, rotary or without
    positions, and a left context of T - 1.

    Args:
      cache: of the `count` frames before.
    """
    assert self.position in ("rotary", None)
    places, _, size = cache.key_TAI.shape
    query_TAI, key_TAI, value_TAI = self._projected(hidden_D[None], tap)
    if self.position == "rotary":
      angles = _angles(count[None], size, dtype=cache.key_TAI.dtype)
      query_TAI = _rotate(query_TAI, angles)
      key_TAI = _rotate(key_TAI, angles)
    # XLA's CPU backend is slow at writing one place into each of many rings.
    here_T = (jnp.arange(places) == count % places)[:, None, None]
    cache = Cache(
      jnp.where(here_T, key_TAI, cache.key_TAI),
      jnp.where(here_T, value_TAI, cache.value_TAI),
    )
    scores_A1T = _products(query_TAI, cache.key_TAI)
    seen_T = jnp.arange(places) <= count
    mixed_1AI = mixed(scores_A1T, cache.value_TAI, seen_T)
    mixed_1D = mixed_1AI.reshape(1, -1)
    return tap("attention.output", mixed_1D, self.output(mixed_1D))[0], cache

  def _projected(
    self, hidden_TD: jax.Array, tap: Tap
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Query, key and value [T, A, I]."""

    def project(name: str) -> jax.Array:
      out_TD = tap(
        f"attention.{name}", hidden_TD, getattr(self, name)(hidden_TD)
      )
      return out_TD.reshape(len(out_TD), self.heads, -1)

    return project("query"), project("key"), project("value")

  def _relative_scores(
    self, query_TAI: jax.Array, key_TAI: jax.Array, sinusoids: jax.Array
  ) -> jax.Array:
    frames = len(query_TAI)
    relative = self.relative(sinusoids).reshape(2 * frames - 1, self.heads, -1)
    content = query_TAI + self.content_bias[...].astype(query_TAI.dtype)
    position = query_TAI + self.position_bias[...].astype(query_TAI.dtype)
    by_content = _products(content, key_TAI)
    by_offset = _products(position, relative)
    return by_content + _relative_shift(by_offset, frames)

  def _distance_scores(
    self, query_TAI: jax.Array, key_TAI: jax.Array, rows_R: jax.Array
  ) -> jax.Array:
    """query . (key + vector of the distance).

    Scores of all 2T-1 offsets are shifted, as relative ones are, rather than those
    of the few vectors gathered: the gradient of a gather adds up in no fixed order.
    """
    vectors_RI = self.distance[...].astype(query_TAI.dtype)[rows_R]
    by_content = _products(query_TAI, key_TAI)
    by_offset = jnp.einsum("qai,ri->aqr", _scaled(query_TAI), vectors_RI)
    return by_content + _relative_shift(by_offset, len(query_TAI))


class Memory(NamedTuple):
  """Keys and values of frames that are attended to, as products read them."""

  key_AIT: jax.Array
  value_ATI: jax.Array


class CrossAttention(nnx.Module):
  """Attention to frames from elsewhere; keys have no bias.

  `memory` is what it keeps of them, once for all that attends to them.
  """

  def __init__(self, width: int, *, heads: int, types: Types, rngs: nnx.Rngs):
    self.heads = heads

    def linear(bias: bool = True) -> nnx.Linear:
      return nnx.Linear(width, width, use_bias=bias, rngs=rngs, **types)

    self.query, self.key, self.value = linear(), linear(bias=False), linear()
    self.output = linear()

  def memory(self, frames_TD: jax.Array, *, tap: Tap = no_tap) -> Memory:
    """Keys and values of all frames."""
    return Memory(
      self._projected("key", frames_TD, tap).transpose(1, 2, 0),
      self._projected("value", frames_TD, tap).swapaxes(0, 1),
    )

  def __call__(
    self, hidden_PD: jax.Array, memory: Memory, *, tap: Tap = no_tap
  ) -> tuple[jax.Array, jax.Array]:
    """hidden_PD, and the heads' weights [A, P, T]."""
    query_PAI = self._projected("query", hidden_PD, tap)
    scores_APT = jnp.einsum("pai,ait->apt", _scaled(query_PAI), memory.key_AIT)
    weights_APT = softmax(scores_APT, jnp.ones(scores_APT.shape[-1], bool))
    mixed_API = weighted(
      weights_APT.astype(memory.value_ATI.dtype), memory.value_ATI
    )
    mixed_PD = mixed_API.swapaxes(0, 1).reshape(hidden_PD.shape)
    site = "cross_attention.output"
    return tap(site, mixed_PD, self.output(mixed_PD)), weights_APT

  def _projected(self, name: str, inputs: jax.Array, tap: Tap) -> jax.Array:
    outputs = getattr(self, name)(inputs)
    outputs = tap(f"cross_attention.{name}", inputs, outputs)
    return outputs.reshape(len(outputs), self.heads, -1)


def _products(query_QAI: jax.Array, key_KAI: jax.Array) -> jax.Array:
  """Scores [A, Q, K]."""
  return jnp.einsum("qai,kai->aqk", _scaled(query_QAI), key_KAI)


def _scaled(query: jax.Array) -> jax.Array:
  """By 1/sqrt(I): of queries, as there are fewer numbers than scores."""
  return query / math.sqrt(query.shape[-1])


def _relative_shift(by_offset: jax.Array, frames: int) -> jax.Array:
  """[A, T, 2T-1] by offset T-1 .. -(T-1) -> [A, T, T] by key."""
  heads = len(by_offset)
  padded = jnp.pad(by_offset, ((0, 0), (0, 0), (1, 0)))
  folded = padded.reshape(heads, 2 * frames, frames)[:, 1:]
  return folded.reshape(heads, frames, 2 * frames - 1)[:, :, :frames]


def _angles(
  index: jax.Array, size: int, *, dtype: jax.typing.DTypeLike
) -> jax.Array:
  """index * 10000^(-2i/size) for i < size/2, in at least float32."""
  exact = jnp.promote_types(dtype, jnp.float32)
  rates = jnp.arange(0, size, 2, dtype=exact) / size
  return index.astype(exact)[:, None] * 10_000.0**-rates


def _rotate(x_TAI: jax.Array, angles: jax.Array) -> jax.Array:
  """Turns each pair (i, i + I/2) by its angle."""
  first, second = jnp.split(x_TAI.astype(angles.dtype), 2, axis=-1)
  sin, cos = jnp.sin(angles)[:, None], jnp.cos(angles)[:, None]
  turned = jnp.concatenate(
    [first * cos - second * sin, second * cos + first * sin], axis=-1
  )
  return turned.astype(x_TAI.dtype)
