"""Full fine-tuning: merged weights, and the cost of training all of them."""

import functools

import adapted
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hra.adapters import families, table
from hra.config import AdapterConfig
from hra.sharding import named_leaves

FULL = adapted.VARIANTS["full"]
END = adapted.mel(), adapted.LENGTH


@pytest.fixture(scope="module")
def model():
  return tiny.model(FULL)


@pytest.fixture(scope="module")
def row(model):
  return adapted.trees(model.adapter, scale=0.05)[1]


def test_the_row_is_a_whole_backbone(model):
  row = jax.eval_shape(model.adapter.init_task, jax.random.key(0))
  assert {path: leaf.shape for path, leaf in named_leaves(row["backbone"])} == {
    path: leaf.shape for path, leaf in named_leaves(tiny.backbone())
  }


def test_merged_into_the_weights_it_says_the_same(model, row):
  backbone = tiny.backbone()
  deltas = dict(named_leaves(row["backbone"]))
  leaves = [leaf + deltas[path] for path, leaf in named_leaves(backbone)]
  merged = jax.tree.unflatten(jax.tree.structure(backbone), leaves)
  bare = tiny.model(adapted.NONE)
  ours = adapted.logits(model, backbone, {}, row, *END)
  theirs = adapted.logits(bare, merged, {}, {}, *END)
  largest = np.abs(theirs).max()
  np.testing.assert_allclose(ours, theirs, atol=2e-6 * largest)
  untouched = adapted.logits(bare, backbone, {}, {}, *END)
  assert np.abs(ours - untouched).max() > 0.01 * largest


def test_switched_off_it_is_the_backbone_bit_for_bit(model, row):
  backbone = tiny.backbone()
  broken = jax.tree.map(lambda leaf: leaf * np.float32(np.nan), row)
  off = adapted.logits(model, backbone, {}, broken, *END, np.array(False))
  bare = adapted.logits(tiny.model(adapted.NONE), backbone, {}, {}, *END)
  np.testing.assert_array_equal(off, bare)


def test_small_steps_are_not_lost_in_bfloat16_weights(model):
  backbone = jax.eval_shape(
    lambda: tiny.backbone(dtype="bfloat16", param_dtype="bfloat16")
  )
  ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), backbone)
  row = jax.eval_shape(model.adapter.init_task, jax.random.key(0))
  step = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 1e-5, leaf.dtype), row)
  for leaf in jax.tree.leaves(model.adapter.merge(step, ones)):
    assert leaf.dtype == jnp.float32
    np.testing.assert_array_equal(leaf, np.float32(1 + 1e-5))


def test_its_gradient_reaches_all_and_costs_that_of_the_backbone(model):
  backbone = tiny.backbone()
  row = model.adapter.init_task(jax.random.key(0))

  def loss(model, backbone, row):
    return model.loss(
      backbone,
      {},
      row,
      adapted.mel(),
      jnp.array(adapted.LENGTH),
      np.array([3, 1, 2], np.int32),
      jnp.array(3),
    ).total

  of_row = jax.grad(functools.partial(loss, model), argnums=1)
  bare = functools.partial(loss, tiny.model(adapted.NONE))
  ours = adapted.flops(of_row, backbone, row)
  theirs = adapted.flops(jax.grad(bare), backbone, {})
  # One addition for each number, and nothing else.
  assert ours - theirs == pytest.approx(table.count(row), rel=0.01)
  assert ours > 2.6 * adapted.flops(bare, backbone, {})
  for path, leaf in named_leaves(jax.jit(of_row)(backbone, row)):
    assert np.abs(leaf).max() > 1e-6, path


def test_it_needs_to_know_what_the_backbone_hears():
  with pytest.raises(ValueError, match="mels"):
    families.build(AdapterConfig(family="full"), tiny.BACKBONE)
