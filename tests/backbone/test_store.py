"""A backbone's folder: what comes back, and what is refused."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
import tiny

from hra.backbone import store
from hra.config import BackboneConfig, FrontendConfig
from hra.data.tokenizer import Tokenizer
from hra.errors import InputError

ABOUT = {"dev_wer": 0.25, "data": "none"}


def _tokenizer(text: str = "abcde edcba") -> Tokenizer:
  return Tokenizer.train([text], vocabulary=8, kind="char")


def _save(folder, module, *, frontend=tiny.FRONTEND) -> str:
  return store.save(
    folder, module, frontend=frontend, tokenizer=_tokenizer(), about=ABOUT
  )


@pytest.fixture(scope="module")
def backbone():
  return tiny.backbone()


@pytest.fixture(scope="module")
def original(tmp_path_factory, backbone):
  folder = tmp_path_factory.mktemp("backbone") / "deep" / "folder"
  _save(folder, backbone)
  return folder


@pytest.fixture
def folder(tmp_path, original):
  """A copy that a test may spoil."""
  return shutil.copytree(original, tmp_path / "copy")


def _leaves(module):
  return [np.asarray(leaf) for leaf in jax.tree.leaves(module)]


def _assert_bit_equal(first, second):
  assert jax.tree.structure(first) == jax.tree.structure(second)
  for ours, theirs in zip(_leaves(first), _leaves(second), strict=True):
    assert ours.dtype == theirs.dtype
    assert ours.tobytes() == theirs.tobytes()


def test_what_was_saved_comes_back_bit_for_bit(original, backbone):
  loaded = store.load(original)
  _assert_bit_equal(loaded.module, backbone)
  assert loaded.config == backbone.config
  assert loaded.frontend == tiny.FRONTEND
  assert loaded.tokenizer.model == _tokenizer().model
  assert loaded.about == ABOUT
  assert sorted(path.name for path in original.iterdir()) == [
    "config.json",
    "model.safetensors",
    "tokenizer.model",
  ]


def test_bfloat16_parameters_come_back_bit_for_bit(tmp_path):
  backbone = tiny.backbone(param_dtype="bfloat16", dtype="bfloat16")
  fingerprint = _save(tmp_path, backbone)
  loaded = store.load(tmp_path)
  _assert_bit_equal(loaded.module, backbone)
  assert loaded.fingerprint == fingerprint


def test_fingerprint_does_not_follow_how_it_is_computed(original, backbone):
  computed = BackboneConfig(
    width=99, dtype="bfloat16", param_dtype="bfloat16", remat="full"
  )
  plain = store.load(original)
  half = store.load(original, computed=computed)
  assert half.fingerprint == plain.fingerprint
  assert half.config == dataclasses.replace(
    backbone.config,
    dtype="bfloat16",
    param_dtype="bfloat16",
    remat="full",
  )
  for ours, theirs in zip(
    _leaves(half.module), _leaves(plain.module), strict=True
  ):
    assert ours.dtype == "bfloat16"
    np.testing.assert_array_equal(ours, theirs.astype(ours.dtype))


@pytest.mark.parametrize(
  ("changes", "same"),
  [
    ({"dtype": "bfloat16", "remat": "full"}, True),
    ({"causal": True}, False),
    ({"heads": 4}, False),
  ],
)
def test_fingerprint_follows_what_is_computed_not_how(
  tmp_path, original, backbone, changes, same
):
  """The same parameters, put to another use."""
  config = dataclasses.replace(backbone.config, **changes)
  other = jax.tree.unflatten(
    jax.tree.structure(store.abstract(config, tiny.FRONTEND)),
    jax.tree.leaves(backbone),
  )
  fingerprint = store.load(original).fingerprint
  assert (_save(tmp_path, other) == fingerprint) == same


def test_fingerprint_follows_one_bit_and_the_frontend(
  tmp_path, original, backbone
):
  fingerprint = store.load(original).fingerprint
  assert _save(tmp_path / "again", backbone) == fingerprint
  leaves, structure = jax.tree.flatten(backbone)
  changed = np.array(leaves[5])
  changed.reshape(-1).view(np.uint32)[3] ^= 1
  leaves[5] = changed
  one_bit = jax.tree.unflatten(structure, leaves)
  assert _save(tmp_path / "bit", one_bit) != fingerprint
  frontend = dataclasses.replace(tiny.FRONTEND, floor=1e-6)
  assert _save(tmp_path / "floor", backbone, frontend=frontend) != fingerprint


def _edit_config(edit):
  def spoil(folder):
    path = folder / "config.json"
    described = json.loads(path.read_text())
    edit(described)
    path.write_text(json.dumps(described))

  return spoil


def _edit_tensors(edit):
  def spoil(folder):
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    edit(tensors)
    safetensors.numpy.save_file(tensors, path)

  return spoil


def _truncate(name):
  def spoil(folder):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-7])

  return spoil


def _reshape(tensors):
  tensors["head/kernel"] = tensors["head/kernel"].T.copy()


def _negate(tensors):
  tensors["head/bias"][0] += 1.0


SPOILT = {
  "no folder": (shutil.rmtree, "config.json"),
  "no config": (lambda f: (f / "config.json").unlink(), "config.json"),
  "no weights": (
    lambda f: (f / "model.safetensors").unlink(),
    "model.safetensors",
  ),
  "no tokenizer": (
    lambda f: (f / "tokenizer.model").unlink(),
    "tokenizer.model",
  ),
  "truncated weights": (_truncate("model.safetensors"), "model.safetensors"),
  "empty weights": (
    lambda f: (f / "model.safetensors").write_bytes(b""),
    "model.safetensors",
  ),
  "truncated config": (_truncate("config.json"), "config.json"),
  "no text": (
    lambda f: (f / "config.json").write_bytes(b"\xff\xfe{}"),
    "config.json",
  ),
  "no mapping": (
    lambda f: (f / "config.json").write_text("[1]"),
    "config.json",
  ),
  "format of tomorrow": (
    _edit_config(lambda d: d.update(format=2)),
    "format 1",
  ),
  "another architecture": (
    _edit_config(lambda d: d.update(architecture="rnn")),
    "conformer",
  ),
  "no fingerprint": (
    _edit_config(lambda d: d.pop("fingerprint")),
    "fingerprint",
  ),
  "unknown field": (
    _edit_config(lambda d: d["backbone"].update(widht=16)),
    "config.json:backbone.widht",
  ),
  "wrong type": (
    _edit_config(lambda d: d["features"].update(num_mels="16")),
    "config.json:features.num_mels",
  ),
  "changed weight": (_edit_tensors(_negate), "model.safetensors"),
  "missing tensor": (
    _edit_tensors(lambda t: t.pop("head/bias")),
    "model.safetensors",
  ),
  "extra tensor": (
    _edit_tensors(lambda t: t.update(extra=np.zeros(2, np.float32))),
    "model.safetensors",
  ),
  "misshapen tensor": (_edit_tensors(_reshape), "model.safetensors"),
  "another tokenizer": (
    lambda f: _tokenizer("fghij").save(f / "tokenizer.model"),
    "tokenizer.model",
  ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_folder_is_refused_by_name_in_one_line(folder, name):
  spoil, mentioned = SPOILT[name]
  spoil(folder)
  with pytest.raises(InputError) as refused:
    store.load(folder)
  message = str(refused.value)
  assert str(folder) in message
  assert mentioned in message
  assert "\n" not in message


@pytest.mark.parametrize(
  ("edit", "path"),
  [
    (lambda t: t.pop("head/bias"), "head/bias"),
    (lambda t: t.update(extra=np.zeros(2)), "extra"),
    (_reshape, "head/kernel"),
  ],
)
def test_wrong_parameters_are_named(backbone, edit, path):
  tensors = store.to_tensors(backbone)
  edit(tensors)
  with pytest.raises(InputError, match=f"there: {path}: expected"):
    store.from_tensors(tensors, backbone.config, tiny.FRONTEND, where="there")


def test_abstract_counts_stacked_frames():
  stacked = FrontendConfig(num_mels=8, stack=2)
  shapes = store.abstract(tiny.BACKBONE, stacked)
  assert shapes.subsampling.first.kernel.shape == (3, 16, 8)
