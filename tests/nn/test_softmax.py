"""Values by a softmax: JAX's own, in values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hra.nn.softmax import mixed, softmax

HEADS, QUERIES, KEYS, SIZE = 2, 5, 6, 4


def _given(dtype=None):
  rng = np.random.default_rng(0)
  scores = 3 * rng.standard_normal((HEADS, QUERIES, KEYS))
  values = rng.standard_normal((KEYS, HEADS, SIZE))
  return jnp.asarray(scores, dtype), jnp.asarray(values, dtype)


def _visible(*, all_queries=True):
  visible = np.random.default_rng(1).random((QUERIES, KEYS)) < 0.6
  visible[np.arange(QUERIES), np.arange(QUERIES)] = True
  visible[0] = np.arange(KEYS) == 0  # one key alone
  visible[-1] &= all_queries
  return jnp.asarray(visible)


def _plainly(scores_AQK, value_KAI, visible):
  weights_AQK = jax.nn.softmax(scores_AQK, where=visible)
  return jnp.einsum("aqk,kai->qai", weights_AQK, value_KAI)


def test_values_and_gradients_are_those_of_the_formula():
  with jax.enable_x64():
    scores, values = _given()
    visible = _visible()
    weight = jnp.cos(jnp.arange(QUERIES * HEADS * SIZE)).reshape(
      QUERIES, HEADS, SIZE
    )
    found, expected = (
      jax.jit(
        jax.value_and_grad(
          lambda s, v, form=form: (weight * form(s, v, visible)).sum(),
          argnums=(0, 1),
        )
      )(scores, values)
      for form in (mixed, _plainly)
    )
    for ours, theirs in zip(
      jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
      np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_what_is_not_visible_has_no_weight_and_no_gradient():
  scores, values = _given()
  visible = _visible()
  assert not softmax(scores, visible)[:, ~np.asarray(visible)].any()
  gradient = jax.grad(lambda s: mixed(s, values, visible)[..., 0].sum())(scores)
  assert not gradient[:, ~np.asarray(visible)].any()
  assert np.asarray(gradient)[:, np.asarray(visible)].any()


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_large_scores_and_a_query_without_keys_stay_finite(scale):
  scores, values = _given()
  visible = _visible(all_queries=False)
  value, gradients = jax.value_and_grad(
    lambda s, v: mixed(scale * s, v, visible).sum(), argnums=(0, 1)
  )(scores, values)
  assert np.isfinite(value)
  assert all(np.isfinite(each).all() for each in gradients)


def test_16_bits_are_as_near_as_their_weights_allow():
  """Values, and gradients of sums that no single rounding decides."""
  given = _given(jnp.bfloat16)
  exact = [each.astype(jnp.float32) for each in given]
  found, expected = (
    jax.value_and_grad(
      lambda s, v, form=form: jnp.square(form(s, v, _visible())).sum(),
      argnums=(0, 1),
    )(*arrays)
    for form, arrays in ((mixed, given), (_plainly, exact))
  )
  for ours, theirs in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(ours.astype(jnp.float32), theirs, atol=6e-2)


def test_products_take_the_weights_as_they_are():
  """Second in a product, XLA's CPU backend packs them first."""
  scores, values = _given()
  jaxpr = jax.make_jaxpr(mixed)(scores, values, _visible())
  (product,) = [
    eqn
    for eqn in _equations(jaxpr.jaxpr)
    if eqn.primitive is jax.lax.dot_general_p
    and eqn.outvars[0].aval.shape[-1] > 1  # not a sum
  ]
  assert product.invars[0].aval.shape == scores.shape
  contracted, _ = product.params["dimension_numbers"]
  assert contracted[0] == (scores.ndim - 1,)


def _equations(jaxpr):
  """All, also of what is called."""
  for eqn in jaxpr.eqns:
    yield eqn
    for called in jax.core.jaxprs_in_params(eqn.params):
      yield from _equations(called)
