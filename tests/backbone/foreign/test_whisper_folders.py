"""Folders of Whisper: what is refused, repeated and asked for."""

import dataclasses
import shutil

import jax.numpy as jnp
import originals
import pytest
import safetensors.numpy
import whispers

from hra.backbone import store
from hra.backbone.foreign import convert
from hra.backbone.prompted import Asked
from hra.errors import InputError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  return tmp_path_factory.mktemp("whisper")


def test_the_tied_embedding_may_stand_twice(root, tmp_path):
  """What a checkpoint repeats is used once."""
  original, folder, stored = whispers.pair(root, "small")
  tensors = safetensors.numpy.load_file(folder / "model.safetensors")
  assert "proj_out.weight" not in tensors
  tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"]
  other = shutil.copytree(folder, tmp_path / "twice")
  safetensors.numpy.save_file(tensors, other / "model.safetensors")
  made = convert.convert(str(other), tmp_path / "made")
  assert made.fingerprint == stored.fingerprint
  del original


def test_layers_of_encoder_and_decoder_differ_in_number(root):
  """As Whisper's turbo."""
  original, _, stored = whispers.pair(root, "odd")
  assert len(original.model.encoder.layers) == stored.config.layers == 3
  assert len(original.model.decoder.layers) == 1
  assert stored.module.head.layers.feed_forward.up.kernel.shape[0] == 1


def _config(**fields):
  return lambda folder: whispers.change(folder, "config.json", **fields)


def _generation(**fields):
  return lambda folder: whispers.change(
    folder, "generation_config.json", **fields
  )


SPOILT = {
  "untied": (
    _config(tie_word_embeddings=False),
    ("tie_word_embeddings", "False"),
  ),
  "no such end": (_config(eos_token_id=999), ("eos_token_id", "999")),
  "other frames": (
    _config(max_source_positions=60),
    ("max_source_positions", "expected the 50 frames", "got 60"),
  ),
  "another layer": (
    _config(decoder_layers=3),
    ("model.decoder.layers.2", "no such tensor"),
  ),
  "heads that don't divide": (_config(encoder_attention_heads=3), ("heads",)),
  "another activation": (
    _config(activation_function="swiglu"),
    ("activation_function", "'swiglu'"),
  ),
  "an id that is none": (
    _generation(suppress_tokens=[3, 320]),
    ("generation_config.json: suppress_tokens", "of the vocabulary", "320"),
  ),
  "no list": (
    _generation(begin_suppress_tokens=220),
    ("begin_suppress_tokens", "220"),
  ),
  "dither": (
    lambda folder: whispers.change(
      folder, "preprocessor_config.json", dither=0.1
    ),
    ("dither", "0.1"),
  ),
  "another end in the tokenizer": (
    lambda folder: whispers.change(
      folder, "tokenizer_config.json", eos_token="<|en|>"
    ),
    ("eos_token", "id 262"),
  ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_folder_is_refused_by_name_in_one_line(root, tmp_path, name):
  spoil, mentioned = SPOILT[name]
  _, folder, _ = whispers.pair(root, "small")
  other = shutil.copytree(folder, tmp_path / "spoilt")
  spoil(other)
  with pytest.raises(InputError) as refused:
    convert.convert(str(other), tmp_path / "out")
  message = str(refused.value)
  assert "\n" not in message
  for each in (str(other), *mentioned):
    assert each in message, message
  assert not (tmp_path / "out" / "config.json").exists()


def test_a_language_is_chosen_when_converting_or_later(root, tmp_path):
  _, folder, stored = whispers.pair(root, "small")
  made = convert.convert(str(folder), tmp_path / "made", language="de")
  assert made.fingerprint == stored.fingerprint
  german = store.load(tmp_path / "made")
  assert stored.config.decoder.language == "en"
  assert german.config.decoder.language == "de"
  later = store.asked(stored, Asked(language="de"))
  assert later.config == german.config == later.module.config
  assert later.module.head.config == later.config


@pytest.mark.parametrize(
  ("name", "asked", "mentioned"),
  [
    ("small", {"language": "fr"}, ("2: en, de", "'fr'")),
    ("one language", {"language": "en"}, ("decoder.language", "got en")),
    ("one language", {"task": "translate"}, ("decoder.task", "translate")),
  ],
)
def test_what_a_decoder_has_no_prompt_for(root, name, asked, mentioned):
  *_, stored = whispers.pair(root, name)
  with pytest.raises(InputError) as refused:
    store.asked(stored, Asked(**asked))
  for each in mentioned:
    assert each in str(refused.value)


def test_recordings_that_are_too_long_are_named(root):
  *_, stored = whispers.pair(root, "small")
  model = originals.ours(stored)
  mel = model.features(jnp.zeros(40_000), jnp.asarray(40_000))
  with pytest.raises(InputError, match=r"expected 50 frames.*got 125"):
    model.encode(stored.module, {}, {}, mel.mel_TF, mel.length)


def test_a_decoder_keeps_a_prompt_of_its_own(root):
  """Where its tokenizer has neither languages nor times."""
  *_, stored = whispers.pair(root, "one language")
  decoder = dataclasses.replace(
    stored.config.decoder, prompt=(3, 5), first_time=0, texts=0
  )
  config = dataclasses.replace(stored.config, decoder=decoder)
  other = dataclasses.replace(stored, config=config)
  assert store.asked(other, Asked()).config.decoder.prompt == (3, 5)
