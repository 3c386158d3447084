"""Whisper against transformers: features, logits, losses, gradients, greedy ids."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import originals
import pytest
import whispers
from originals import torch, transformers

from hra.backbone import store
from hra.config import BackboneConfig, DecoderConfig

FEATURES, LOGITS, LOSS, GRADIENT = 5e-5, 5e-6, 1e-5, 5e-5
"""Absolute, absolute, relative, and relative to the largest."""
SAMPLES = whispers.SAMPLES
TEXTS_BU = np.array([[5, 6, 7, 9], [8, 9, 0, 0], [3, 0, 0, 0]])
"""Ids of theirs."""
LENGTHS_B = np.array([4, 2, 1])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  return tmp_path_factory.mktemp("whisper")


@pytest.fixture(params=whispers.CONFIGS)
def pair(request, root):
  return whispers.pair(root, request.param)


def _ids(labels, order):
  return order[np.asarray(labels)]


@functools.partial(jax.jit, static_argnums=0)
def _ours(model, backbone, mel_BTF, length_B, labels_BU, label_length_B):
  """(loss, its gradient by the features, logits)."""

  def total(mel_BTF):
    def one(*utterance):
      return model.loss(backbone, {}, {}, *utterance)

    found = jax.vmap(one)(mel_BTF, length_B, labels_BU, label_length_B)
    return found.total.sum() / found.weight.sum()

  def logits(*utterance):
    return model.logits(backbone, {}, {}, None, *utterance).logits

  loss, gradient = jax.value_and_grad(total)(mel_BTF)
  return loss, gradient, jax.vmap(logits)(mel_BTF, length_B, labels_BU)


def _theirs(model, prompt, mel_BFT, texts_BU, lengths_B):
  """The same of transformers, the prompt's labels left out of the loss."""
  mel = torch.tensor(mel_BFT, requires_grad=True)
  count, width = texts_BU.shape
  entering = np.concatenate([np.tile(prompt, (count, 1)), texts_BU], axis=1)
  place = np.arange(width + 1)
  targets = np.where(
    place < lengths_B[:, None], np.pad(texts_BU, ((0, 0), (0, 1))), -100
  )
  targets = np.where(place == lengths_B[:, None], whispers.END, targets)
  ignored = np.full((count, len(prompt) - 1), -100)
  found = model(
    mel,
    decoder_input_ids=torch.tensor(entering),
    labels=torch.tensor(np.concatenate([ignored, targets], axis=1)),
  )
  found.loss.backward()
  logits = found.logits.detach().numpy()[:, len(prompt) - 1 :]
  return found.loss.item(), mel.grad.numpy(), logits


@pytest.mark.parametrize("count", [3, 1])
def test_features(pair, count):
  *_, stored = pair
  waves = whispers.waves(SAMPLES[-count:])
  theirs_BFT, mask_BT = whispers.features(waves)
  model = originals.ours(stored)
  for wave, theirs_FT, mask_T in zip(waves, theirs_BFT, mask_BT, strict=True):
    mel = model.features(jnp.asarray(wave), jnp.asarray(len(wave)))
    np.testing.assert_allclose(mel.mel_TF, theirs_FT.T, atol=FEATURES, rtol=0)
    assert mel.length == mask_T.sum()


@pytest.mark.parametrize("count", [3, 1])
def test_logits_losses_and_gradients(pair, count):
  original, folder, stored = pair
  order = whispers.order(folder)
  decoder = stored.config.decoder
  mel_BFT, mask_BT = whispers.features(whispers.waves(SAMPLES[:count]))
  texts_BU, lengths_B = TEXTS_BU[:count], LENGTHS_B[:count]
  theirs = _theirs(
    original, _ids(decoder.prompt, order), mel_BFT, texts_BU, lengths_B
  )
  labels_BU = np.argsort(order)[texts_BU]
  ours = _ours(
    originals.ours(stored),
    stored.module,
    mel_BFT.swapaxes(1, 2),
    mask_BT.sum(axis=1),
    labels_BU,
    lengths_B,
  )
  loss, gradient_BTF, logits_BPV = map(np.asarray, ours)
  their_loss, their_gradient_BFT, their_logits = theirs
  there_BP = np.arange(5) <= lengths_B[:, None]
  assert 0.5 < their_logits.std() < 2
  np.testing.assert_allclose(
    logits_BPV[there_BP],
    their_logits[..., order][there_BP],
    atol=LOGITS * their_logits.std(),
    rtol=0,
  )
  np.testing.assert_allclose(loss, their_loss, rtol=LOSS)
  np.testing.assert_allclose(
    gradient_BTF,
    their_gradient_BFT.swapaxes(1, 2),
    atol=GRADIENT * np.abs(their_gradient_BFT).max(),
    rtol=0,
  )


@functools.partial(jax.jit, static_argnums=0)
def _heard(model, backbone, mel_BTF, length_B):
  def one(mel_TF, length):
    hidden_TD, length, decoder = model.encode(backbone, {}, {}, mel_TF, length)
    return decoder.greedy(hidden_TD, length)

  return jax.vmap(one)(mel_BTF, length_B)


def _generated(original, mel_BFT, prompt, *, name, **asked):
  """Ids by transformers.

  Its Whisper goes on behind what it heard, short as the utterance may be: with times,
  and where sentences don't end, one pass is by its generic search and Whisper's rules.
  """
  mel = torch.tensor(mel_BFT)
  greedily = {"do_sample": False, "num_beams": 1}
  timed = asked.get("timestamps", False)
  if not timed and name != "one language":
    spoken = {"language": "en", "task": "transcribe", **asked}
    return original.generate(mel, **greedily, **spoken)
  rules = original.generation_config
  begun = len(prompt)
  processors = [
    transformers.SuppressTokensAtBeginLogitsProcessor(
      rules.begin_suppress_tokens, begun
    ),
    transformers.SuppressTokensLogitsProcessor(rules.suppress_tokens),
    *([transformers.WhisperTimeStampLogitsProcessor(rules, begun)] * timed),
  ]
  with torch.no_grad():
    return transformers.GenerationMixin.generate(
      original,
      mel,
      decoder_input_ids=torch.tensor(np.tile(prompt, (len(mel), 1))),
      logits_processor=transformers.LogitsProcessorList(processors),
      **greedily,
    )


ASKED = {
  "small": (
    {},
    {"language": "de"},
    {"language": "de", "task": "translate"},
    {"timestamps": True},
  ),
  "odd": ({}, {"timestamps": True}),
  "one language": ({}, {"timestamps": True}),
}


@pytest.mark.parametrize(
  ("name", "asked"),
  [(name, asked) for name, each in ASKED.items() for asked in each],
)
def test_greedy_ids_are_identical(root, name, asked):
  original, folder, stored = whispers.pair(root, name)
  order = whispers.order(folder)
  stored = store.load(
    root / name / "ours",
    computed=BackboneConfig(decoder=DecoderConfig(**asked)),
  )
  mel_BFT, mask_BT = whispers.features(
    whispers.waves([16_000] * 5 + [9_000, 200])
  )
  found = _heard(
    originals.ours(stored),
    stored.module,
    mel_BFT.swapaxes(1, 2),
    mask_BT.sum(axis=1),
  )
  prompt = _ids(stored.config.decoder.prompt, order)
  theirs = _generated(original, mel_BFT, prompt, name=name, **asked)
  ended = []
  for ids, labels_U, length in zip(
    theirs.tolist(), found.labels_U, found.length, strict=True
  ):
    ids = ids if ids[0] != whispers.START else ids[len(prompt) :]
    ended.append(whispers.END in ids)
    said = ids[: ids.index(whispers.END)] if ended[-1] else ids
    assert _ids(labels_U[:length], order).tolist() == said
  assert len({tuple(ids) for ids in theirs.tolist()}) > 1
  if asked == {"language": "de"}:
    assert any(ended)
    assert not all(ended)
