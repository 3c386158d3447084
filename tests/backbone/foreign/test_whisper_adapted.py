"""Whisper adapted, switched and searched, against itself."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import originals
import pytest
import whispers

from hra import config_tree
from hra.adapters import families
from hra.adapters.composite import Composite
from hra.backbone import store
from hra.config import AdapterConfig
from hra.decoders import beam as beams
from hra.errors import InputError
from hra.model import Model
from hra.nn import transformer as nn_transformer

LOGITS = 5e-6
"""Of test_whisper."""

ADAPTERS = {
  f"{family}, {stacks}": AdapterConfig(
    family=family,
    stacks=stacks,
    **({"width": 4} if family != "bitfit" else {}),
    **({"sites": ("attention", "feed_forward")} if family == "lora" else {}),
  )
  for family in ("hra", "residual", "lora", "bitfit")
  for stacks in ("encoder", "decoder", "both")
}
ADAPTERS["lora, across"] = AdapterConfig(
  family="lora", stacks="both", width=2, sites=("cross_attention",)
)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
  """(our backbone, features, their lengths)."""
  *_, stored = whispers.pair(tmp_path_factory.mktemp("whisper"), "small")
  return whispers.adapted(stored)


def _model(stored, config):
  adapter = families.build(config, stored.config)
  return Model(adapter=adapter, frontend=stored.frontend)


@functools.partial(jax.jit, static_argnums=0)
def _logits(model, backbone, shared, rows_B, active_B, mel_BTF, length_B):
  def one(row, active, mel_TF, length):
    labels_U = jnp.arange(1, 5)
    return model.logits(
      backbone, shared, row, active, mel_TF, length, labels_U
    ).logits

  return jax.vmap(one)(rows_B, active_B, mel_BTF, length_B)


def _moved(tree, *, seed=3):
  """Every number another one."""
  leaves, shape = jax.tree.flatten(tree)
  rng = np.random.default_rng(seed)
  moved = [leaf + 0.2 * rng.standard_normal(leaf.shape) for leaf in leaves]
  return jax.tree.unflatten(
    shape,
    [each.astype(leaf.dtype) for each, leaf in zip(moved, leaves, strict=True)],
  )


def _parts(model):
  key = jax.random.key(0)
  return model.adapter.init_shared(key), model.adapter.init_task(key)


def _stacked(rows):
  return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_fresh_row_is_the_backbone_and_another_is_not(adapted, name):
  stored, mel_BTF, length_B = adapted
  model = _model(stored, ADAPTERS[name])
  shared, fresh = _parts(model)
  rows_B = _stacked([fresh, fresh, _moved(fresh)])
  mel_BTF, length_B = mel_BTF[[0] * 3], length_B[[0] * 3]
  bare, unmoved, moved = _logits(
    model,
    stored.module,
    shared,
    rows_B,
    jnp.array([False, True, True]),
    mel_BTF,
    length_B,
  )
  largest = np.abs(bare).max()
  np.testing.assert_allclose(unmoved, bare, atol=1e-6 * largest, rtol=0)
  assert np.abs(moved - bare).max() > 1e-2 * largest


def _free(stored, *, suppressed, suppressed_first=()):
  """The backbone with something else that its searches may not say."""
  decoder = dataclasses.replace(
    stored.config.decoder,
    suppressed=suppressed,
    suppressed_first=suppressed_first,
  )
  config = dataclasses.replace(stored.config, decoder=decoder)
  tensors = store.to_tensors(stored.module)
  return store.from_tensors(tensors, config, stored.frontend, where="")


@pytest.mark.parametrize(
  "name", ["hra, both", "lora, both", "residual, decoder"]
)
def test_label_by_label_is_the_same_as_all_at_once(adapted, name):
  """Greedy search with a moved row says what its own logits say."""
  stored, mel_BTF, length_B = adapted
  module = _free(stored, suppressed=(0,))
  model = _model(stored, ADAPTERS[name])
  shared, fresh = _parts(model)
  row = _moved(fresh)

  @jax.jit
  def both(mel_TF, length):
    hidden_TD, length, decoder = model.encode(
      module, shared, row, mel_TF, length
    )
    heard = decoder.greedy(hidden_TD, length)
    logits = decoder.logits(hidden_TD, length, heard.labels_U)
    return heard, logits.at[:, 0].set(-jnp.inf)[:-1].argmax(axis=-1)

  for mel_TF, length in zip(mel_BTF, length_B, strict=True):
    heard, likeliest_U = both(mel_TF, length)
    assert heard.length == len(likeliest_U) == 16
    np.testing.assert_array_equal(heard.labels_U, likeliest_U)


def test_families_and_stacks_mix_in_a_batch(adapted):
  """Each row says what it says by itself."""
  stored, mel_BTF, length_B = adapted
  models = {
    name: _model(stored, ADAPTERS[name])
    for name in ("hra, both", "lora, decoder", "bitfit, encoder")
  }
  parts = {name: _parts(model) for name, model in models.items()}
  rows = {name: _moved(fresh) for name, (_, fresh) in parts.items()}
  mixed = Composite(
    parts=tuple((name, model.adapter) for name, model in models.items())
  )
  found = _logits(
    Model(adapter=mixed, frontend=stored.frontend),
    stored.module,
    mixed.shared({name: shared for name, (shared, _) in parts.items()}),
    _stacked([mixed.row({name: row}) for name, row in rows.items()]),
    jnp.ones(3, bool),
    mel_BTF,
    length_B,
  )
  for place, (name, model) in enumerate(models.items()):
    alone = _logits(
      model,
      stored.module,
      parts[name][0],
      _stacked([rows[name]]),
      jnp.ones(1, bool),
      mel_BTF[place : place + 1],
      length_B[place : place + 1],
    )
    np.testing.assert_allclose(found[place], alone[0], atol=1e-5, rtol=0)


def test_a_beam_s_total_is_its_sentence_s_likelihood(adapted):
  stored, mel_BTF, length_B = adapted
  model = originals.ours(stored)
  module = _free(stored, suppressed=(), suppressed_first=(0,))

  @functools.partial(jax.jit, static_argnums=0)
  def searched(beam, mel_BTF, length_B):
    def one(mel_TF, length):
      hidden_TD, length, decoder = model.encode(module, {}, {}, mel_TF, length)
      found = beams.search(
        decoder.scorer(hidden_TD, length),
        labels=len(hidden_TD),
        beam=beam,
        weights=beams.Weights(),
        language_model=None,
      )
      labels_U, count = found.labels_WU[0, :16], found.length_W[0]
      logits_PV = decoder.logits(hidden_TD, length, labels_U)
      log_PV = jax.nn.log_softmax(logits_PV.at[0, 0].set(-jnp.inf))
      log_P = jnp.take_along_axis(
        log_PV, jnp.pad(labels_U, (0, 1))[:, None], axis=1
      )[:, 0]
      alike = jnp.where(jnp.arange(len(log_P)) <= count, log_P, 0).sum()
      return found.total_W[0], alike

    return jax.vmap(one)(mel_BTF, length_B)

  totals = []
  for beam in (1, 4):
    total_B, alike_B = searched(beam, mel_BTF, length_B)
    np.testing.assert_allclose(total_B, alike_B, rtol=1e-5, atol=1e-5)
    totals.append(total_B)
  assert (totals[1] >= totals[0]).all()
  assert (totals[1] > totals[0]).any()


SWITCHES = {
  "transformer.activation": "gelu_tanh",
  "heads": 4,
  "decoder.heads": 2,
}
"""Another value of each, for the same parameters."""


def _distance(stored, adapted):
  """Of its logits from those of the backbone that is equal to theirs."""
  equal, mel_BTF, length_B = adapted
  bare = _model(equal, AdapterConfig(family="none"))
  nothing = ({}, {}, jnp.ones(3, bool))
  ours, other = (
    _logits(bare, each.module, *nothing, mel_BTF, length_B)
    for each in (equal, stored)
  )
  return np.abs(ours - other).max()


def _in_config(stored, config):
  return dataclasses.replace(
    stored,
    config=config,
    module=store.from_tensors(
      store.to_tensors(stored.module), config, stored.frontend, where=""
    ),
  )


def test_every_switch_is_heard(adapted):
  stored, *_ = adapted
  assert _distance(stored, adapted) == 0
  for field, value in SWITCHES.items():
    config = config_tree.replaced(stored.config, field, value)
    assert _distance(_in_config(stored, config), adapted) > LOGITS, field


@pytest.mark.parametrize(
  "path",
  [
    "positions",
    "head/places/embedding",
    "norm/bias",
    "norm/scale",
    "head/norm/bias",
    "layers/attention_norm/scale",
    "head/layers/cross_attention_norm/bias",
    "head/layers/cross_attention/key/kernel",
    "head/layers/feed_forward_norm/scale",
  ],
)
def test_every_part_is_heard(adapted, path):
  """A twentieth more in one number."""
  stored, *_ = adapted
  tensors = store.to_tensors(stored.module)
  moved = tensors[path].copy()
  moved.flat[1] += 0.05
  module = store.from_tensors(
    tensors | {path: moved}, stored.config, stored.frontend, where=""
  )
  other = dataclasses.replace(stored, module=module)
  assert _distance(other, adapted) > LOGITS


def test_the_norms_epsilon_is_heard(adapted, monkeypatch):
  monkeypatch.setattr(nn_transformer, "EPSILON", 1e-6)
  stored, *_ = adapted
  assert _distance(_in_config(stored, stored.config), adapted) > LOGITS


def test_projections_of_both_stacks_may_be_in_8_bits(adapted):
  pytest.importorskip("qwix")
  stored, *_ = adapted
  config = config_tree.replaced(stored.config, "weights", "int8")
  quantised = _in_config(stored, config)
  for layers in (quantised.module.layers, quantised.module.head.layers):
    assert layers.attention.query.kernel.dtype == jnp.int8
    assert layers.feed_forward.down.kernel.dtype == jnp.int8
  assert quantised.module.head.layers.cross_attention.key.bias is None
  assert LOGITS < _distance(quantised, adapted) < 0.1


def test_nothing_is_said_of_no_frame(adapted):
  """Greedily, or by a beam that is paid for labels."""
  stored, mel_BTF, _ = adapted
  model = originals.ours(stored)

  @jax.jit
  def both(mel_TF, length):
    hidden_TD, length, decoder = model.encode(
      stored.module, {}, {}, mel_TF, length
    )
    found = beams.search(
      decoder.scorer(hidden_TD, length),
      labels=20,
      beam=2,
      weights=beams.Weights(length=9.0),
      language_model=None,
    )
    return decoder.greedy(hidden_TD, length).length, found.length_W[0]

  assert both(mel_BTF[0], 0) == (0, 0)
  assert min(both(mel_BTF[0], 100)) > 0


def test_full_fine_tuning_needs_weights_of_floats(adapted):
  stored, *_ = adapted
  config = config_tree.replaced(stored.config, "weights", "int8")
  with pytest.raises(InputError, match=r"backbone\.weights.*'int8'"):
    families.build(AdapterConfig(family="full"), config, mels=whispers.MELS)


def test_a_family_that_owns_nothing_mixes_with_others(adapted):
  """Rows as files keep them: without empty trees."""
  stored, *_ = adapted
  shared_alone = families.build(
    AdapterConfig(width=4, heads="shared", stacks="both"), stored.config
  )
  other = families.build(ADAPTERS["residual, both"], stored.config)
  key = jax.random.key(0)
  assert shared_alone.init_task(key) == {}
  mixed = Composite(parts=(("0", shared_alone), ("1", other)))
  rows = [mixed.row({"0": {}}), mixed.row({"1": other.init_task(key)})]
  assert jax.tree.structure(rows[0]) == jax.tree.structure(rows[1])
