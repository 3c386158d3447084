"""A backbone's folder, kept in 8 bits: its logits, bytes and fingerprint."""

import dataclasses

import adapted
import corpus
import jax
import numpy as np
import public
import pytest
import tiny

from hra import config_tree
from hra.backbone import store
from hra.config import AdapterConfig, Config
from hra.config_tree import ConfigError
from hra.data.tokenizer import Tokenizer
from hra.evaluate.recognizer import load_backbone
from hra.nn import int8

pytest.importorskip("qwix")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("int8")
  return corpus.backbone_folder(folder, corpus.prepared(folder))


def _computed(**changes):
  return dataclasses.replace(tiny.BACKBONE, **changes)


def _bytes(module) -> int:
  return sum(leaf.nbytes for leaf in jax.tree.leaves(module))


def _kept_in_8_bits(module):
  return {
    path for path, leaf in store.named_leaves(module) if leaf.dtype == np.int8
  }


def test_a_folder_is_loaded_in_8_bits(folder):
  whole = store.load(folder)
  small = store.load(folder, computed=_computed(weights="int8"))
  assert small.fingerprint == whole.fingerprint
  assert small.config.weights == "int8"
  kept = _kept_in_8_bits(small.module)
  assert len(kept) == 10  # of a layer's projections
  assert all(path.startswith("layers/") for path in kept)
  leaves = dict(store.named_leaves(whole.module))
  saved = sum(3 * leaves[path].size for path in kept)
  scales = sum(
    leaf.nbytes
    for path, leaf in store.named_leaves(small.module)
    if path.endswith("/scale") and path not in leaves
  )
  assert _bytes(whole.module) - _bytes(small.module) == saved - scales
  abstract = store.abstract(small.config, small.frontend)
  assert _shapes(abstract) == _shapes(small.module)


def _shapes(module):
  return {
    path: (leaf.shape, leaf.dtype) for path, leaf in store.named_leaves(module)
  }


@pytest.mark.parametrize(
  "form",
  [
    None,
    *(pytest.param(form, marks=pytest.mark.slow) for form in public.FORMS),
  ],
)
def test_logits_are_those_of_the_rounded_weights(form):
  changes = dict(public.FORMS.get(form, {}))
  whole, small = (
    tiny.backbone(weights=weights, **changes) for weights in ("float", "int8")
  )
  rounded = dict(store.named_leaves(whole))
  told = dict(store.named_leaves(small))
  for path in _kept_in_8_bits(small):
    scale = told[path.removesuffix("kernel") + "scale"]
    rounded[path] = np.asarray(told[path], np.float32) * np.asarray(scale)
  again = jax.tree.unflatten(jax.tree.structure(whole), rounded.values())
  model = tiny.model(adapted.NONE, **changes)
  mel_TF = adapted.mel(96)

  def logits(module):
    return np.asarray(
      adapted.logits(model, module, {}, {}, mel_TF, np.int32(96))
    )

  exact, ours, theirs = map(logits, (whole, small, again))
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)
  wrong = np.abs(ours - exact).max() / exact.std()
  print(form, wrong)
  assert 1e-3 < wrong < 0.1


@pytest.mark.parametrize(
  "name",
  [
    "hra",
    "lora",
    pytest.param("residual", marks=pytest.mark.slow),
    pytest.param("bitfit", marks=pytest.mark.slow),
  ],
)
def test_adapters_train_on_it(name):
  """The gradient of a row is that on the rounded weights, and not zero."""
  model = tiny.model(adapted.VARIANTS[name])
  small = tiny.backbone(weights="int8")
  shared, row = adapted.trees(model.adapter)
  mel_TF, length = adapted.mel(96), np.int32(96)
  labels_U, count = np.array([1, 2, 3], np.int32), np.int32(3)

  def loss(row):
    found = model.loss(small, shared, row, mel_TF, length, labels_U, count)
    return found.total

  value, gradient = jax.jit(jax.value_and_grad(loss))(row)
  step = jax.tree.map(lambda leaf, slope: leaf - 1e-3 * slope, row, gradient)
  assert jax.jit(loss)(step) < value


def test_a_recognizer_of_it_transcribes(folder):
  wave = 0.1 * np.random.default_rng(0).standard_normal(16_000)
  backbone = load_backbone(folder, computed=_computed(weights="int8"))
  (text,) = backbone.transcribe([wave.astype(np.float32)])
  tokenizer = Tokenizer.load(folder)
  assert not tokenizer.unknown(text)


@pytest.mark.parametrize(
  "change",
  [
    ("train.mode", "pretrain"),
    ("train.mode", "language_model"),
    ("adapter", AdapterConfig(family="full")),
    ("backbone.encoder", "lstm"),
  ],
)
def test_what_trains_is_never_in_8_bits(change):
  config = config_tree.replaced(Config(), "backbone.weights", "int8")
  config_tree.validate(config)
  config = config_tree.replaced(config, *change)
  if change[1] == "pretrain":
    config.adapter = AdapterConfig(family="none")
    config.data.grouping = "pooled"
  if change[1] == "lstm":
    config.backbone = dataclasses.replace(
      config.backbone, **tiny.LSTM, width=64
    )
  with pytest.raises(ConfigError, match=r"backbone\.weights"):
    config_tree.validate(config)


def test_everything_but_projections_stays_as_it_is():
  whole, small = tiny.backbone(), tiny.backbone()
  int8.quantise(small.layers)
  told = dict(store.named_leaves(small))
  for path, leaf in store.named_leaves(whole):
    if path not in _kept_in_8_bits(small):
      np.testing.assert_array_equal(leaf, told[path], err_msg=path)
