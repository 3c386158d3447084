"""From audio on: the front end of a folder, masks and greedy labels, in batches."""

import functools

import jax
import numpy as np
import originals
import pytest
from originals import torch

from hra.decoders.ctc import best_path

FEATURES = {"lasr": 5e-5, "parakeet": 5e-5, "w2v_bert": 2e-4}
SAMPLES = (16_000, 12_345, 8_160)


def _voice(samples, seed):
  """A gliding voice in noise 25 dB below (as in tests/features)."""
  rng = np.random.default_rng(seed)
  seconds = np.arange(samples) / 16_000
  phase = 2 * np.pi * (110 + 40 * seconds) * seconds
  wave = sum(np.sin(k * phase + k * k) / k**0.5 for k in range(1, 40)) / 20
  return (wave + 0.01 * rng.normal(size=samples)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def _ours(model, backbone, wave_BS, samples_B):
  def one(wave_S, samples):
    mel_TF, length = model.features(wave_S, samples)
    encoded = model.encode(backbone, {}, {}, mel_TF, length)
    logits_TV = encoded.decoder.logits(encoded.hidden_TD, length, None)
    path_T = best_path(logits_TV, encoded.length)
    return mel_TF, length, logits_TV, encoded.length, path_T

  return jax.vmap(one)(wave_BS, samples_B)


@pytest.mark.filterwarnings("ignore:At least one mel filter")
@pytest.mark.parametrize("family", originals.KINDS)
def test_audio_is_heard_as_transformers_hears_it(family, tmp_path):
  original = originals.model(family)
  folder = originals.save(tmp_path, family, original)
  backbone, found = originals.converted(folder)
  waves = [_voice(samples, seed) for seed, samples in enumerate(SAMPLES)]
  inputs = originals.extractor(family)(
    waves, sampling_rate=16_000, return_attention_mask=True, return_tensors="pt"
  )
  mask_BT = inputs["attention_mask"].bool()
  with torch.no_grad():
    logits = original(inputs["input_features"], attention_mask=mask_BT).logits
  padded_BS = np.zeros((len(waves), max(SAMPLES)), np.float32)
  for row, wave in zip(padded_BS, waves, strict=True):
    row[: len(wave)] = wave
  mel, length, ours, valid, path = map(
    np.asarray,
    _ours(originals.ours(found), backbone, padded_BS, np.array(SAMPLES)),
  )
  np.testing.assert_array_equal(length, mask_BT.sum(dim=1))
  theirs_BTF = inputs["input_features"].numpy()
  for b, count in enumerate(length):
    np.testing.assert_allclose(
      mel[b, :count], theirs_BTF[b, :count], atol=FEATURES[family], rtol=0
    )
    heard = slice(valid[b])
    theirs_TV = logits[b].numpy()[heard][:, list(found.translated.order)]
    # What features differ by is heard too.
    np.testing.assert_allclose(ours[b, heard], theirs_TV, atol=1e-3, rtol=0)
    np.testing.assert_array_equal(path[b, heard], theirs_TV.argmax(axis=1))
