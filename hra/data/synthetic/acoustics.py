"""What happens to a synthesised wave: nasal or muffled resonance, tremor,
breath, and the noise of the room.

Waves are wave_S, float32 at 16 kHz, peak below 1. Filters are drawn over
frequency and applied in the Fourier domain.
"""

from collections.abc import Callable, Mapping

import numpy as np

from hra.dims import SAMPLE_RATE


def apply(
  effect: str, wave_S: np.ndarray, *, strength: float, rng: np.random.Generator
) -> np.ndarray:
  """One of `EFFECTS` at a strength in [0, 1]; 0 returns the wave as it is."""
  if strength == 0 or not len(wave_S):
    return wave_S
  return EFFECTS[effect](wave_S, strength, rng).astype(np.float32)


def to_level(wave_S: np.ndarray, *, decibels: float) -> np.ndarray:
  """Scales to a root mean square in dB of full scale, peaks at most 0.99."""
  power = float(np.mean(np.square(wave_S, dtype=np.float64)))
  gain = 10 ** (decibels / 20) / np.sqrt(power + 1e-12)
  peak = float(np.max(np.abs(wave_S), initial=1e-6))
  return (wave_S * min(gain, 0.99 / peak)).astype(np.float32)


def add_noise(
  wave_S: np.ndarray,
  *,
  snr: float,
  colour: float,
  rng: np.random.Generator,
) -> np.ndarray:
  """Adds stationary noise of power spectrum f^-colour (0 white, 1 pink).

  The noise is flat below 50 Hz; its power is the wave's mean power less `snr`
  decibels.
  """
  if not len(wave_S):
    return wave_S
  size = _fft_size(len(wave_S))
  hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
  slope = (np.maximum(hertz, 50.0) / 50.0) ** (-colour / 2)
  parts = rng.standard_normal((len(hertz), 2), dtype=np.float32)
  spectrum = parts.view(np.complex64)[:, 0] * slope.astype(np.float32)
  spectrum[0] = 0
  noise_S = np.fft.irfft(spectrum, size)[: len(wave_S)]
  power = np.mean(np.square(wave_S, dtype=np.float64))
  noise_power = np.mean(np.square(noise_S, dtype=np.float64))
  gain = np.sqrt(power / noise_power * 10 ** (-snr / 10))
  return (wave_S + gain * noise_S).astype(np.float32)


def _fft_size(length: int) -> int:
  """A size with small factors that leaves room for a filter's tails."""
  return -(-(length + SAMPLE_RATE // 8) // 2048) * 2048


def _filtered(
  wave_S: np.ndarray, response: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
  """Multiplies the spectrum by a response over hertz, zero phase.

  In single precision, which halves the time and is exact to 16-bit samples.
  """
  size = _fft_size(len(wave_S))
  hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
  spectrum = np.fft.rfft(wave_S.astype(np.float32), size)
  spectrum *= response(hertz).astype(np.float32)
  return np.fft.irfft(spectrum, size)[: len(wave_S)]


def _nasal_resonance(
  wave_S: np.ndarray, strength: float, rng: np.random.Generator
) -> np.ndarray:
  """A pole at 270 Hz and a zero at 900 Hz, as an open velum makes them."""

  def response(hertz: np.ndarray) -> np.ndarray:
    pole = 1 / (1 + ((hertz - 270) / 90) ** 2)
    zero = 1 / (1 + ((hertz - 900) / 250) ** 2)
    return (1 + 3 * strength * pole) * (1 - 0.9 * strength * zero)

  return _filtered(wave_S, response)


def _muffling(
  wave_S: np.ndarray, strength: float, rng: np.random.Generator
) -> np.ndarray:
  """A low-pass at 3.5 kHz (weak) to 1 kHz (strong), and a smear over time."""
  cutoff = 3500 * (1000 / 3500) ** strength
  low_S = _filtered(
    wave_S, lambda hertz: 1 / np.sqrt(1 + (hertz / cutoff) ** 4)
  )
  decay = 0.02 + 0.03 * strength
  tail = np.exp(-np.arange(int(4 * decay * SAMPLE_RATE)) / decay / SAMPLE_RATE)
  tail *= rng.standard_normal(len(tail))
  tail *= 0.7 * strength / np.sqrt(np.sum(tail**2))
  size = _fft_size(len(wave_S) + len(tail))
  smear = np.fft.rfft(low_S, size) * np.fft.rfft(tail.astype(np.float32), size)
  return low_S + np.fft.irfft(smear, size)[: len(wave_S)]


def _tremor(
  wave_S: np.ndarray, strength: float, rng: np.random.Generator
) -> np.ndarray:
  """Loudness and pitch swing together at 4 to 7 Hz."""
  hertz = rng.uniform(4.0, 7.0)
  time_S = np.arange(len(wave_S)) / SAMPLE_RATE
  phase_S = 2 * np.pi * (hertz * time_S + rng.random())
  swing = 0.06 * strength / (2 * np.pi * hertz)  # +-6% of pitch
  warped_S = np.interp(time_S + swing * np.sin(phase_S), time_S, wave_S)
  return warped_S * (1 - 0.35 * strength * (1 + np.cos(phase_S)))


def _breath_noise(
  wave_S: np.ndarray, strength: float, rng: np.random.Generator
) -> np.ndarray:
  """Noise above 1 kHz that follows the loudness of the speech."""
  window = SAMPLE_RATE // 50
  starts = np.arange(0, len(wave_S), window)
  level = np.add.reduceat(np.abs(wave_S), starts) / window
  envelope_S = np.interp(np.arange(len(wave_S)), starts + window / 2, level)
  hiss_S = _filtered(
    rng.standard_normal(len(wave_S), dtype=np.float32),
    lambda hertz: 1 / (1 + (1000 / np.maximum(hertz, 1.0)) ** 2),
  )
  return wave_S + 0.5 * strength * envelope_S * hiss_S


EFFECTS: Mapping[
  str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
] = {
  "nasal_resonance": _nasal_resonance,
  "muffling": _muffling,
  "tremor": _tremor,
  "breath_noise": _breath_noise,
}
