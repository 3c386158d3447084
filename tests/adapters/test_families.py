"""What every family promises, with each of its options; what a config may say."""

import functools

import adapted
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hra.adapters import families, table
from hra.adapters.composite import Composite
from hra.config import AdapterConfig
from hra.config_rules.model import FAMILY_FIELDS
from hra.errors import InputError
from hra.model import Model
from hra.sharding import named_leaves

LABELS_U = np.array([3, 1, 1, 2], np.int32)
D, INNER, LAYERS = 16, 32, 2


@pytest.fixture(scope="module")
def backbone():
  return tiny.backbone()


@pytest.fixture(scope="module")
def bare(backbone):
  """The bare backbone's logits."""
  model = tiny.model(adapted.NONE)
  return adapted.logits(model, backbone, {}, {}, adapted.mel(), adapted.LENGTH)


@pytest.fixture(scope="module", params=list(adapted.VARIANTS))
def model(request):
  return tiny.model(adapted.VARIANTS[request.param])


def test_fresh_row_is_the_backbone_bit_for_bit(model, backbone, bare):
  """Whatever the shared parameters are, but for a head that all tasks share."""
  shared = model.adapter.init_shared(jax.random.key(1))
  random = adapted.random(shared, seed=5)
  random |= {"head": shared["head"]} if "head" in shared else {}
  row = model.adapter.init_task(jax.random.key(2))
  mel_TF = adapted.mel()
  logits = adapted.logits(model, backbone, random, row, mel_TF, adapted.LENGTH)
  np.testing.assert_array_equal(logits, bare)


def test_another_row_is_heard_whatever_the_padding(model, backbone, bare):
  shared, row = adapted.trees(model.adapter)
  clean_TF = adapted.mel()
  padded_TF = clean_TF.copy()
  padded_TF[adapted.LENGTH :] = 1e4
  clean, padded = (
    adapted.logits(model, backbone, shared, row, mel_TF, adapted.LENGTH)
    for mel_TF in (clean_TF, padded_TF)
  )
  scale = np.abs(clean).max()
  assert np.abs(clean - bare).max() > 0.01 * scale
  valid = -(-adapted.LENGTH // 4)
  np.testing.assert_allclose(padded[:valid], clean[:valid], atol=1e-5 * scale)


def _everything(dtype="float32"):
  """All families but full fine-tuning, all of them acting, as one model."""
  names = (
    "hra",
    "hra_gru",
    "hra_feed_forward",
    "residual_norm",
    "lora",
    "bitfit",
  )
  adapters = {
    name: tiny.model(adapted.VARIANTS[name], dtype=dtype).adapter
    for name in names
  }
  composite = Composite(parts=tuple(adapters.items()))
  trees = {
    name: adapted.trees(adapter, seed=10 * place)
    for place, (name, adapter) in enumerate(adapters.items())
  }
  return (
    Model(adapter=composite, frontend=tiny.FRONTEND),
    composite.shared({name: shared for name, (shared, _) in trees.items()}),
    composite.row({name: row for name, (_, row) in trees.items()}),
  )


def test_gradient_reaches_every_number_that_trains(backbone):
  model, shared, row = _everything()
  active = row.pop("active")

  @jax.jit
  @functools.partial(jax.grad, argnums=(0, 1))
  def gradient(shared, row, backbone):
    return model.loss(
      backbone,
      shared,
      {**row, "active": active},
      adapted.mel(),
      jnp.array(adapted.FRAMES),
      LABELS_U,
      jnp.array(3),
    ).total

  gradients = dict(named_leaves(gradient(shared, row, backbone)))
  assert len(gradients) > 50
  for path, leaf in gradients.items():
    layers = leaf if "layers/" in path else leaf[None]
    for l, part in enumerate(layers):
      largest = np.abs(part).max()
      if (
        path.endswith("controller/recurrence") and "layers/" in path and l == 0
      ):
        assert largest == 0  # before the first layer the state is zero
      else:
        assert largest > 1e-6, f"{path} of layer {l}: {largest}"


def _half(backbone):
  """The same numbers, computed with in bfloat16."""
  return jax.tree.unflatten(
    jax.tree.structure(tiny.backbone(dtype="bfloat16")),
    jax.tree.leaves(backbone),
  )


def test_a_bfloat16_stream_keeps_its_type(model, backbone):
  """The scan refuses one that doesn't; rows and carries stay float32."""
  shared, row = adapted.trees(model.adapter)
  types = {leaf.dtype for leaf in jax.tree.leaves((shared, row))}
  assert types == {np.dtype(np.float32)}
  shapes = jax.eval_shape(
    lambda *trees: model.logits(*trees, True, adapted.mel(), 9, tiny.NO_LABELS),
    _half(backbone),
    shared,
    row,
  )
  assert shapes.logits.dtype == jnp.float32
  hidden_TD = jax.ShapeDtypeStruct((6, D), jnp.bfloat16)
  for leaf in jax.tree.leaves(
    jax.eval_shape(model.adapter.init_carry, hidden_TD)
  ):
    assert leaf.dtype == jnp.float32


def test_bfloat16_says_nearly_the_same(backbone):
  model, *trees = _everything()
  exact, rounded = (
    adapted.logits(model, each, *trees, adapted.mel(), adapted.FRAMES)
    for each in (backbone, _half(backbone))
  )
  worst = np.abs(rounded - exact).max()
  assert 0 < worst < 0.1 * np.abs(exact).max()


def test_scan_equals_the_loop_over_layers(float64):
  model, shared, row = _everything("float64")
  backbone = tiny.backbone(dtype="float64", param_dtype="float64")
  mel_TF = adapted.mel(dtype=np.float64)
  scanned = adapted.logits(model, backbone, shared, row, mel_TF, adapted.LENGTH)
  looped = jax.jit(
    lambda backbone: adapted.unrolled(
      model,
      backbone,
      adapted.at_layer(shared),
      adapted.at_layer(row),
      mel_TF,
      adapted.LENGTH,
    )
  )(backbone)
  assert scanned.dtype == jnp.float64
  np.testing.assert_allclose(scanned, looped, rtol=1e-10, atol=1e-10)


def _linear(inputs, outputs):
  return inputs * outputs + outputs


PROJECTED = 4 * D + 2 * (INNER + D) + 2 * D + D
"""Outputs of a layer's projections."""
WHOLE = (
  LAYERS
  * (
    2 * (2 * D + _linear(D, INNER) + _linear(INNER, D))
    + (2 * D + 4 * _linear(D, D))
    + (2 * D + _linear(D, 2 * D) + 5 * D + 2 * D + _linear(D, D))
    + 2 * D
  )
  + (_linear(3 * 16, 8) + _linear(3 * 8, 8) + _linear(8, D))
  + _linear(D, 8)
)
SIZES = {
  "hra": (D * 8 + 2 * 8, _linear(8, D)),
  "hra_gru": (
    LAYERS * (3 * D * 8 + 3 * 8 * 8 + 4 * 8) + _linear(8, 4) + _linear(4, D),
    _linear(8, 4) + _linear(4, D),
  ),
  "hra_feed_forward": (_linear(D, 8), _linear(8, D)),
  "hra_shared": (LAYERS * (D * 8 + 2 * 8) + _linear(8, D), 0),
  "residual": (0, LAYERS * (2 * D * 4 + 4 + D)),
  "residual_norm": (0, LAYERS * (2 * D * 4 + 4 + D + 2 * D)),
  "lora": (0, LAYERS * 2 * (4 * (D + D) + 4 * (D + INNER))),
  "lora_some": (0, LAYERS * 3 * (D + 2 * D + D + D + INNER + D)),
  "bitfit": (0, LAYERS * (PROJECTED + 6 * D)),
  "full": (0, WHOLE),
}


@pytest.mark.parametrize("name", adapted.VARIANTS)
def test_sizes_are_those_of_the_formulas(name):
  adapter = tiny.model(adapted.VARIANTS[name]).adapter
  key = jax.random.key(0)
  shapes = (
    jax.eval_shape(adapter.init_shared, key),
    jax.eval_shape(adapter.init_task, key),
  )
  assert tuple(map(table.count, shapes)) == SIZES[name]


@pytest.mark.parametrize("name", adapted.VARIANTS)
def test_rows_are_as_exact_as_the_computation(float64, name):
  for dtype, expected in (
    ("float64", "float64"),
    ("float32", "float32"),
    ("bfloat16", "float32"),
  ):
    adapter = tiny.model(adapted.VARIANTS[name], dtype=dtype).adapter
    key = jax.random.key(0)
    shapes = jax.eval_shape(
      lambda key, adapter=adapter: (
        adapter.init_shared(key),
        adapter.init_task(key),
      ),
      key,
    )
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(shapes)} == {expected}


@pytest.mark.parametrize(
  ("config", "field", "users"),
  [
    (AdapterConfig(family="residual", controller="gru"), "controller", "'hra'"),
    (AdapterConfig(family="bitfit", width=4), "width", "'hra', 'residual', 'l"),
    (AdapterConfig(family="none", heads="both"), "heads", "'hra'"),
    (AdapterConfig(family="hra", norm="per_task"), "norm", "'residual'"),
    (AdapterConfig(family="full", alpha=2.0), "alpha", "'lora'"),
    (AdapterConfig(family="hra", sites=("first",)), "sites", "'lora'"),
  ],
)
def test_field_of_another_family_is_refused(config, field, users):
  with pytest.raises(InputError) as refused:
    families.build(config, tiny.BACKBONE, mels=tiny.FRONTEND.num_mels)
  assert f"config.adapter.{field}: " in str(refused.value)
  assert f"it belongs to {users}" in str(refused.value)


def test_every_field_has_a_family():
  fields = {field.name for field in tiny.dataclasses.fields(AdapterConfig)}
  assert frozenset({"family"}).union(*FAMILY_FIELDS.values()) == fields
  assert set(FAMILY_FIELDS) <= set(families.FAMILIES)
