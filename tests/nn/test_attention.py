"""Attention against a loop over (query, key) pairs; what may influence what."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hra.nn.attention import Attention, Cache, Limits, make_context
from hra.nn.types import Types

WIDTH, HEADS, FRAMES = 8, 2, 6
SIZE = WIDTH // HEADS
LIMITS = Limits(left=3, right=1)
POSITIONS = ["rotary", "relative", "distance"]


def _attention(position, dtype="float32", param_dtype=None) -> Attention:
  """Every parameter random, biases included, so that each one counts."""
  param_dtype = jnp.dtype(param_dtype or dtype)
  types = Types(dtype=jnp.dtype(dtype), param_dtype=param_dtype)

  def build() -> Attention:
    return Attention(
      WIDTH,
      heads=HEADS,
      position=position,
      limits=LIMITS,
      types=types,
      rngs=nnx.Rngs(0),
    )

  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda leaf: jnp.asarray(
      0.6 * rng.standard_normal(leaf.shape), param_dtype
    ),
    jax.eval_shape(build),
  )


def _hidden(seed=2, dtype=np.float32):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((FRAMES, WIDTH)).astype(dtype)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _apply(attention, hidden_TD, length, causal=False, left_context=0):
  context = make_context(
    FRAMES,
    length,
    position=attention.position,
    width=WIDTH,
    heads=HEADS,
    limits=LIMITS,
    causal=causal,
    left_context=left_context,
    dtype=hidden_TD.dtype,
  )
  return attention(hidden_TD, context)


def _visible(length, causal, left_context):
  """[query, key], one pair at a time."""
  visible = np.zeros((FRAMES, FRAMES), bool)
  for q in range(FRAMES):
    for k in range(length):
      later = causal and k > q
      too_old = causal and left_context and q - k > left_context
      visible[q, k] = not later and not too_old
  return visible


def _by_pairs(attention, hidden_TD, visible):
  """Softmax attention in float64, one (head, query, key) at a time."""

  def project(layer, x):
    out = x @ np.asarray(layer.kernel[...], np.float64)
    return out if layer.bias is None else out + np.asarray(layer.bias[...])

  query, key, value = (
    project(layer, hidden_TD).reshape(FRAMES, HEADS, SIZE)
    for layer in (attention.query, attention.key, attention.value)
  )
  mixed = np.zeros((FRAMES, HEADS, SIZE))
  for head in range(HEADS):
    for q in range(FRAMES):
      keys = np.flatnonzero(visible[q])
      score = SCORES[attention.position]
      scores = np.array(
        [
          score(attention, head, query[q, head], key[k, head], q, k)
          for k in keys
        ]
      )
      weights = np.exp(scores / np.sqrt(SIZE))
      mixed[q, head] = weights @ value[keys, head] / weights.sum()
  return project(attention.output, mixed.reshape(FRAMES, WIDTH))


def _rotary_score(attention, head, query, key, q, k):
  """Re <query e^{iq theta}, key e^{ik theta}>: depends on q - k alone."""
  del attention, head
  half = SIZE // 2
  theta = 10_000.0 ** (-2 * np.arange(half) / SIZE)
  query = query[:half] + 1j * query[half:]
  key = key[:half] + 1j * key[half:]
  return np.sum(query * np.conj(key) * np.exp(1j * (q - k) * theta)).real


def _xl_score(attention, head, query, key, q, k):
  """(query + u) . key + (query + v) . W R_{q-k} (Dai et al. 2019, sec. 3.3)."""
  rates = 10_000.0 ** (-np.arange(0, WIDTH, 2) / WIDTH)
  sinusoid = np.zeros(WIDTH)
  sinusoid[0::2] = np.sin((q - k) * rates)
  sinusoid[1::2] = np.cos((q - k) * rates)
  kernel = np.asarray(attention.relative.kernel[...])
  relative = (sinusoid @ kernel).reshape(HEADS, SIZE)[head]
  u = np.asarray(attention.content_bias[...])[head]
  v = np.asarray(attention.position_bias[...])[head]
  return (query + u) @ key + (query + v) @ relative


def _distance_score(attention, head, query, key, q, k):
  """query . (key + vector of k - q, clipped), all heads sharing the vectors."""
  del head
  row = min(max(k - q, -LIMITS.left), LIMITS.right) + LIMITS.left
  return query @ (key + np.asarray(attention.distance[...])[row])


SCORES = {
  "rotary": _rotary_score,
  "relative": _xl_score,
  "distance": _distance_score,
}


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(
  ("causal", "left_context"), [(False, 0), (True, 0), (True, 2)]
)
def test_equals_the_loop_over_pairs(float64, position, causal, left_context):
  attention = _attention(position, "float64")
  hidden_TD = _hidden(dtype=np.float64)
  length = FRAMES - 1
  ours = _apply(attention, hidden_TD, length, causal, left_context)
  visible = _visible(length, causal, left_context)
  np.testing.assert_allclose(
    ours, _by_pairs(attention, hidden_TD, visible), rtol=1e-12, atol=1e-12
  )


@functools.partial(jax.jit, static_argnums=(3, 4))
def _influence(attention, hidden_TD, length, causal, left_context):
  """[query, key] norms of d output_q / d hidden_k."""
  derivative = jax.jacrev(
    lambda x: _apply(attention, x, length, causal, left_context)
  )(hidden_TD)
  return jnp.abs(derivative).sum(axis=(1, 3))


@pytest.mark.parametrize(
  ("causal", "left_context"), [(False, 0), (True, 0), (True, 2)]
)
@pytest.mark.parametrize("length", [FRAMES, 4])
def test_influence_is_exactly_what_is_visible(causal, left_context, length):
  attention = _attention("relative")
  influence = _influence(attention, _hidden(), length, causal, left_context)
  visible = _visible(length, causal, left_context)
  # A frame chooses, as its own query, among the keys that it sees.
  own = np.eye(FRAMES, dtype=bool) & (visible.sum(axis=1) > 1)[:, None]
  seeing = visible.any(axis=1)
  # Of one key alone the derivative is the difference of two equal numbers.
  seen = np.asarray(influence) > 1e-6 * influence.max()
  np.testing.assert_array_equal(seen[seeing], (visible | own)[seeing])


@pytest.mark.parametrize("position", POSITIONS)
def test_padding_does_not_influence_valid_frames_by_one_bit(position):
  attention = _attention(position)
  hidden_TD = _hidden()
  other_TD = hidden_TD.copy()
  other_TD[4:] = 1e4
  clean, dirty = (_apply(attention, x, 4) for x in (hidden_TD, other_TD))
  np.testing.assert_array_equal(clean[:4], dirty[:4])


@pytest.mark.parametrize("length", [0, 1])
def test_query_without_a_visible_key_stays_finite(length):
  """With one valid frame and a left context of 2, queries 3, 4, 5 see none."""
  attention = _attention("relative")

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1))
  def energy(attention, hidden_TD, length):
    return jnp.sum(_apply(attention, hidden_TD, length, True, 2) ** 2)

  for leaf in jax.tree.leaves(energy(attention, _hidden(), length)):
    assert np.isfinite(leaf).all()


@pytest.mark.parametrize("position", POSITIONS)
def test_bfloat16_is_float32_but_for_rounding(position):
  rounded = _attention(position, "bfloat16")
  exact = jax.tree.unflatten(
    jax.tree.structure(_attention(position)),
    [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(rounded)],
  )
  hidden_TD = jnp.asarray(_hidden(), jnp.bfloat16)
  half = _apply(rounded, hidden_TD, FRAMES)
  single = _apply(exact, hidden_TD.astype(jnp.float32), FRAMES)
  assert half.dtype == jnp.bfloat16
  worst = np.abs(half.astype(np.float32) - single).max()
  assert 0 < worst < 0.02 * np.abs(single).max()


def test_positions_are_exact_where_bfloat16_has_no_such_integer():
  """bfloat16 has no 301: every second frame would share an angle."""
  context = make_context(
    302,
    jnp.array(302),
    position="rotary",
    width=WIDTH,
    heads=HEADS,
    dtype=jnp.bfloat16,
  )
  rates = 10_000.0 ** (-np.arange(0, SIZE, 2) / SIZE)
  expected = np.arange(302)[:, None] * rates
  np.testing.assert_allclose(context.positions, expected, rtol=1e-6)


def test_step_by_step_is_causal_attention(float64):
  """With as much left context as the ring has places beside the frame's own."""
  attention, hidden_TD = _attention("rotary", "float64"), _hidden(dtype=float)
  empty = jnp.zeros((4, HEADS, SIZE))

  @jax.jit
  def both(attention, hidden_TD):
    context = make_context(
      FRAMES,
      jnp.array(FRAMES),
      position="rotary",
      width=WIDTH,
      heads=HEADS,
      causal=True,
      left_context=3,
      dtype=jnp.float64,
    )

    def step(cache, scanned):
      output_D, cache = attention.step(scanned[1], cache, scanned[0])
      return cache, output_D

    frames = jnp.arange(FRAMES), hidden_TD
    return (
      attention(hidden_TD, context),
      jax.lax.scan(step, Cache(empty, empty), frames)[1],
    )

  whole, stepped = both(attention, hidden_TD)
  np.testing.assert_allclose(stepped, whole, rtol=1e-10, atol=1e-12)
