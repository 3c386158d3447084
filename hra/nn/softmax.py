"""The softmax of attention, and values weighted by it.

In: scores [A, Q, K] and what is visible. Out: weights, or values of each query. The
gradient is that of FlashAttention (Dao et al. 2022, section 3.1): of weights [A, Q, K]
nothing but themselves is kept, and their sum over keys is one over a head's channels.
"""

import jax
import jax.numpy as jnp

from hra.nn.sums import channel_sum


def softmax(scores: jax.Array, visible: jax.Array) -> jax.Array:
  """Over the last axis, in at least float32."""
  raised, total = _raised(_exact(scores), visible)
  return raised / total


def mixed(
  scores_AQK: jax.Array, value_KAI: jax.Array, visible: jax.Array
) -> jax.Array:
  """Values by the softmax of scores: [Q, A, I] in the values' type."""
  return _mixed(_exact(scores_AQK), value_KAI, visible)


def weighted(
  weight_AQK: jax.Array,
  value_AKI: jax.Array,
  *,
  preferred: jax.typing.DTypeLike | None = None,
) -> jax.Array:
  """Sums over keys, [A, Q, I]: weights come first in the product, as they are.

  `jnp.einsum` exchanges the two where the result is to be [Q, A, I], and XLA's CPU
  backend then packs all weights anew: twice the time, at 500 frames.
  """
  return jnp.matmul(weight_AQK, value_AKI, preferred_element_type=preferred)


def _exact(scores: jax.Array) -> jax.Array:
  return scores.astype(jnp.promote_types(scores.dtype, jnp.float32))


@jax.custom_vjp
def _mixed(
  scores_AQK: jax.Array, value_KAI: jax.Array, visible: jax.Array
) -> jax.Array:
  return _mixed_forward(scores_AQK, value_KAI, visible)[0]


_Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def _mixed_forward(
  scores_AQK: jax.Array, value_KAI: jax.Array, visible: jax.Array
) -> tuple[jax.Array, _Kept]:
  """Divides what is mixed, not the weights: there are Q I numbers, not Q K."""
  raised_AQK, total_AQ1 = _raised(scores_AQK, visible)
  raised_AQK = raised_AQK.astype(value_KAI.dtype)
  share_QA1 = 1 / total_AQ1.swapaxes(0, 1)
  summed_AQI = weighted(
    raised_AQK, value_KAI.swapaxes(0, 1), preferred=share_QA1.dtype
  )
  mixed_QAI = (summed_AQI.swapaxes(0, 1) * share_QA1).astype(value_KAI.dtype)
  return mixed_QAI, (raised_AQK, share_QA1, value_KAI, mixed_QAI)


def _mixed_backward(
  kept: _Kept, gradient_QAI: jax.Array
) -> tuple[jax.Array, jax.Array, None]:
  raised_AQK, share_QA1, value_KAI, mixed_QAI = kept
  exact = gradient_QAI.astype(share_QA1.dtype) * share_QA1
  along_QA1 = channel_sum(exact * mixed_QAI.astype(exact.dtype))
  shared_QAI = exact.astype(value_KAI.dtype)
  by_value = jnp.einsum("aqk,qai->kai", raised_AQK, shared_QAI)
  by_weight = jnp.einsum(
    "qai,kai->aqk",
    shared_QAI,
    value_KAI,
    preferred_element_type=exact.dtype,
  )
  by_score = raised_AQK * (by_weight - along_QA1.swapaxes(0, 1))
  return by_score, by_value, None


_mixed.defvjp(_mixed_forward, _mixed_backward)


def _raised(
  scores: jax.Array, visible: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """exp(score - the largest) where visible, and its sums [..., 1]."""
  # A large finite number, not -inf: a query without keys stays finite.
  lowest = jnp.finfo(scores.dtype).min / 2
  seen = jnp.where(visible, scores, lowest)
  largest = jax.lax.stop_gradient(seen.max(axis=-1, keepdims=True))
  raised = jnp.exp(seen - largest)
  return raised, channel_sum(raised)
