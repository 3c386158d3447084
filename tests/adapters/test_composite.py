"""Families mixed in one batch: each utterance as if its family were alone."""

import functools

import adapted
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hra.adapters.composite import Composite
from hra.adapters.interface import layer_slices
from hra.errors import InputError
from hra.model import Model

NAMES = ("hra", "hra_gru", "residual_norm", "lora", "bitfit")
END = adapted.mel(), adapted.LENGTH


@pytest.fixture(scope="module")
def parts():
  """Name -> its model alone, its shared parameters, its row."""
  models = {name: tiny.model(adapted.VARIANTS[name]) for name in NAMES}
  return {
    name: (model, *adapted.trees(model.adapter, seed=10 * place))
    for place, (name, model) in enumerate(models.items())
  }


@pytest.fixture(scope="module")
def model(parts):
  adapters = tuple((name, parts[name][0].adapter) for name in NAMES)
  return Model(adapter=Composite(parts=adapters), frontend=tiny.FRONTEND)


@pytest.fixture(scope="module")
def shared(model, parts):
  return model.adapter.shared({name: parts[name][1] for name in NAMES})


@pytest.fixture(scope="module")
def mixed(model, shared, parts):
  """Rows -> logits of one batch, all with the same features."""

  @jax.jit
  def encode(backbone, shared, rows):
    def one(row):
      return model.logits(
        backbone, shared, row, None, *END, tiny.NO_LABELS
      ).logits

    return jax.vmap(one)(rows)

  def logits(rows):
    rows_B = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    return encode(tiny.backbone(), shared, rows_B)

  return logits


@pytest.fixture(scope="module")
def bare():
  model = tiny.model(adapted.NONE)
  return adapted.logits(model, tiny.backbone(), {}, {}, *END)


def _rows(model, parts):
  """A row for each family, and one for nobody."""
  each = [model.adapter.row({name: parts[name][2]}) for name in NAMES]
  return [*each, model.adapter.row({})]


def test_mixed_batch_is_each_family_by_itself(model, parts, mixed, bare):
  *ours, nobody = mixed(_rows(model, parts))
  for name, logits in zip(NAMES, ours, strict=True):
    alone = adapted.logits(
      parts[name][0], tiny.backbone(), *parts[name][1:], *END
    )
    scale = np.abs(alone).max()
    np.testing.assert_allclose(logits, alone, atol=1e-5 * scale, err_msg=name)
    assert np.abs(logits - bare).max() > 0.01 * scale
  np.testing.assert_allclose(nobody, bare, atol=1e-5 * np.abs(bare).max())


def test_garbage_in_the_places_of_others_changes_no_bit(model, parts, mixed):
  clean = _rows(model, parts)
  broken = []
  for name, row in zip((*NAMES, None), clean, strict=True):

    def garbage(keys, leaf, name=name):
      part = keys[1].key
      own = keys[0].key == "active" or part == name
      return leaf if own else np.full_like(leaf, np.nan)

    broken.append(jax.tree_util.tree_map_with_path(garbage, row))
  assert any(np.isnan(leaf).any() for leaf in jax.tree.leaves(broken))
  np.testing.assert_array_equal(mixed(broken), mixed(clean))


def test_fresh_row_is_the_backbone_whatever_is_shared(model, mixed, bare):
  """Also where a part has a head that all tasks share."""
  row = jax.device_get(model.adapter.init_task(jax.random.key(0)))
  logits = mixed([row] * 6)
  np.testing.assert_allclose(logits[2], bare, atol=1e-5 * np.abs(bare).max())


def test_several_active_parts_act_in_order(model, shared, parts):
  """HRA, then the bottleneck behind it, on one hidden state."""
  adapter = model.adapter
  row = adapter.row({name: parts[name][2] for name in ("hra", "residual_norm")})
  hidden_TD = np.random.default_rng(0).standard_normal((4, 16))
  hidden_TD = jnp.asarray(hidden_TD, jnp.float32)
  carry, ours = adapter.after_layer(
    adapted.at_layer(shared)(1),
    adapted.at_layer(row)(1),
    jnp.array(1),
    adapter.init_carry(hidden_TD),
    hidden_TD,
  )
  expected = hidden_TD
  for name in ("hra", "residual_norm"):
    part, own_shared, own_row = parts[name]
    _, expected = part.adapter.after_layer(
      adapted.at_layer(own_shared)(1),
      adapted.at_layer(own_row)(1),
      jnp.array(1),
      part.adapter.init_carry(hidden_TD),
      expected,
    )
  np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)
  assert set(carry) == set(NAMES)


def test_what_a_part_has_of_each_layer_is_sliced(model, shared, parts):
  row = model.adapter.row({"lora": parts["lora"][2]})
  for tree, names in (
    (row, {"residual_norm", "lora", "bitfit"}),
    (shared, {"hra_gru"}),
  ):
    whole, layers = layer_slices(tree)
    assert set(layers) == names
    assert {len(leaf) for leaf in jax.tree.leaves(layers)} == {2}
    assert not any("layers" in part for part in whole["whole"].values())


def test_it_costs_the_sum_of_its_parts(model, shared, parts):
  backbone = tiny.backbone()

  def cost(model, *trees):
    return adapted.flops(
      functools.partial(model.encode, backbone), *trees, *END
    )

  alone = {name: cost(*part) for name, part in parts.items()}
  bare = cost(tiny.model(adapted.NONE), {}, {})
  row = model.adapter.row({})
  extra = cost(model, shared, row) - bare
  expected = sum(alone.values()) - len(alone) * bare
  assert expected < extra < 1.2 * expected  # and a choice at each site


@pytest.mark.parametrize(
  ("parts", "message"),
  [
    ((("a", "full"),), "'a' being Full"),
    ((("a", "lora"), ("a", "hra")), "'a' of a composite"),
  ],
)
def test_part_that_can_t_be_is_refused(parts, message):
  built = tuple(
    (name, tiny.model(adapted.VARIANTS[variant]).adapter)
    for name, variant in parts
  )
  with pytest.raises(InputError) as refused:
    Composite(parts=built)
  assert message in str(refused.value)


def test_places_of_absent_parts_are_traced_once(model, parts, monkeypatch):
  """And they are zeros that nobody can write to."""
  composite = model.adapter
  first = composite.row({"lora": parts["lora"][2]})
  monkeypatch.setattr(jax, "eval_shape", None)
  again = composite.row({"bitfit": parts["bitfit"][2]})
  assert not again["active"]["lora"]
  for leaf in jax.tree.leaves(first["whole"]["hra"]):
    assert not leaf.any()
    assert not leaf.flags.writeable
