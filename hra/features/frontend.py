"""Waveform -> log-mel, on the device.

Enters: one utterance at 16 kHz, float in [-1, 1], padded to a static size.
Leaves: its log-mel frames and how many of them are valid. Callers `vmap`.
One function with switches (`hra.config.FrontendConfig`) covers the front ends
of the public backbones; `PRESETS` names them.
"""

import dataclasses
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from hra.config import FrontendConfig
from hra.dims import SAMPLE_RATE
from hra.errors import InputError

Count = TypeVar("Count", int, np.ndarray, jax.Array)

_WHISPER = FrontendConfig(
  fft_length=400,
  centered="reflect",
  pad_to=30 * SAMPLE_RATE,
  mel_scale="slaney",
  mel_norm="slaney",
  log="log10",
  floor=1e-10,
  normalize="whisper",
)

PRESETS: dict[str, FrontendConfig] = {
  "default": FrontendConfig(),
  "tiny": FrontendConfig(num_mels=40, normalize="per_mel"),
  "whisper80": _WHISPER,
  "whisper128": dataclasses.replace(_WHISPER, num_mels=128),
  "parakeet": FrontendConfig(
    window="hann_symmetric",
    centered="zero",
    pre_emphasis=0.97,
    mel_scale="slaney",
    mel_norm="slaney",
    floor=2.0**-24,
    floor_by="add",
    normalize="per_mel",
  ),
  "lasr": FrontendConfig(
    window="hann_symmetric",
    num_mels=128,
    low_hz=125.0,
    high_hz=7500.0,
    mel_scale="kaldi",
    triangles_in="mel",
  ),
  "kaldi": FrontendConfig(
    window="povey",
    pre_emphasis=0.97,
    pre_emphasis_on="frame",
    remove_dc=True,
    scale=2.0**15,
    low_hz=20.0,
    mel_scale="kaldi",
    triangles_in="mel",
    floor=2.0**-23,
    normalize="per_mel",
    normalize_epsilon=1e-7,
    epsilon_on="variance",
    stack=2,
  ),
}
"""`default`: 80 log-mels, 25 ms windows every 10 ms; `tiny`: of the bundled
backbone; the others are those of the public checkpoints of that name, `kaldi`
being w2v-BERT's and SeamlessM4T's."""


class Mel(NamedTuple):
  """The features of one utterance."""

  mel_TF: jax.Array
  """Zero from `length` on, but for silence where `config.pad_to` asks for it."""
  length: jax.Array
  """Frames that belong to the utterance."""


def num_frames(samples: Count, config: FrontendConfig) -> Count:
  """Frames (after stacking) that `samples` valid samples give.

  A frame counts where its whole window lies in the signal: floor((samples -
  window) / hop) + 1. Centred: floor(samples / hop), or the ceiling where the
  audio is padded with silence that the model hears. Works on ints (host), NumPy
  and traced arrays.
  """
  return _steps(samples, config) // config.stack


def log_mel(
  wave_S: jax.Array, length: jax.Array | int, config: FrontendConfig
) -> Mel:
  """The log-mel of one utterance.

  log(max(|DFT(window * frame)|^2 @ filters, floor)), with what the config adds
  before (pre-emphasis, DC removal, centring) and after (normalisation,
  stacking). Samples from `length` on are never looked at: neither their number
  nor their values (NaN included) change a valid frame. NaN in the valid audio
  stays visible in the frames that cover it.

  Args:
    wave_S: float samples at 16 kHz in [-1, 1]; half precision is widened to
      float32, float64 stays float64.
    length: valid samples, at most S.
    config: static.

  Returns:
    `max(num_frames(max(S, config.pad_to)), 1)` rows, so that the shortest clip
    has a shape too, and the valid length `num_frames(length)`.

  Raises:
    InputError: if the wave isn't one-dimensional float.
  """
  if wave_S.ndim != 1 or not jnp.issubdtype(wave_S.dtype, jnp.floating):
    raise InputError(
      "wave",
      expected="float samples in [-1, 1], of one utterance (vmap over others)",
      got=f"{wave_S.dtype} of shape {wave_S.shape}",
      fix="divide 16-bit integers by 32768",
    )
  dtype = jnp.promote_types(wave_S.dtype, jnp.float32)
  (size,) = wave_S.shape
  length = jnp.asarray(length)
  heard = jnp.maximum(length, config.pad_to)
  steps = max(_steps(max(size, config.pad_to), config), config.stack)
  signal_S = _signal(wave_S.astype(dtype), length, config)
  signal_S = _laid_out(signal_S, heard, steps, config)
  power_TZ = _power(_frames(signal_S, steps, config), config)
  filters_ZF = jnp.asarray(mel_filters(config), dtype)
  mel_TF = jnp.matmul(power_TZ, filters_ZF, precision=jax.lax.Precision.HIGHEST)
  valid_T1 = (jnp.arange(steps) < _steps(heard, config))[:, None]
  mel_TF = _normalized(_logarithm(mel_TF, config), valid_T1, config)
  rows = steps // config.stack
  kept_T1 = (jnp.arange(rows) < num_frames(heard, config))[:, None]
  mel_TF = mel_TF[: rows * config.stack].reshape(rows, -1)
  return Mel(jnp.where(kept_T1, mel_TF, 0), num_frames(length, config))


def mel_filters(config: FrontendConfig) -> np.ndarray:
  """The triangular filters [fft_length / 2 + 1, num_mels], float64, on the host.

  Corners are equally spaced on the mel scale; the sides are straight in Hz
  (Slaney, librosa) or in mel (Kaldi, HTK); `mel_norm` "slaney" divides each
  filter by half its width in Hz.
  """
  hz_Z = np.linspace(0, SAMPLE_RATE / 2, config.fft_length // 2 + 1)
  low, high = _to_mel(np.array([config.low_hz, config.high_hz]), config)
  corners = np.linspace(low, high, config.num_mels + 2)
  corners_hz = _to_hz(corners, config)
  if config.triangles_in == "mel":
    places_Z = _to_mel(hz_Z, config)
  else:
    places_Z, corners = hz_Z, corners_hz
  left, centre, right = corners[:-2], corners[1:-1], corners[2:]
  rising_ZF = (places_Z[:, None] - left) / (centre - left)
  falling_ZF = (right - places_Z[:, None]) / (right - centre)
  filters_ZF = np.maximum(0, np.minimum(rising_ZF, falling_ZF))
  if config.mel_norm == "slaney":
    filters_ZF *= 2 / (corners_hz[2:] - corners_hz[:-2])
  return filters_ZF


def _steps(samples: Count, config: FrontendConfig) -> Count:
  """Frames before stacking."""
  if config.centered == "none":
    room = samples - config.frame_length + config.hop_length
  elif config.pad_to:
    room = samples + config.hop_length - 1
  else:
    room = samples
  return room * (room > 0) // config.hop_length


def _signal(
  wave_S: jax.Array, length: jax.Array, config: FrontendConfig
) -> jax.Array:
  """The valid samples, scaled and pre-emphasised; zeros after them."""
  signal_S = wave_S * config.scale
  if config.pre_emphasis and config.pre_emphasis_on == "signal":
    earlier_S = jnp.concatenate([jnp.zeros_like(signal_S[:1]), signal_S[:-1]])
    signal_S = signal_S - config.pre_emphasis * earlier_S
  return jnp.where(jnp.arange(wave_S.size) < length, signal_S, 0)


def _laid_out(
  signal_S: jax.Array, heard: jax.Array, steps: int, config: FrontendConfig
) -> jax.Array:
  """The signal in whole hops, enough for all frames, padded where centred."""
  half = 0 if config.centered == "none" else config.frame_length // 2
  hops = steps - 1 + -(-config.frame_length // config.hop_length)
  size = hops * config.hop_length
  # Room for the mirrored end even where the last frame doesn't need all of it.
  room = max(size, config.pad_to + 2 * half, signal_S.size + 2 * half)
  laid_S = jnp.pad(signal_S, (half, room - half - signal_S.size))
  if config.centered == "reflect":
    # Two short gathers, not one as long as the signal: XLA's CPU gathers element
    # by element.
    before = laid_S[half + _mirrored(jnp.arange(-half, 0), heard)]
    after = laid_S[half + _mirrored(heard + jnp.arange(half), heard)]
    laid_S = jax.lax.dynamic_update_slice(laid_S, before, (0,))
    laid_S = jax.lax.dynamic_update_slice(laid_S, after, (half + heard,))
  return laid_S[:size]


def _mirrored(index: jax.Array, length: jax.Array) -> jax.Array:
  """Where a signal of `length`, mirrored at its ends for ever, has `index`."""
  last = jnp.maximum(length - 1, 0)
  return last - jnp.abs(last - index % jnp.maximum(2 * last, 1))


def _frames(
  signal_S: jax.Array, steps: int, config: FrontendConfig
) -> jax.Array:
  """[steps, frame_length] windowed frames: neighbouring hops side by side."""
  hops = signal_S.reshape(-1, config.hop_length)
  parts = [hops[i : i + steps] for i in range(len(hops) - steps + 1)]
  frames_TW = jnp.concatenate(parts, axis=1)[:, : config.frame_length]
  if config.remove_dc:
    frames_TW = frames_TW - frames_TW.mean(axis=1, keepdims=True)
  if config.pre_emphasis and config.pre_emphasis_on == "frame":
    # The sample before a frame's first counts as equal to it (Kaldi).
    earlier_TW = jnp.concatenate([frames_TW[:, :1], frames_TW[:, :-1]], axis=1)
    frames_TW = frames_TW - config.pre_emphasis * earlier_TW
  return frames_TW * jnp.asarray(_window(config), frames_TW.dtype)


def _window(config: FrontendConfig) -> np.ndarray:
  if config.window == "hann":
    return np.hanning(config.frame_length + 1)[:-1]
  window = np.hanning(config.frame_length)
  return window**0.85 if config.window == "povey" else window


def _power(frames_TW: jax.Array, config: FrontendConfig) -> jax.Array:
  """|DFT|^2; where a frame stands in the transform's buffer changes no power.

  On XLA's CPU the FFT takes 2.4 ms per 10 s of audio, the whole front end
  included; one matrix product with the cosines and sines takes 4.6.
  """
  spectrum_TZ = jnp.fft.rfft(frames_TW, n=config.fft_length)
  return spectrum_TZ.real**2 + spectrum_TZ.imag**2


def _logarithm(mel_TF: jax.Array, config: FrontendConfig) -> jax.Array:
  if config.floor_by == "add":
    mel_TF = mel_TF + config.floor
  else:
    mel_TF = jnp.maximum(mel_TF, config.floor)
  return jnp.log10(mel_TF) if config.log == "log10" else jnp.log(mel_TF)


def _normalized(
  mel_TF: jax.Array, valid_T1: jax.Array, config: FrontendConfig
) -> jax.Array:
  """Normalised over the valid frames.

  per_mel: (x - mean) / deviation with Bessel's correction; a single frame has
  deviation 0. whisper: (max(x, largest of the utterance - 8) + 4) / 4.
  """
  if config.normalize == "none":
    return mel_TF
  if config.normalize == "whisper":
    largest = jnp.max(jnp.where(valid_T1, mel_TF, -jnp.inf))
    return (jnp.maximum(mel_TF, largest - 8) + 4) / 4
  count = valid_T1.sum()
  mean_F = jnp.where(valid_T1, mel_TF, 0).sum(axis=0) / jnp.maximum(count, 1)
  centred_TF = jnp.where(valid_T1, mel_TF - mean_F, 0)
  variance_F = (centred_TF**2).sum(axis=0) / jnp.maximum(count - 1, 1)
  if config.epsilon_on == "variance":
    return centred_TF / jnp.sqrt(variance_F + config.normalize_epsilon)
  return centred_TF / (jnp.sqrt(variance_F) + config.normalize_epsilon)


_SLANEY_CORNER_HZ = 1000.0
_SLANEY_CORNER_MEL = 15.0
_SLANEY_STEP = np.log(6.4) / 27


def _to_mel(hz: np.ndarray, config: FrontendConfig) -> np.ndarray:
  """htk and kaldi: the same logarithm but for rounding of its constant; slaney:
  linear to 1 kHz, logarithmic above."""
  if config.mel_scale == "htk":
    return 2595 * np.log10(1 + hz / 700)
  if config.mel_scale == "kaldi":
    return 1127 * np.log(1 + hz / 700)
  above = np.log(np.maximum(hz, _SLANEY_CORNER_HZ) / _SLANEY_CORNER_HZ)
  return np.where(
    hz < _SLANEY_CORNER_HZ,
    hz * 3 / 200,
    _SLANEY_CORNER_MEL + above / _SLANEY_STEP,
  )


def _to_hz(mel: np.ndarray, config: FrontendConfig) -> np.ndarray:
  if config.mel_scale == "htk":
    return 700 * (10 ** (mel / 2595) - 1)
  if config.mel_scale == "kaldi":
    return 700 * (np.exp(mel / 1127) - 1)
  above = np.exp(_SLANEY_STEP * (mel - _SLANEY_CORNER_MEL))
  return np.where(
    mel < _SLANEY_CORNER_MEL, mel * 200 / 3, _SLANEY_CORNER_HZ * above
  )
