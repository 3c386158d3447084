"""Spaces of tasks: where rows start, what reaches them, what a generator costs."""

import dataclasses
import functools

import adapted
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hra.adapters import spaces, table
from hra.adapters.interface import layer_slices
from hra.config import AdapterConfig, SpaceConfig
from hra.errors import InputError
from hra.sharding import named_leaves
from hra.train import state
from hra.train.step import make_step

GENERATED = tuple(
  name for name in adapted.VARIANTS if name not in ("full", "hra_shared")
)
LOGITS = tuple(
  name
  if name in ("hra", "residual", "lora")
  else pytest.param(name, marks=pytest.mark.slow)
  for name in GENERATED
)
"""Those of which the fast tests compute logits."""
KINDS = pytest.mark.parametrize("kind", [tiny.EMBEDDING, tiny.OFFSET])
END = adapted.mel(), adapted.LENGTH


def _space(name: str, kind: SpaceConfig = tiny.EMBEDDING) -> spaces.TaskSpace:
  return tiny.space(adapted.VARIANTS[name], kind)


def _fresh(space):
  return jax.jit(
    lambda key: (
      space.adapter.init_shared(key),
      space.init_shared(jax.random.fold_in(key, 1)),
      space.init_task(jax.random.fold_in(key, 2)),
    )
  )(jax.random.key(3))


@KINDS
@pytest.mark.parametrize("name", LOGITS)
def test_a_fresh_row_is_the_backbone(name, kind):
  space, backbone = _space(name, kind), tiny.backbone()
  shared, own, owned = _fresh(space)
  if "head" in shared:
    shared = {**shared, "head": jax.tree.map(jnp.zeros_like, shared["head"])}
  model = tiny.model(adapted.VARIANTS[name])
  row = space.row(own, owned)
  bare = adapted.logits(tiny.model(adapted.NONE), backbone, {}, {}, *END)
  ours = adapted.logits(model, backbone, shared, row, *END)
  np.testing.assert_allclose(ours, bare, atol=1e-5 * np.abs(bare).max())
  assert jax.tree.structure(row) == jax.tree.structure(
    jax.eval_shape(space.adapter.init_task, jax.random.key(0))
  )


@pytest.mark.parametrize("name", GENERATED)
def test_a_generator_has_the_numbers_of_the_formula(name):
  size, rank = tiny.EMBEDDING.size, tiny.EMBEDDING.rank
  space = _space(name)
  key = jax.random.key(0)
  shared = jax.eval_shape(space.init_shared, key)
  base = jax.eval_shape(space.adapter.init_task, key)
  whole, layers = layer_slices(base)
  depth = tiny.BACKBONE.layers
  # E R for each layer and for what layers receive whole; R P of each slice.
  weights = size * rank * (bool(whole) + depth * bool(layers))
  slices = table.count(whole) + table.count(layers) // depth
  assert table.count(shared["projection"]) == weights
  assert table.count(shared["basis"]) == rank * slices
  assert weights + rank * slices <= size * rank * (depth + 1) + rank * slices
  assert table.count(shared["base"]) == table.count(base)
  assert table.count(jax.eval_shape(space.init_task, key)) == size


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.grad, argnums=(4, 5))
def _gradient(model, space, backbone, shared, own, owned):
  return model.loss(
    backbone,
    shared,
    space.row(own, owned),
    *END,
    jnp.array([1, 2, 3, 0]),
    jnp.array(3),
  ).total


def _gradients(name, *trees):
  """Path -> the largest number, of the generator and of the embedding."""
  model = tiny.model(adapted.VARIANTS[name])
  return tuple(
    {path: float(np.abs(leaf).max()) for path, leaf in named_leaves(tree)}
    for tree in _gradient(model, _space(name), tiny.backbone(), *trees)
  )


@pytest.mark.parametrize(
  "name",
  [
    "hra",
    "residual",
    pytest.param("lora", marks=pytest.mark.slow),
    pytest.param("bitfit", marks=pytest.mark.slow),
  ],
)
def test_there_is_no_dead_saddle(name):
  """A basis moves at once, and then the embedding behind it."""
  shared, own, owned = _fresh(_space(name))
  first, embedding = _gradients(name, shared, own, owned)
  # What is multiplied by zero at the identity waits; its other factor doesn't.
  alive = {path for path, size in first.items() if size > 1e-7}
  behind = {
    "hra": "head/output/kernel",
    "residual": "layers/up/kernel",
    "lora": "layers/attention.value/b",
    "bitfit": "layers/attention.value/bias",
  }[name]
  assert {f"base/{behind}", f"basis/{behind}"} <= alive
  assert embedding == {"embedding": 0}
  moved = jax.tree_util.tree_map_with_path(
    lambda keys, leaf: (
      leaf + 0.05 * jax.random.normal(jax.random.key(5), leaf.shape)
      if keys[0].key != "projection"
      else leaf
    ),
    own,
  )
  later, embedding = _gradients(name, shared, moved, owned)
  assert embedding["embedding"] > 1e-5
  assert all(size > 0 for size in later.values())


@KINDS
@pytest.mark.parametrize("name", LOGITS)
def test_frozen_rows_are_the_space_s_rows(name, kind):
  """To the logits: what is exported and served is what was trained."""
  space = _space(name, kind)
  key = jax.random.key(0)
  own = adapted.random(jax.eval_shape(space.init_shared, key), seed=1)
  owned = adapted.random(
    jax.eval_shape(jax.vmap(space.init_task), jax.random.split(key, 3)), seed=2
  )
  rows = jax.device_get(
    jax.jit(spaces.freeze, static_argnums=0)(space, own, owned)
  )
  shared, _ = adapted.trees(space.adapter)
  model, backbone = tiny.model(adapted.VARIANTS[name]), tiny.backbone()
  seen = []
  for place in range(3):
    mine = jax.tree.map(lambda leaf, place=place: leaf[place], owned)
    row = jax.tree.map(lambda leaf, place=place: leaf[place], rows)
    ours = adapted.logits(model, backbone, shared, row, *END)
    theirs = adapted.logits(
      model, backbone, shared, jax.jit(space.row)(own, mine), *END
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(ours).max())
    seen.append(ours)
  assert np.abs(seen[0] - seen[1]).max() > 1e-3


def test_a_generated_row_is_the_formula():
  """row_l = base_l + sum_r c_lr basis_r with c = C e / sqrt(R), by hand."""
  space = _space("residual_norm")
  key = jax.random.key(0)
  own = adapted.random(jax.eval_shape(space.init_shared, key), seed=1)
  owned = adapted.random(jax.eval_shape(space.init_task, key), seed=2)
  row = dict(named_leaves(space.row(own, owned)))
  base, basis = (
    dict(named_leaves(own["base"])),
    dict(named_leaves(own["basis"])),
  )
  for path, leaf in row.items():
    for l in range(tiny.BACKBONE.layers):
      weights = own["projection"]["layers"][l] @ owned["embedding"] / 3**0.5
      expected = base[path][l] + sum(
        weight * part for weight, part in zip(weights, basis[path], strict=True)
      )
      np.testing.assert_allclose(leaf[l], expected, rtol=1e-5, atol=1e-6)


def test_an_offset_is_added_to_what_all_share():
  space = _space("hra", tiny.OFFSET)
  shared, own, owned = _fresh(space)
  assert all((leaf == 0).all() for leaf in jax.tree.leaves(owned))
  assert jax.tree.structure(own["base"]) == jax.tree.structure(owned)
  row = space.row(own, jax.tree.map(lambda leaf: leaf + 0.5, owned))
  jax.tree.map(
    lambda leaf, base: np.testing.assert_array_equal(leaf, base + 0.5),
    row,
    own["base"],
  )
  # A linear head beside a shared one is the same model.
  both = tiny.model(dataclasses.replace(tiny.ADAPTER, heads="both"))
  apart = {**shared, "head": row["head"]}
  heads = jax.tree.map(lambda leaf: 0.1 * jnp.ones_like(leaf), row)
  summed = jax.tree.map(jnp.add, row, heads)
  backbone = tiny.backbone()
  np.testing.assert_allclose(
    adapted.logits(tiny.model(), backbone, shared, summed, *END),
    adapted.logits(both, backbone, apart, heads, *END),
    rtol=1e-4,
    atol=1e-5,
  )


@KINDS
def test_a_space_learns(kind):
  """Tasks of one space, what they share trained: the loss falls for each."""
  space, optimizers = _space("hra", kind), tiny.optimizers()
  step = jax.jit(make_step(tiny.model(), space, optimizers, policy=None))
  terms = tiny.terms(shared_rate=0.02)
  trained = state.init(space, optimizers, tiny.NAMES, key=jax.random.key(2))
  before = trained
  losses = []
  backbone = tiny.backbone()
  for _ in range(8):
    batch = tiny.batch(tiny.NAMES[:4])
    trained, metrics = step(trained, backbone, batch, terms)
    losses.append(np.asarray(metrics.loss_K))
  assert (losses[-1] < losses[0]).all()
  moved = [
    np.abs(after - old).max()
    for after, old in zip(
      jax.tree.leaves(trained.rows), jax.tree.leaves(before.rows), strict=True
    )
  ]
  assert min(moved) > 1e-3


@pytest.mark.parametrize(
  ("config", "owns"),
  [
    (AdapterConfig(family="full"), "a whole backbone"),
    (AdapterConfig(family="none"), "nothing"),
    (AdapterConfig(heads="shared"), "nothing"),
  ],
)
def test_rows_that_can_t_be_generated_are_refused(config, owns):
  with pytest.raises(InputError) as refused:
    tiny.space(config, tiny.EMBEDDING)
  assert "config.space.kind" in str(refused.value)
  assert f"own {owns}" in str(refused.value)
