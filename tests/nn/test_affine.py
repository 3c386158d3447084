"""Products whose gradients we write: JAX's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hra.nn.affine import product


def _plainly(x, kernel):
  return jnp.dot(
    x,
    kernel.astype(x.dtype),
    preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
  )


def _gradients(form, x, kernel):
  return jax.value_and_grad(
    lambda x, kernel: jnp.sin(form(x, kernel)).sum(), argnums=(0, 1)
  )(x, kernel)


@pytest.mark.parametrize("sizes", [(7, 3), (3, 7), (4, 4)])
@pytest.mark.parametrize("before", [(), (5,), (2, 5)])
def test_gradients_are_jax_ones(before, sizes):
  rng = np.random.default_rng(0)
  with jax.enable_x64():
    x = jnp.asarray(rng.standard_normal((*before, sizes[0])))
    kernel = jnp.asarray(rng.standard_normal(sizes))
    found, expected = (
      _gradients(form, x, kernel) for form in (product, _plainly)
    )
    for ours, theirs in zip(
      jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
      np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_of_many_tasks_and_in_16_bits():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((6, 5, 7)), jnp.bfloat16)
  kernels = jnp.asarray(rng.standard_normal((6, 7, 3)), jnp.float32)
  found, expected = (
    jax.jit(jax.vmap(lambda x, k, form=form: _gradients(form, x, k)))(
      x, kernels
    )
    for form in (product, _plainly)
  )
  for ours, theirs in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(
      ours.astype(jnp.float32), theirs.astype(jnp.float32), rtol=2e-2, atol=2e-2
    )


@pytest.mark.parametrize("sizes", [(64, 4), (4, 64)])
def test_the_shorter_side_comes_first(sizes):
  """What XLA is given to do, and does."""
  inputs, outputs = sizes
  x, kernel = jnp.ones((3, 9, inputs)), jnp.ones((3, inputs, outputs))
  compiled = (
    jax.jit(jax.vmap(jax.grad(lambda k, x: jnp.sin(product(x, k)).sum())))
    .lower(kernel, x)
    .compile()
    .as_text()
  )
  assert "f32[3,4,64]{2,1,0} dot(" in compiled
  assert "f32[3,64,4]{2,1,0} dot(" not in compiled
