"""Audio files -> waveforms.

Enters: WAV, FLAC, OGG or MP3 (whatever libsndfile reads) at any rate, with any
number of channels, from a local path or an epath URL. Leaves: `wave_S`, float32,
mono, at `dims.SAMPLE_RATE`, in [-1, 1].
"""

import io
import os
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from etils import epath

from hra import dims
from hra.errors import InputError

_INT16_SCALE = 32768.0


class Recording(NamedTuple):
  """A waveform and the rate that its file had."""

  wave_S: np.ndarray
  source_rate: int


def decode(path: str | os.PathLike[str]) -> np.ndarray:
  """Reads a whole audio file; see `read`."""
  return read(path).wave_S


def read(
  path: str | os.PathLike[str],
  *,
  offset: float = 0.0,
  duration: float | None = None,
) -> Recording:
  """Reads an audio file, or `duration` seconds of it from `offset` on.

  Channels are averaged, then the signal is resampled (soxr, high quality) to
  `dims.SAMPLE_RATE` and clipped to [-1, 1].

  Raises:
    InputError: the file is missing, unreadable, empty or holds NaN, or ends
      before the segment does.
  """
  try:
    data = epath.Path(path).read_bytes()
  except FileNotFoundError:
    raise InputError(
      path, expected="an audio file", got="no such file"
    ) from None
  except OSError as error:
    raise InputError(
      path, expected="an audio file", got=error.strerror or str(error)
    ) from error
  if not data:
    raise InputError(path, expected="an audio file", got="an empty file")
  try:
    with soundfile.SoundFile(io.BytesIO(data)) as file:
      rate = file.samplerate
      signal_SC = _segment(file, path, offset=offset, duration=duration)
  except soundfile.LibsndfileError as error:
    raise InputError(
      path,
      expected="a readable WAV, FLAC, OGG or MP3 file",
      got=error.error_string.rstrip("."),
    ) from error
  wave_S = signal_SC.mean(axis=1, dtype=np.float32)
  if not np.isfinite(wave_S).all():
    raise InputError(
      path, expected="finite samples", got="NaN or infinite ones"
    )
  if rate != dims.SAMPLE_RATE:
    wave_S = soxr.resample(wave_S, rate, dims.SAMPLE_RATE)
  if not wave_S.size:
    raise InputError(path, expected="some samples", got="none")
  return Recording(np.clip(wave_S, -1.0, 1.0), rate)


def _segment(
  file: soundfile.SoundFile,
  path: str | os.PathLike[str],
  *,
  offset: float,
  duration: float | None,
) -> np.ndarray:
  start = round(offset * file.samplerate)
  if start and start >= file.frames:
    raise InputError(
      path,
      expected=f"a segment from {offset:g} s on",
      got=f"a recording of {file.frames / file.samplerate:g} s",
    )
  if start:
    file.seek(start)
  frames = -1 if duration is None else round(duration * file.samplerate)
  return file.read(frames, dtype="float32", always_2d=True)


def encode_int16(wave_S: np.ndarray) -> np.ndarray:
  """[-1, 1] -> int16 at 2^15 per unit, rounded, saturating at the ends."""
  scaled_S = np.rint(wave_S * _INT16_SCALE)
  return np.clip(scaled_S, -32768, 32767).astype(np.int16)


def decode_int16(samples_S: np.ndarray) -> np.ndarray:
  """The inverse of `encode_int16`: int16 -> float32 in [-1, 1); exact."""
  return np.multiply(samples_S, 1 / _INT16_SCALE, dtype=np.float32)
