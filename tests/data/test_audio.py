"""Files of every format, rate and channel count -> the same waveform."""

import numpy as np
import pytest
import soundfile

from hra import dims
from hra.data import audio
from hra.errors import InputError

_SECONDS = 0.5
_HZ = 440.0


def _sine(rate: int, *, seconds: float = _SECONDS) -> np.ndarray:
  time_S = np.arange(round(rate * seconds)) / rate
  return (0.5 * np.sin(2 * np.pi * _HZ * time_S)).astype(np.float32)


def _write(path, rate: int, *, channels: int = 1, **options) -> None:
  # Channels differ, and their mean is the sine.
  gains = np.linspace(0.5, 1.5, channels) if channels > 1 else np.ones(1)
  soundfile.write(path, _sine(rate)[:, None] * gains, rate, **options)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize(
  ("rate", "channels"), [(8_000, 1), (16_000, 2), (22_050, 1), (44_100, 2)]
)
def test_any_format_and_rate_gives_the_sine(tmp_path, suffix, rate, channels):
  path = tmp_path / f"sine.{suffix}"
  _write(path, rate, channels=channels)
  wave_S = audio.decode(path)
  assert wave_S.dtype == np.float32
  assert wave_S.ndim == 1
  # MP3 pads to whole frames (1,152 samples, or 576 below 32 kHz).
  slack = 2 * 1152 / rate if suffix == "mp3" else 1e-3
  assert len(wave_S) / dims.SAMPLE_RATE == pytest.approx(_SECONDS, abs=slack)
  spectrum = np.abs(np.fft.rfft(wave_S * np.hanning(len(wave_S))))
  peak = spectrum.argmax() * dims.SAMPLE_RATE / len(wave_S)
  assert peak == pytest.approx(_HZ, abs=4)
  middle = wave_S[len(wave_S) // 4 : -len(wave_S) // 4]
  assert np.abs(middle).max() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_lossless_file_at_the_own_rate_is_exact(tmp_path, channels):
  path = tmp_path / "a.wav"
  _write(path, dims.SAMPLE_RATE, channels=channels, subtype="FLOAT")
  np.testing.assert_allclose(
    audio.decode(path), _sine(dims.SAMPLE_RATE), atol=1e-7
  )


def test_resampled_wave_follows_the_analytic_sine(tmp_path):
  path = tmp_path / "a.wav"
  _write(path, 48_000, subtype="FLOAT")
  wave_S, rate = audio.read(path)
  assert rate == 48_000
  inside = slice(800, -800)
  np.testing.assert_allclose(
    wave_S[inside], _sine(dims.SAMPLE_RATE)[inside], atol=1e-4
  )


def test_loud_float_files_are_clipped(tmp_path):
  path = tmp_path / "a.wav"
  soundfile.write(path, 3 * _sine(16_000), 16_000, subtype="FLOAT")
  wave_S = audio.decode(path)
  assert wave_S.max() == 1
  assert wave_S.min() == -1


def test_segment_equals_the_slice_of_the_whole(tmp_path):
  path = tmp_path / "a.flac"
  _write(path, dims.SAMPLE_RATE)
  whole = audio.decode(path)
  part = audio.read(path, offset=0.1, duration=0.25).wave_S
  np.testing.assert_array_equal(part, whole[1600:5600])


def test_segment_beyond_the_end_is_refused(tmp_path):
  path = tmp_path / "a.wav"
  _write(path, dims.SAMPLE_RATE)
  with pytest.raises(InputError, match=r"from 3 s on, got .* 0\.5 s"):
    audio.read(path, offset=3.0, duration=1.0)


def test_bad_files_are_one_clear_line(tmp_path):
  def check(name: str, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
      audio.decode(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)

  check("absent.wav", "no such file")
  (tmp_path / "folder.wav").mkdir()
  check("folder.wav", "directory")
  (tmp_path / "empty.wav").touch()
  check("empty.wav", "an empty file")
  (tmp_path / "noise.wav").write_bytes(b"these are no samples" * 50)
  check("noise.wav", "expected a readable WAV")
  soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), 16_000)
  check("none.wav", "some samples")
  soundfile.write(
    tmp_path / "nan.wav", np.full(9, np.nan), 16_000, subtype="FLOAT"
  )
  check("nan.wav", "NaN")


def test_int16_there_and_back():
  samples_S = np.arange(-32768, 32768, dtype=np.int16)
  wave_S = audio.decode_int16(samples_S)
  assert wave_S.dtype == np.float32
  assert wave_S.min() == -1
  np.testing.assert_array_equal(audio.encode_int16(wave_S), samples_S)
  np.testing.assert_array_equal(
    audio.encode_int16(np.array([1.0, 2.0, -2.0, 0.4 / 32768, 0.6 / 32768])),
    [32767, 32767, -32768, 0, 1],
  )
