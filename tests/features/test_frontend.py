"""Front ends against the public extractors, and what padding may not change."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import SeamlessM4TFeatureExtractor, WhisperFeatureExtractor
from transformers.audio_utils import (
  mel_filter_bank,
  spectrogram,
  window_function,
)

from hra.config import FrontendConfig
from hra.errors import InputError
from hra.features import frontend

TOLERANCE = 5e-5


def _speechlike(samples, seed=0):
  """A gliding voice with a quiet stretch and noise 25 dB below, in [-1, 1].

  A pure tone 40 dB and more above its neighbours is no test of float32: the
  rounding of any float32 transform moves the quiet bins by 2e-4.
  """
  rng = np.random.default_rng(seed)
  seconds = np.arange(samples) / 16_000
  phase = 2 * np.pi * (110 + 40 * seconds) * seconds
  wave = sum(np.sin(k * phase + k * k) / k**0.5 for k in range(1, 40)) / 20
  wave += 0.01 * rng.normal(size=samples)
  wave[samples // 3 : samples // 2] *= 0.03
  return wave.astype(np.float32)


@functools.cache
def _compiled(config):
  return jax.jit(functools.partial(frontend.log_mel, config=config))


def _log_mel(wave, config, *, size=None, fill=0.0):
  """The valid frames, and the whole result, of a wave padded to `size`."""
  size = size or wave.size
  padded = np.full(size, fill, wave.dtype)
  padded[: wave.size] = wave
  mel = _compiled(config)(padded, wave.size)
  return np.asarray(mel.mel_TF)[: int(mel.length)], mel


def _without_window(config):
  """Whisper's front end on the utterance alone, for small test shapes."""
  return dataclasses.replace(config, pad_to=0)


@pytest.mark.parametrize("mels", [80, 128])
def test_whisper_equals_its_extractor_at_30_seconds(mels):
  wave = _speechlike(70_123)
  extractor = WhisperFeatureExtractor(feature_size=mels)
  expected = extractor(
    wave, sampling_rate=16_000, return_attention_mask=True, return_tensors="np"
  )
  config = frontend.PRESETS[f"whisper{mels}"]
  _, mel = _log_mel(wave, config, size=80_000)
  np.testing.assert_allclose(
    mel.mel_TF, expected["input_features"][0].T, atol=TOLERANCE
  )
  assert int(mel.length) == expected["attention_mask"].sum()


def test_whisper_reflects_at_the_end_of_a_full_window():
  config = dataclasses.replace(
    frontend.PRESETS["whisper80"], pad_to=16_000, normalize="none"
  )
  wave = _speechlike(24_000)
  expected = spectrogram(
    wave.astype(np.float64),
    window_function(400, "hann"),
    frame_length=400,
    hop_length=160,
    power=2.0,
    mel_filters=frontend.mel_filters(config),
    log_mel="log10",
  ).T[:-1]
  valid, _ = _log_mel(wave, config, size=30_000)
  np.testing.assert_allclose(valid, expected, atol=TOLERANCE)


@pytest.mark.parametrize("samples", [16_000, 16_160])
def test_kaldi_equals_the_seamless_extractor(samples):
  wave = _speechlike(samples)
  expected = SeamlessM4TFeatureExtractor()(
    wave, sampling_rate=16_000, return_tensors="np"
  )
  count = int(expected["attention_mask"].sum())
  valid, mel = _log_mel(wave, frontend.PRESETS["kaldi"], size=20_000)
  assert int(mel.length) == count
  np.testing.assert_allclose(
    valid, expected["input_features"][0, :count], atol=2e-4
  )


def _parakeet(wave):
  """Its extractor's definition (the extractor itself needs torch)."""
  emphasised = np.append(wave[0], wave[1:] - 0.97 * wave[:-1])
  power = spectrogram(
    np.pad(emphasised, 256),
    window_function(400, "hann", periodic=False, frame_length=512),
    frame_length=512,
    hop_length=160,
    power=2.0,
    center=False,
    mel_filters=mel_filter_bank(
      257, 80, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney"
    ),
    mel_floor=2.0**-80,
    log_mel="log",
    dtype=np.float64,
  ).T
  logs = np.log(np.exp(power) + 2.0**-24)[: wave.size // 160]
  return (logs - logs.mean(0)) / (logs.std(0, ddof=1) + 1e-5)


def _lasr(wave):
  filters = mel_filter_bank(
    257,
    128,
    125.0,
    7500.0,
    16_000,
    mel_scale="kaldi",
    triangularize_in_mel_space=True,
  )
  return spectrogram(
    wave,
    window_function(400, "hann", periodic=False),
    frame_length=400,
    hop_length=160,
    fft_length=512,
    power=2.0,
    center=False,
    mel_filters=filters,
    mel_floor=1e-5,
    log_mel="log",
    dtype=np.float64,
  ).T


ORACLES = {"parakeet": _parakeet, "lasr": _lasr}


@pytest.mark.filterwarnings("ignore:At least one mel filter")
@pytest.mark.parametrize("name", ORACLES)
def test_parakeet_and_lasr_equal_their_definitions(name):
  wave = _speechlike(20_077)
  expected = ORACLES[name](wave.astype(np.float64))
  valid, _ = _log_mel(wave, frontend.PRESETS[name], size=24_000)
  np.testing.assert_allclose(valid, expected, atol=TOLERANCE)


@pytest.mark.parametrize("scale", ["htk", "slaney", "kaldi"])
@pytest.mark.parametrize("space", ["hz", "mel"])
def test_filters_equal_the_public_ones(scale, space):
  config = FrontendConfig(
    mel_scale=scale, triangles_in=space, low_hz=60.0, high_hz=7600.0
  )
  expected = mel_filter_bank(
    257,
    80,
    60.0,
    7600.0,
    16_000,
    mel_scale=scale,
    triangularize_in_mel_space=space == "mel",
  )
  np.testing.assert_allclose(frontend.mel_filters(config), expected, atol=1e-12)


@pytest.mark.filterwarnings("ignore:At least one mel filter")
@pytest.mark.parametrize("name", ORACLES)
def test_float64_equals_the_definition_to_the_oracle_s_own_rounding(name):
  wave = _speechlike(8077).astype(np.float64)
  with jax.enable_x64(True):
    mel = _compiled(frontend.PRESETS[name])(wave, wave.size)
    assert mel.mel_TF.dtype == np.float64
    valid = np.asarray(mel.mel_TF)[: int(mel.length)]
  np.testing.assert_allclose(valid, ORACLES[name](wave), atol=1e-6)


PADDED = {
  "tiny": frontend.PRESETS["tiny"],
  "whisper": _without_window(frontend.PRESETS["whisper80"]),
  "whisper_window": dataclasses.replace(
    frontend.PRESETS["whisper80"], pad_to=6400
  ),
  "parakeet": frontend.PRESETS["parakeet"],
  "kaldi": frontend.PRESETS["kaldi"],
}


@pytest.mark.parametrize("name", PADDED)
def test_padding_changes_no_valid_frame(name):
  config = PADDED[name]
  wave = _speechlike(5033)
  alone, _ = _log_mel(wave, config)
  assert np.isfinite(alone).all()
  assert len(alone) == frontend.num_frames(5033, config)
  for fill in (0.0, 7.0, np.nan, np.inf):
    padded, mel = _log_mel(wave, config, size=9600, fill=fill)
    np.testing.assert_allclose(padded, alone, atol=2e-5)
    heard = frontend.num_frames(max(5033, config.pad_to), config)
    assert (np.asarray(mel.mel_TF)[heard:] == 0).all()


@pytest.mark.parametrize("name", PADDED)
def test_nan_in_the_audio_is_seen(name):
  wave = _speechlike(5033)
  wave[2000] = np.nan
  valid, mel = _log_mel(wave, PADDED[name], size=9600)
  assert np.isnan(valid).any()
  heard = frontend.num_frames(max(5033, PADDED[name].pad_to), PADDED[name])
  assert (np.asarray(mel.mel_TF)[heard:] == 0).all()


def test_nan_without_normalisation_stays_in_its_frames():
  wave = _speechlike(5033)
  wave[2000] = np.nan
  valid, _ = _log_mel(wave, frontend.PRESETS["default"], size=9600)
  starts = 160 * np.arange(len(valid))
  # The periodic Hann window is zero at a frame's first sample, but 0 * NaN = NaN.
  covers = (starts <= 2000) & (starts + 400 > 2000)
  np.testing.assert_array_equal(np.isnan(valid).all(axis=1), covers)
  np.testing.assert_array_equal(np.isnan(valid).any(axis=1), covers)


@pytest.mark.parametrize("name", PADDED)
@pytest.mark.parametrize("samples", [0, 1, 399, 400, 560])
def test_the_shortest_clips_are_finite(name, samples):
  config = PADDED[name]
  valid, mel = _log_mel(_speechlike(600)[:samples], config, size=600)
  assert len(valid) == frontend.num_frames(samples, config)
  assert np.isfinite(mel.mel_TF).all()


def test_a_wave_shorter_than_a_window_has_one_empty_row():
  _, mel = _log_mel(np.ones(100, np.float32), frontend.PRESETS["tiny"])
  assert mel.mel_TF.shape == (1, 40)
  assert int(mel.length) == 0
  assert (np.asarray(mel.mel_TF) == 0).all()


def test_num_frames_is_the_same_on_host_and_device():
  samples = np.array([0, 1, 399, 400, 559, 560, 16_000, 16_001])
  for config in frontend.PRESETS.values():
    host = [frontend.num_frames(int(count), config) for count in samples]
    np.testing.assert_array_equal(frontend.num_frames(samples, config), host)
    np.testing.assert_array_equal(
      frontend.num_frames(jnp.asarray(samples), config), host
    )
  default = [0, 0, 0, 1, 1, 2, 98, 98]
  config = frontend.PRESETS["default"]
  np.testing.assert_array_equal(frontend.num_frames(samples, config), default)


def test_two_vmaps_equal_one_utterance_at_a_time():
  config = frontend.PRESETS["tiny"]
  waves = np.stack([_speechlike(6400, seed) for seed in range(4)])
  lengths = np.array([6400, 5000, 900, 0])
  one = functools.partial(frontend.log_mel, config=config)
  both = jax.jit(jax.vmap(jax.vmap(one)))(
    waves.reshape(2, 2, -1), lengths.reshape(2, 2)
  )
  for i in range(4):
    alone = _compiled(config)(waves[i], lengths[i])
    row = divmod(i, 2)
    assert int(both.length[row]) == int(alone.length)
    np.testing.assert_allclose(both.mel_TF[row], alone.mel_TF, atol=1e-5)


def test_integers_and_batches_are_refused():
  config = frontend.PRESETS["default"]
  with pytest.raises(InputError, match="divide 16-bit integers by 32768"):
    frontend.log_mel(jnp.ones(800, jnp.int16), 800, config)
  with pytest.raises(InputError, match=r"\(2, 800\)"):
    frontend.log_mel(jnp.ones((2, 800)), 800, config)
