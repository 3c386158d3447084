"""Every encoder under every decoder: padding, adapters, folders."""

import dataclasses
import functools

import adapted
import jax
import jax.numpy as jnp
import numpy as np
import public
import pytest
import tiny
from decoding import CONFIGS

from hra.backbone import store
from hra.config import AdapterConfig
from hra.data.tokenizer import Tokenizer
from hra.sharding import named_leaves

FRAMES, LENGTH = 64, 57
LABELS_U = np.array([3, 1, 1, 2], np.int32)
PAIRS = {
  "conformer, rnnt": {"decoder": CONFIGS["rnnt"]},
  "conformer, tdt": {"decoder": CONFIGS["tdt"]},
  "conformer, las": {"decoder": CONFIGS["las"]},
  "lstm, ctc": {**tiny.LSTM},
  "lstm, las": {**tiny.LSTM, "decoder": CONFIGS["las"]},
  "forward lstm, rnnt": {
    **tiny.LSTM,
    "causal": True,
    "decoder": CONFIGS["stateless"],
  },
  **public.FORMS,
}
ADAPTERS = (
  AdapterConfig(width=8),
  AdapterConfig(family="residual", width=4),
  AdapterConfig(family="lora", width=2, sites=("",)),
  AdapterConfig(family="bitfit"),
  AdapterConfig(family="full"),
)


def _mel(seed=0):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((FRAMES, 16)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def _heard(model, backbone, shared, row, mel_TF, length):
  """(gradient of the loss by the row, its total, weight, logits)."""

  def loss(row):
    found = model.loss(backbone, shared, row, mel_TF, length, LABELS_U, 4)
    return found.total, found.weight

  (total, weight), gradient = jax.value_and_grad(loss, has_aux=True)(row)
  output = model.logits(backbone, shared, row, None, mel_TF, length, LABELS_U)
  return gradient, total, weight, output.logits


@pytest.fixture(params=PAIRS)
def changes(request):
  return PAIRS[request.param]


@pytest.fixture(
  params=[
    pytest.param(
      (pair, adapter),
      id=f"{pair}-{adapter.family}",
      # Each adapter on one pair, each pair with one adapter; the rest is slow.
      marks=[]
      if pair == "conformer, rnnt" or adapter is ADAPTERS[0]
      else pytest.mark.slow,
    )
    for pair in PAIRS
    for adapter in ADAPTERS
  ]
)
def adapted_changes(request):
  pair, adapter = request.param
  return PAIRS[pair], adapter


def test_padding_changes_nothing(changes):
  model = tiny.model(AdapterConfig(family="none"), **changes)
  backbone = tiny.backbone(**changes)
  clean_TF, soiled_TF = _mel(), _mel()
  soiled_TF[LENGTH:] = 1e3
  for clean, soiled in zip(
    *(
      _heard(model, backbone, {}, {}, mel_TF, jnp.asarray(LENGTH))[1:3]
      for mel_TF in (clean_TF, soiled_TF)
    ),
    strict=True,
  ):
    np.testing.assert_allclose(clean, soiled, rtol=1e-5)
    assert clean > 0


def test_a_fresh_row_is_the_backbone_and_learns(adapted_changes):
  changes, adapter = adapted_changes
  bare = tiny.model(AdapterConfig(family="none"), **changes)
  model = tiny.model(adapter, **changes)
  backbone = tiny.backbone(**changes)
  key = jax.random.key(0)
  shared, row = model.adapter.init_shared(key), model.adapter.init_task(key)
  given = (_mel(), jnp.asarray(LENGTH))
  *_, expected = _heard(bare, backbone, {}, {}, *given)
  gradient, *_, logits = _heard(model, backbone, shared, row, *given)
  np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6)
  assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) > 1e-4
  # Another row than the fresh one is heard.
  random = adapted.random(row, seed=1, scale=0.3)
  *_, other = _heard(model, backbone, shared, random, *given)
  assert np.abs(other - expected).max() > 1e-2


def test_a_folder_brings_it_back(changes, tmp_path):
  tokenizer = Tokenizer.train(["abcde edcba"], vocabulary=8, kind="char")
  backbone = tiny.backbone(**changes)
  fingerprint = store.save(
    tmp_path, backbone, frontend=tiny.FRONTEND, tokenizer=tokenizer, about={}
  )
  found = store.load(tmp_path)
  assert found.config == backbone.config
  assert found.fingerprint == fingerprint
  for (path, ours), theirs in zip(
    named_leaves(backbone), jax.tree.leaves(found.module), strict=True
  ):
    np.testing.assert_array_equal(ours, theirs, err_msg=path)


def test_how_a_decoder_is_trained_is_the_run_s_own_to_say(tmp_path):
  """Chunks and smoothing change no parameter, and so no fingerprint."""
  tokenizer = Tokenizer.train(["abcde edcba"], vocabulary=8, kind="char")
  folder = functools.partial(
    store.save, frontend=tiny.FRONTEND, tokenizer=tokenizer, about={}
  )
  smoothed = dataclasses.replace(CONFIGS["las"], label_smoothing=0.2)
  prints = [
    folder(tmp_path / str(place), tiny.backbone(decoder=decoder))
    for place, decoder in enumerate((CONFIGS["las"], smoothed))
  ]
  assert prints[0] == prints[1]
  asked = dataclasses.replace(
    tiny.BACKBONE,
    decoder=dataclasses.replace(smoothed, label_smoothing=0.3, width=99),
  )
  loaded = store.load(tmp_path / "1", computed=asked)
  assert loaded.config.decoder == dataclasses.replace(
    smoothed, label_smoothing=0.3
  )
  assert loaded.module.head.smoothing == 0.3


def test_a_forward_lstm_never_takes_back_a_frame():
  changes = {**tiny.LSTM, "causal": True}
  model = tiny.model(AdapterConfig(family="none"), **changes)
  backbone = tiny.backbone(**changes)
  encode = jax.jit(
    lambda mel_TF: model.encode(backbone, {}, {}, mel_TF, FRAMES).hidden_TD
  )
  whole_TD = encode(_mel())
  for heard in (1, 9, 16):
    there_T1 = np.arange(FRAMES)[:, None] < heard
    part_TD = encode(np.where(there_T1, _mel(), _mel(1)))
    same_T = np.all(part_TD == whole_TD, axis=1)
    final = -(-heard // 4)
    assert same_T[:final].all()
    assert not same_T[final:].any()
