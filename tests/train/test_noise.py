"""Weight noise: what gets it, how much, and that updates go to the clean weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hra.config import AdapterConfig
from hra.sharding import named_leaves
from hra.train import state
from hra.train.noise import WeightNoise, noisy
from hra.train.step import make_step

NOISE = WeightNoise(0.05, 3)


@functools.partial(jax.jit, static_argnames="seed")
def _drawn(backbone, step, seed=0):
  return noisy(backbone, NOISE, key=jax.random.key(seed), step=step)


def _differences(step, seed=0):
  clean = tiny.backbone()
  after = dict(named_leaves(_drawn(clean, jnp.asarray(step), seed=seed)))
  return {
    path: np.asarray(after[path] - leaf) for path, leaf in named_leaves(clean)
  }


def test_kernels_get_noise_of_that_deviation_and_nothing_else_does():
  found = _differences(3)
  kernels = {path for path in found if path.endswith("kernel")}
  assert kernels == {path for path, drawn in found.items() if drawn.any()}
  assert kernels < set(found)
  drawn = np.concatenate([found[path].ravel() for path in sorted(kernels)])
  count = len(drawn)
  assert count > 4_000
  # Five standard errors of a mean and of a deviation.
  assert abs(drawn.mean()) < 5 * NOISE.deviation / count**0.5
  assert drawn.std() == pytest.approx(
    NOISE.deviation, rel=5 / (2 * count) ** 0.5
  )


def test_noise_starts_late_and_each_step_and_seed_has_its_own():
  for path, drawn in _differences(2).items():
    assert not drawn.any(), path
  third, fourth, other = (
    _differences(*at)["head/kernel"] for at in ((3,), (4,), (3, 1))
  )
  np.testing.assert_array_equal(third, _differences(3)["head/kernel"])
  for elsewhere in (fourth, other):
    assert abs(np.corrcoef(third.ravel(), elsewhere.ravel())[0, 1]) < 0.4
  layers = _differences(3)["layers/first/up/kernel"]
  assert not np.allclose(layers[0], layers[1])


def test_a_step_moves_the_clean_weights_by_the_noisy_gradient():
  """As the step without noise does at weights that have it already."""
  none = AdapterConfig(family="none")
  model, space = tiny.model(none), tiny.space(none)
  optimizers = tiny.optimizers()
  step = jax.jit(make_step(model, space, optimizers, policy=None))
  batch = tiny.batch(("anna",))
  clean = tiny.backbone()

  def begun(backbone):
    return state.init(
      space,
      optimizers,
      tiny.NAMES,
      key=jax.random.key(0),
      pretrained=jax.tree.map(jnp.copy, backbone),
    )

  noise = WeightNoise(0.1, 0)
  terms = tiny.terms(weight_noise=noise)
  after, metrics = step(begun(clean), None, batch, terms)
  moved = noisy(clean, noise, key=terms.key, step=jnp.asarray(0))
  there, expected = step(begun(moved), None, batch, tiny.terms())
  np.testing.assert_allclose(metrics.loss_K, expected.loss_K, rtol=1e-6)
  _, quiet = step(begun(clean), None, batch, tiny.terms())
  assert abs(quiet.loss_K[0] - metrics.loss_K[0]) > 1e-3
  # Adam's first moment is a tenth of the gradient.
  moments = [
    dict(named_leaves(state.shared_optimizer.mu["backbone"]))
    for state in (after, there)
  ]
  for path, expected_mu in moments[1].items():
    ours = np.asarray(moments[0][path])
    scale = np.abs(expected_mu).max()
    np.testing.assert_allclose(
      ours, expected_mu, atol=1e-4 * scale, err_msg=path
    )
    left = after.shared["backbone"], clean
    new, old = (dict(named_leaves(tree))[path] for tree in left)
    # Of one step at a rate of 0.01, and so of the clean weights.
    assert 0 < np.abs(new - old).max() <= 0.0101, path
