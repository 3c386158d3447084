"""Speed perturbation, rooms and noise on the host.

Enters: one utterance and a generator that is its own. Leaves: the utterance at
another speed and, as part of all are, in a room and with noise, in this order. A
pure function, so that an utterance sounds the same in every job. Speed perturbation
is Ko et al. 2015, "Audio augmentation for speech recognition"; noise and rooms are
the multistyle (MTR) data of "SpecAugment on large scale datasets" (arXiv
1912.05533).
"""

import statistics
from typing import NamedTuple

import numpy as np
import soxr

from hra.config import DataConfig, MultistyleConfig
from hra.data.sounds import Sounds
from hra.dims import SAMPLE_RATE

NOISE_EXPONENTS = (0.0, 2.0)
"""Power falls as 1 / f^a, a ~ U: from white through pink to brown noise."""

_FFT_MULTIPLE = 4096
"""Lengths that the FFT is fast at."""
_BLOCK = 1 << 14
"""Samples of a block of a convolution, or more, for long responses."""


class Noise(NamedTuple):
  """One noise of an utterance."""

  recording: int | None
  """Of the bank; None is coloured noise."""
  value: float
  """The exponent of coloured noise; of a recording, which of the places where it
  may start, in [0, 1)."""


class Draw(NamedTuple):
  """What was drawn for one utterance."""

  speed: float
  perturbed: bool
  """Whether it is noise-perturbed: by noise, a room or both."""
  snr_db: float
  response: int | None
  """Of the bank; None is no room."""
  noises: tuple[Noise, ...]


class Perturbed(NamedTuple):
  """An utterance as it is heard."""

  wave_S: np.ndarray
  perturbed: bool
  """Whether it is noise-perturbed; another speed doesn't count."""


def perturb(
  wave_S: np.ndarray,
  *,
  rng: np.random.Generator,
  config: DataConfig,
  part: float,
  sounds: Sounds,
  max_samples: int,
) -> Perturbed:
  """A copy of `wave_S` at another speed, in a room, with noise; or itself.

  The speed is f ~ U(speed_low, speed_high), raised where necessary until the
  result, S / f samples, has at most `max_samples`: speech is never cut. Noise of
  power |wave|^2 10^(-SNR/10) is added, both powers over the whole utterance as it
  sounds in its room.

  Args:
    wave_S: float32, at most `max_samples` long.
    rng: consumed; one per utterance and own step.
    config: the ranges.
    part: of the utterances that is noise-perturbed.
    sounds: the banks that `config.multistyle` asks for.
    max_samples: samples of the utterance's bucket.
  """
  drawn = draw(rng, config=config, part=part, sounds=sounds)
  speed = max(drawn.speed, len(wave_S) / max_samples)
  if speed != 1.0:
    wave_S = change_speed(wave_S, speed=speed)
  if drawn.response is not None:
    wave_S = reverberate(wave_S, sounds.responses[drawn.response])
  if drawn.noises:
    noise_S = _mixed(drawn.noises, len(wave_S), rng=rng, sounds=sounds)
    scale = _rms(wave_S) * 10 ** (-drawn.snr_db / 20)
    wave_S = wave_S + noise_S * np.float32(scale)
  return Perturbed(wave_S, drawn.perturbed)


def draw(
  rng: np.random.Generator,
  *,
  config: DataConfig,
  part: float,
  sounds: Sounds,
) -> Draw:
  """Samples the parameters of one utterance; the arguments are `perturb`'s."""
  style = config.multistyle
  speed = rng.uniform(config.speed_low, config.speed_high)
  perturbed = rng.random() < part and style.active
  snr_db = _draw_snr(rng, style)
  response, noises = None, []
  if perturbed and style.reverb != "none":
    chance, place = rng.random(), int(rng.integers(len(sounds.responses)))
    response = place if chance < style.reverb_probability else None
  if perturbed and style.noise != "none":
    count = int(rng.integers(style.noises)) + 1 if style.noises > 1 else 1
    noises = [_draw_noise(rng, style, sounds) for _ in range(count)]
  return Draw(speed, perturbed, snr_db, response, tuple(noises))


def change_speed(wave_S: np.ndarray, *, speed: float) -> np.ndarray:
  """`wave_S` played `speed` times as fast, pitch included: about S / speed."""
  return soxr.resample(wave_S, speed * SAMPLE_RATE, SAMPLE_RATE)


def reverberate(wave_S: np.ndarray, response_R: np.ndarray) -> np.ndarray:
  """The utterance in a room: as long, as loud and as early as before.

      y[t] = g sum_r h[r] x[t + d - r],   g such that |y|^2 = |x|^2

  with d the response's direct path; what sounds on after the end is cut off.
  """
  direct = direct_path(response_R)
  heard_S = _convolved(wave_S, response_R)[direct : direct + len(wave_S)]
  return heard_S * np.float32(_rms(wave_S) / (_rms(heard_S) or 1))


def direct_path(response_R: np.ndarray) -> int:
  """When the sound arrives first: the earliest peak within 6 dB of the largest.

  In a reverberant room reflections together may be larger than the direct path.
  """
  size_R = np.abs(response_R)
  place = int((size_R >= size_R.max() / 2).argmax())
  while place + 1 < len(size_R) and size_R[place + 1] > size_R[place]:
    place += 1
  return place


def coloured_noise(
  rng: np.random.Generator, *, samples: int, exponent: float
) -> np.ndarray:
  """Gaussian noise of unit power whose spectrum falls as 1 / f^exponent."""
  length = _fft_length(samples)
  frequency = np.arange(1, length // 2 + 1, dtype=np.float32)
  spectrum = np.zeros(length // 2 + 1, np.complex64)
  spectrum[1:] = rng.standard_normal(length, dtype=np.float32).view(
    np.complex64
  )
  spectrum[1:] *= frequency ** np.float32(-exponent / 2)
  return _unit_power(np.fft.irfft(spectrum, length)[:samples])


def stretch(recording_S: np.ndarray, *, samples: int, at: float) -> np.ndarray:
  """Consecutive samples of a recording, which begins anew where it is shorter.

  Args:
    at: in [0, 1), which of the places where the stretch may start: all at which
      it fits, or any sample of a shorter recording.
  """
  fits = len(recording_S) - samples
  if fits >= 0:
    start = int(at * (fits + 1))
    return recording_S[start : start + samples]
  start = int(at * len(recording_S))
  return np.resize(np.roll(recording_S, -start), samples)


def _draw_snr(rng: np.random.Generator, config: MultistyleConfig) -> float:
  """Decibels ~ U(low, high), or Gaussian, cut off there, by its quantiles."""
  low, high = config.snr_low, config.snr_high
  if config.snr == "uniform":
    return rng.uniform(low, high)
  normal = statistics.NormalDist(config.snr_mean, config.snr_deviation)
  quantile = rng.uniform(normal.cdf(low), normal.cdf(high))
  tiny = np.finfo(np.float64).eps
  found = normal.inv_cdf(min(max(quantile, tiny), 1 - tiny))
  return min(max(found, low), high)


def _draw_noise(
  rng: np.random.Generator, config: MultistyleConfig, sounds: Sounds
) -> Noise:
  coloured = config.noise == "coloured"
  if coloured or (config.noise == "either" and rng.random() < 0.5):
    return Noise(None, rng.uniform(*NOISE_EXPONENTS))
  return Noise(int(rng.integers(len(sounds.noise))), rng.random())


def _mixed(
  noises: tuple[Noise, ...],
  samples: int,
  *,
  rng: np.random.Generator,
  sounds: Sounds,
) -> np.ndarray:
  """Noises of equal power, together of unit power; nothing where all are silent."""
  parts = []
  for noise in noises:
    if noise.recording is None:
      parts.append(coloured_noise(rng, samples=samples, exponent=noise.value))
    else:
      recording_S = sounds.noise[noise.recording]
      parts.append(
        _unit_power(stretch(recording_S, samples=samples, at=noise.value))
      )
  return parts[0] if len(parts) == 1 else _unit_power(np.sum(parts, axis=0))


def _unit_power(wave_S: np.ndarray) -> np.ndarray:
  return wave_S / np.float32(_rms(wave_S) or 1)


def _convolved(wave_S: np.ndarray, response_R: np.ndarray) -> np.ndarray:
  """All of the convolution, and zeros, by overlapping blocks: transforms that stay
  in the processor's cache take half the time of one long one."""
  size = max(_BLOCK, 2 << (len(response_R) - 1).bit_length())
  step = size - len(response_R) + 1
  count = -(-len(wave_S) // step)
  blocks = np.zeros((count, step), np.float32)
  blocks.reshape(-1)[: len(wave_S)] = wave_S
  spectra = np.fft.rfft(blocks, size) * np.fft.rfft(response_R, size)
  whole_S = np.zeros((count - 1) * step + size, np.float32)
  for number, part in enumerate(np.fft.irfft(spectra, size)):
    whole_S[number * step : number * step + size] += part
  return whole_S


def _fft_length(samples: int) -> int:
  return -(-samples // _FFT_MULTIPLE) * _FFT_MULTIPLE


def _rms(wave_S: np.ndarray) -> float:
  return float(np.sqrt(np.mean(np.square(wave_S, dtype=np.float64))))
