"""Speed perturbation and coloured noise on the host.

Enters: one utterance and a generator that is its own. Leaves: the utterance at
another speed, with noise. A pure function, so that an utterance sounds the same
in every job. Speed perturbation is Ko et al. 2015, "Audio augmentation for
speech recognition"; noise stands for the multistyle (MTR) data of "SpecAugment
on large scale datasets" (arXiv 1912.05533).
"""

import numpy as np
import soxr

from hra.config import DataConfig
from hra.dims import SAMPLE_RATE

NOISE_EXPONENTS = (0.0, 2.0)
"""Power falls as 1 / f^a, a ~ U: from white through pink to brown noise."""

_FFT_MULTIPLE = 4096
"""Lengths that the FFT is fast at."""


def perturb(
  wave_S: np.ndarray,
  *,
  rng: np.random.Generator,
  config: DataConfig,
  max_samples: int,
) -> np.ndarray:
  """A copy of `wave_S` at another speed and with noise, or `wave_S` itself.

  The speed is f ~ U(speed_low, speed_high), raised where necessary until the
  result, S / f samples, has at most `max_samples`: speech is never cut.
  With probability `noise_probability`, noise of power |wave|^2 10^(-SNR/10) is
  added, SNR ~ U(snr_low, snr_high) dB, both powers over the whole utterance.

  Args:
    wave_S: float32, at most `max_samples` long.
    rng: consumed; one per utterance and own step.
    config: the ranges.
    max_samples: samples of the utterance's bucket.
  """
  speed = max(
    rng.uniform(config.speed_low, config.speed_high), len(wave_S) / max_samples
  )
  noisy = rng.random() < config.noise_probability
  snr_db = rng.uniform(config.snr_low, config.snr_high)
  if speed != 1.0:
    wave_S = change_speed(wave_S, speed=speed)
  if noisy:
    wave_S = wave_S + _noise_for(wave_S, rng=rng, snr_db=snr_db)
  return wave_S


def change_speed(wave_S: np.ndarray, *, speed: float) -> np.ndarray:
  """`wave_S` played `speed` times as fast, pitch included: about S / speed."""
  return soxr.resample(wave_S, speed * SAMPLE_RATE, SAMPLE_RATE)


def coloured_noise(
  rng: np.random.Generator, *, samples: int, exponent: float
) -> np.ndarray:
  """Gaussian noise of unit power whose spectrum falls as 1 / f^exponent."""
  length = -(-samples // _FFT_MULTIPLE) * _FFT_MULTIPLE
  frequency = np.arange(1, length // 2 + 1, dtype=np.float32)
  spectrum = np.zeros(length // 2 + 1, np.complex64)
  spectrum[1:] = rng.standard_normal(length, dtype=np.float32).view(
    np.complex64
  )
  spectrum[1:] *= frequency ** np.float32(-exponent / 2)
  noise_S = np.fft.irfft(spectrum, length)[:samples]
  return noise_S / np.float32(_rms(noise_S))


def _noise_for(
  wave_S: np.ndarray, *, rng: np.random.Generator, snr_db: float
) -> np.ndarray:
  noise_S = coloured_noise(
    rng, samples=len(wave_S), exponent=rng.uniform(*NOISE_EXPONENTS)
  )
  return noise_S * np.float32(_rms(wave_S) * 10 ** (-snr_db / 20))


def _rms(wave_S: np.ndarray) -> float:
  return float(np.sqrt(np.mean(np.square(wave_S, dtype=np.float64))))
