"""Files of every format, rate and channel count -> the same waveform."""

import contextlib
import errno
import math
import os
import socket
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import soundfile
from etils import epath

from hra import dims
from hra.data import audio, integrity, sound_files
from hra.data.records import Record
from hra.errors import InputError, StorageError

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


# What is no recording at all.


def _refused(path, match: str, **options) -> InputError:
  with pytest.raises(InputError, match=match) as caught:
    audio.read(path, **options)
  assert "\n" not in str(caught.value)
  return caught.value


def _fifo(path) -> None:
  os.mkfifo(path)


def _socket(path) -> None:
  # A relative name, for a socket's has at most 107 bytes.
  with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
    server.bind(path.name)


def _loop(path) -> None:
  path.symlink_to(path)


@pytest.mark.parametrize(
  ("make", "match"),
  [
    (lambda path: None, "no such file"),
    (lambda path: path.mkdir(), "a directory"),
    (lambda path: path.touch(), "an empty file"),
    (_fifo, "a pipe or a device"),
    (_socket, "a pipe or a device"),
    (_loop, "a link that leads to itself"),
    (lambda path: path.symlink_to("nowhere"), "no such file"),
    (lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
    (lambda path: path.write_bytes(b"words" * 99), "readable WAV.*not recog"),
    (lambda path: path.write_bytes(bytes(9_999)), "expected a readable WAV"),
    (lambda path: path.write_bytes(b"RIFF"), "expected a readable WAV"),
    (lambda path: path.write_bytes(b"OggS" * 99), "expected a readable WAV"),
    (lambda path: path.write_bytes(b"ID3" + bytes(9)), "a readable WAV"),
  ],
)
def test_what_is_no_audio_file(tmp_path, make, match):
  path = tmp_path / "a.wav"
  make(path)
  assert _refused(path, match).where == str(path)


@pytest.mark.parametrize(
  ("path", "match"),
  [
    ("/dev/zero", "a pipe or a device"),
    ("/dev/null", "a pipe or a device"),
    ("/proc/self/status", "an empty file"),
    ("", "no such file"),
    ("a\0b.wav", r"a\\x00b\.wav: .* a name that no file can have"),
    ("\ud800.wav", r"\\ud800\.wav: .* a name that no file can have"),
    ("n" * 999, "too long a name"),
    ("/dev/null/a.wav", "no such file"),
  ],
)
def test_paths_that_lead_to_no_recording(path, match):
  _refused(path, match)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
  path = tmp_path / "a.wav"
  _write(path, 16_000)

  def refuse(*args, **kwargs):
    raise PermissionError(errno.EACCES, "Permission denied")

  monkeypatch.setattr(os, "open", refuse)
  assert not isinstance(_refused(path, "may not be read"), StorageError)


@pytest.mark.parametrize("call", ["stat", "open", "pread"])
def test_a_disk_that_fails_is_no_fault_of_the_file(tmp_path, monkeypatch, call):
  path = tmp_path / "a.ogg"
  _write(path, 16_000)

  def fail(*args, **kwargs):
    raise OSError(errno.EIO, "Input/output error")

  with monkeypatch.context() as patched:
    patched.setattr(os, call, fail)
    assert isinstance(_refused(path, "Input/output error"), StorageError)


@pytest.mark.parametrize(
  "name", [b"\xff\xfe.wav", b"a\nb.wav", "naïve 音.wav".encode(), b"-a .wav"]
)
def test_files_of_any_name(tmp_path, name):
  path = os.path.join(tmp_path, os.fsdecode(name))
  _write(tmp_path / "a.wav", 16_000)
  os.rename(tmp_path / "a.wav", path)
  assert len(audio.decode(path)) == 8_000
  os.truncate(path, 1_000)
  message = str(_refused(path, "a file cut short"))
  assert message.isprintable()


def test_a_name_does_not_say_what_bytes_are(tmp_path):
  """libsndfile by itself takes any bytes in .au or .vox for samples."""
  for suffix in ("au", "snd", "vox", "gsm", "raw", "wav"):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(np.random.default_rng(0).bytes(5_000))
    _refused(path, "expected a readable WAV")


def test_urls_are_copied_and_read(tmp_path, monkeypatch):
  _write(tmp_path / "a.flac", 16_000)
  data = (tmp_path / "a.flac").read_bytes()
  (tmp_path / "cut.flac").write_bytes(data[:-9])
  (tmp_path / "empty.flac").touch()
  local = epath.Path
  monkeypatch.setattr(
    epath, "Path", lambda url: local(url.replace("gs://bucket", str(tmp_path)))
  )
  np.testing.assert_array_equal(
    audio.decode("gs://bucket/a.flac"), audio.decode(tmp_path / "a.flac")
  )
  assert (
    _refused("gs://bucket/cut.flac", "flac").where == "gs://bucket/cut.flac"
  )
  _refused("gs://bucket/empty.flac", "an empty file")
  absent = _refused("gs://bucket/absent.flac", "no such file")
  assert not isinstance(absent, StorageError)


def test_a_bucket_out_of_reach_is_no_fault_of_the_file():
  assert isinstance(
    _refused("nosuch://bucket/a.wav", "nosuch://bucket/a.wav: expected"),
    StorageError,
  )


# What is audio and no recording of speech.


def _wav(path, *, rate=16_000, channels=1, samples=1_600, stated=None) -> None:
  frame = 2 * channels
  size = samples * frame if stated is None else stated
  path.write_bytes(
    b"RIFF"
    + struct.pack("<I", min(size + 36, 0xFFFFFFFF))
    + b"WAVEfmt "
    + struct.pack("<IHHII", 16, 1, channels, rate, rate * frame & 0xFFFFFFFF)
    + struct.pack("<HH4sI", frame & 0xFFFF, 16, b"data", size)
    + np.random.default_rng(0).bytes(samples * frame)
  )


@pytest.mark.parametrize(
  "rate", [0, 1, 999, 768_001, 2**31 - 1, 2**31, 2**32 - 1]
)
def test_absurd_rates(tmp_path, rate):
  _wav(tmp_path / "a.wav", rate=rate)
  _refused(tmp_path / "a.wav", r"a rate of 1,000 to 768,000 Hz|readable WAV")


@pytest.mark.parametrize("rate", [1_000, 7_919, 11_025, 192_000, 768_000])
def test_unusual_rates(tmp_path, rate):
  _wav(tmp_path / "a.wav", rate=rate, samples=rate // 2)
  wave_S, source_rate = audio.read(tmp_path / "a.wav")
  assert source_rate == rate
  assert len(wave_S) == pytest.approx(8_000, abs=2)


@pytest.mark.parametrize("channels", [0, 65, 1_000, 65_535])
def test_absurd_channels(tmp_path, channels):
  _wav(tmp_path / "a.wav", channels=channels, samples=10)
  _refused(tmp_path / "a.wav", r"1 to 64 channels|readable WAV")


def test_many_channels_are_averaged(tmp_path):
  signal_SC = np.random.default_rng(0).uniform(-1, 1, (4_000, 64))
  soundfile.write(tmp_path / "a.wav", signal_SC, 16_000, subtype="DOUBLE")
  np.testing.assert_allclose(
    audio.decode(tmp_path / "a.wav"), signal_SC.mean(axis=1), atol=1e-6
  )


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1_000, -1])
def test_one_sample_that_is_no_number(tmp_path, rate, value, place):
  signal_SC = np.stack([_sine(rate), _sine(rate)], axis=1)
  signal_SC[place, 1] = value
  soundfile.write(tmp_path / "a.wav", signal_SC, rate, subtype="FLOAT")
  _refused(tmp_path / "a.wav", "finite samples, got NaN or infinite")


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_silence(tmp_path, suffix, rate):
  path = tmp_path / f"a.{suffix}"
  soundfile.write(path, np.zeros(rate), rate)
  _refused(path, "a recording with sound, got silence")


def test_silence_is_what_rounds_to_no_sample(tmp_path):
  path = tmp_path / "a.wav"
  wave_S = np.zeros(1_600)
  for value, silent in [
    (0.5, True),
    (0.51, False),
    (-0.5, True),
    (-0.6, False),
  ]:
    wave_S[700] = value / 32768
    soundfile.write(path, wave_S, 16_000, subtype="FLOAT")
    if silent:
      _refused(path, "silence")
    assert np.any(audio.encode_int16(wave_S)) != silent
    if not silent:
      assert len(audio.decode(path)) == 1_600


def test_a_header_that_was_never_finished(tmp_path):
  path = tmp_path / "a.wav"
  _wav(path, stated=0)
  _refused(path, "some samples, got none; export it again, or repair a header")


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 768_000])
def test_one_sample(tmp_path, rate):
  path = tmp_path / "a.wav"
  _wav(path, rate=rate, samples=1)
  if rate > 16_000:
    _refused(path, "some samples, got none")
  else:
    assert len(audio.decode(path)) == 16_000 // rate


# Limits.


@pytest.mark.parametrize("rate", [1_000, 7_919, 11_025, 44_100])
def test_limits_know_of_rounding(tmp_path, rate):
  path = tmp_path / "a.wav"
  _wav(path, rate=rate, samples=rate)
  for seconds in (0.1, 0.33333, 0.65432):
    audio.read(
      path, offset=0.2, duration=seconds, limits=audio.Limits(seconds, seconds)
    )


def test_limits_are_inclusive(tmp_path):
  path = tmp_path / "a.wav"
  _write(path, 16_000)
  limits = audio.Limits(min_seconds=0.5, max_seconds=0.5)
  assert len(audio.read(path, limits=limits).wave_S) == 8_000
  _refused(
    path,
    r"at least 0\.51 s, got 0\.500 s",
    limits=audio.Limits(min_seconds=0.51),
  )
  _refused(
    path,
    r"at most 0\.49 s, got 0\.50 s; cut it",
    limits=audio.Limits(max_seconds=0.49),
  )
  assert audio.read(
    path, offset=0.2, duration=0.2, limits=audio.Limits(0.1, 0.3)
  )
  _refused(path, r"at most 0\.3 s", offset=0.1, limits=audio.Limits(0.1, 0.3))


def test_long_recordings_are_refused_before_they_are_decoded(
  tmp_path, monkeypatch
):
  def decoded(*args):
    raise AssertionError

  monkeypatch.setattr(sound_files.Stream, "blocks_up_to", decoded)
  path = tmp_path / "long.wav"
  _wav(path, stated=2**31 - 2**20)
  os.truncate(path, 2**31)  # sparse
  limits = audio.Limits(max_seconds=7_200)
  _refused(path, r"at most 7200 s, got 67076\.\d\d s", limits=limits)


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_a_stream_of_no_stated_length_keeps_to_the_limits(
  tmp_path, monkeypatch, offset
):
  monkeypatch.setattr(sound_files, "BLOCK", 1_000)
  path = tmp_path / "a.flac"
  _write(path, 16_000)
  expected_S = audio.decode(path)
  data = bytearray(path.read_bytes())
  data[21] &= 0xF0
  data[22:26] = bytes(4)
  path.write_bytes(data)
  np.testing.assert_array_equal(
    audio.read(path, offset=offset).wave_S, expected_S[round(16_000 * offset) :]
  )
  _refused(
    path,
    r"at most 0\.3 s",
    offset=offset,
    limits=audio.Limits(max_seconds=0.3),
  )
  _refused(
    path,
    r"at least 0\.6 s",
    offset=offset,
    limits=audio.Limits(min_seconds=0.6),
  )
  _refused(
    path, "up to 0.6 s, got a recording of 0.5 s", offset=0.1, duration=0.5
  )
  _refused(path, "from 0.5 s on, got a recording of 0.5 s", offset=0.5)
  _refused(path, "from 9 s on, got a recording of 0.5 s", offset=9, duration=1)


def test_blocks_change_nothing(tmp_path, monkeypatch):
  expected = {}
  for suffix in ("wav", "flac", "ogg", "mp3", "opus"):
    options = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
    _write(tmp_path / f"a.{suffix}", 16_000, channels=2, **options)
    expected[suffix] = audio.decode(tmp_path / f"a.{suffix}")
  monkeypatch.setattr(sound_files, "BLOCK", 998)
  for suffix, wave_S in expected.items():
    np.testing.assert_array_equal(
      audio.decode(tmp_path / f"a.{suffix}"), wave_S
    )


_LIES = textwrap.dedent(
  """
  import re, resource, sys
  from hra.data import audio
  from hra.errors import InputError

  def peak():
    return int(re.search(r"VmPeak:\\s+(\\d+)", open("/proc/self/status").read())[1])

  def read(path):
    try:
      audio.read(path)
    except InputError as error:
      print(error)

  read(sys.argv[1])
  before = peak()
  for path in sys.argv[2:]:
    read(path)
  print(peak() - before)
  """
)


def test_headers_that_lie_cost_no_memory(tmp_path):
  """2^36 - 1 frames of FLAC, 2^31 of WAV, 2^63 of AU, NIST and RF64."""
  soundfile.write(tmp_path / "a.flac", _sine(16_000), 16_000)
  flac = bytearray((tmp_path / "a.flac").read_bytes())
  flac[21] |= 0x0F
  flac[22:26] = b"\xff" * 4
  (tmp_path / "a.flac").write_bytes(flac)
  _wav(tmp_path / "a.wav", stated=0x7FFEFFFF)
  soundfile.write(tmp_path / "a.rf64", _sine(16_000), 16_000, format="RF64")
  rf64 = bytearray((tmp_path / "a.rf64").read_bytes())
  rf64[20:44] = b"\xff\xff\xff\xff\xff\xff\xff\x7f" * 3
  (tmp_path / "a.rf64").write_bytes(rf64)
  soundfile.write(tmp_path / "a.au", _sine(16_000), 16_000)
  au = bytearray((tmp_path / "a.au").read_bytes())
  au[8:12] = b"\x7f\x00\x00\x00"
  (tmp_path / "a.au").write_bytes(au)
  soundfile.write(tmp_path / "ok.wav", _sine(16_000), 16_000)
  names = ("ok.wav", "a.flac", "a.wav", "a.rf64", "a.au")
  said = subprocess.run(
    [sys.executable, "-c", _LIES, *(tmp_path / name for name in names)],
    capture_output=True,
    text=True,
    check=True,
  ).stdout.splitlines()
  assert len(said) == len(names)
  assert "a.flac: expected" in said[0]
  for line in said[1:-1]:
    assert "expected a whole recording, got a file cut short" in line
  assert int(said[-1]) < 100_000  # KiB of address space; a block is 16,384


# Segments.


def test_segments_of_every_codec_equal_the_slice(tmp_path):
  for suffix in ("wav", "flac", "ogg", "mp3", "opus", "gsm", "alac", "ima"):
    path = tmp_path / f"a.{suffix}"
    options = {
      "opus": {"format": "OGG", "subtype": "OPUS"},
      "gsm": {"format": "WAV", "subtype": "GSM610"},
      "alac": {"format": "CAF", "subtype": "ALAC_16"},
      "ima": {"format": "WAV", "subtype": "IMA_ADPCM"},
    }.get(suffix, {})
    soundfile.write(path, _sine(16_000, seconds=4), 16_000, **options)
    whole_S = audio.decode(path)
    for offset, duration in [(0.0, 1.0), (1.003, 0.5), (2.5, None)]:
      part_S = audio.read(path, offset=offset, duration=duration).wave_S
      start = round(16_000 * offset)
      end = None if duration is None else start + round(16_000 * duration)
      np.testing.assert_allclose(part_S, whole_S[start:end], atol=1e-6)


def test_a_segment_may_end_a_little_after_its_recording(tmp_path):
  path = tmp_path / "a.wav"
  _write(path, 16_000)
  assert len(audio.read(path, offset=0.3, duration=0.22).wave_S) == 3_200
  _refused(
    path,
    r"a segment up to 0\.521 s, got a recording of 0\.5 s",
    offset=0.3,
    duration=0.221,
  )
  _refused(path, r"from 0\.5 s on, got .* of 0\.5 s", offset=0.5)
  _refused(path, r"up to 1 s", duration=1.0)


@pytest.mark.parametrize(
  ("segment", "match"),
  [
    ({"offset": -0.1}, "an offset from 0 s on, got -0.1"),
    ({"offset": math.nan}, "an offset from 0 s on, got nan"),
    ({"offset": math.inf}, "an offset from 0 s on, got inf"),
    ({"offset": 1e300}, r"a segment from 1e\+300 s on"),
    ({"duration": 0.0}, "a duration of more than 0 s, got 0"),
    ({"duration": -1.0}, "a duration of more than 0 s"),
    ({"duration": math.nan}, "a duration of more than 0 s"),
    ({"duration": 1e300}, r"a segment up to 1e\+300 s"),
    ({"duration": 1e-9}, "some samples, got none"),
  ],
)
def test_absurd_segments(tmp_path, segment, match):
  path = tmp_path / "a.wav"
  _write(path, 16_000)
  _refused(path, match, **segment)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_segment_reads_the_segment_only(tmp_path, monkeypatch, suffix):
  path = tmp_path / f"a.{suffix}"
  with soundfile.SoundFile(path, "w", 16_000, 1) as file:
    for _ in range(60):
      file.write(_sine(16_000, seconds=1))
  counted = []
  read = sound_files.Stream.read

  def count(self, frames, **options):
    counted.append(frames)
    return read(self, frames, **options)

  def walked(*args):
    raise AssertionError

  monkeypatch.setattr(sound_files.Stream, "read", count)
  monkeypatch.setattr(integrity, "read_ogg", walked)
  monkeypatch.setattr(integrity, "find_damage", walked)
  audio.read(path, offset=50.0, duration=1.0)
  before = 16_000 if suffix in ("ogg", "mp3") else 0
  assert sum(counted) == 16_000 + before


def test_a_segment_of_a_cut_file(tmp_path):
  """What is there can be used; what isn't is named."""
  path = tmp_path / "a.wav"
  _write(path, 16_000)
  whole_S = audio.decode(path)
  os.truncate(path, 44 + 2 * 4_000)
  part_S = audio.read(path, offset=0.05, duration=0.1).wave_S
  np.testing.assert_array_equal(part_S, whole_S[800:2_400])
  _refused(path, "up to 0.3 s, got a recording of 0.25 s", duration=0.3)


# Records.


def _record(path, **fields) -> Record:
  fields = {"id": "u1", "text": "a", "task": "t", "where": "m.jsonl:7"} | fields
  return Record(path=str(path), **fields)


def test_a_records_problem_names_the_line_and_the_file(tmp_path):
  path = tmp_path / "a.wav"
  for where, expected in [("m.jsonl:7", "m.jsonl:7"), ("", "u1")]:
    with pytest.raises(InputError, match=r"no such file in .*a\.wav") as caught:
      audio.read_record(_record(path, where=where), limits=audio.Limits())
    assert caught.value.where == expected
  _wav(path)
  os.truncate(path, 1_000)
  with pytest.raises(
    InputError, match=r"m\.jsonl:7: .* a whole recording, got .*a\.wav; copy"
  ):
    audio.read_record(_record(path), limits=audio.Limits())


def test_a_disk_that_fails_stays_so_in_a_record():
  with pytest.raises(StorageError, match=r"m\.jsonl:7: .*nosuch://b/a\.wav"):
    audio.read_record(_record("nosuch://b/a.wav"), limits=audio.Limits())


def test_a_record_is_all_of_its_file_or_a_segment(tmp_path):
  path = tmp_path / "a.wav"
  _write(path, 16_000)
  whole_S = audio.decode(path)
  limits = audio.Limits()
  for fields, part in [
    ({}, slice(None)),
    ({"duration": 0.5}, slice(None)),
    ({"offset": 0.0, "duration": 0.2}, slice(3_200)),
    ({"offset": 0.4}, slice(6_400, None)),
  ]:
    recording = audio.read_record(_record(path, **fields), limits=limits)
    np.testing.assert_array_equal(recording.wave_S, whole_S[part])


@pytest.mark.parametrize(
  ("seconds", "stated", "agrees"),
  [
    (0.5, 0.74, True),
    (0.5, 0.76, False),
    (0.5, 0.24, False),
    (20.0, 20.39, True),
    (20.0, 20.41, False),
    (20.0, 19.61, True),
    (20.0, math.nan, False),
  ],
)
def test_a_stated_duration_agrees_with_the_file(
  tmp_path, seconds, stated, agrees
):
  path = tmp_path / "a.wav"
  soundfile.write(path, _sine(16_000, seconds=seconds), 16_000)
  record = _record(path, duration=stated)
  if agrees:
    audio.read_record(record, limits=audio.Limits())
    return
  with pytest.raises(InputError, match=r'as its duration says.*"offset": 0 if'):
    audio.read_record(record, limits=audio.Limits())


def test_labels_need_time(tmp_path):
  path = tmp_path / "a.wav"
  _write(path, 16_000)
  limits = audio.Limits(labels_per_second=25)
  audio.read_record(_record(path, labels=12), limits=limits)
  audio.read_record(_record(path, labels=999), limits=audio.Limits())
  with pytest.raises(
    InputError,
    match=r"m\.jsonl:7: .* at least 0\.52 s for its 13 labels, got 0\.50 s",
  ):
    audio.read_record(_record(path, labels=13), limits=limits)


# Exactness.


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "au", "caf", "w64"])
def test_16_bits_at_the_own_rate_are_exact(tmp_path, suffix):
  path = tmp_path / f"a.{suffix}"
  samples_S = np.random.default_rng(0).permutation(
    np.arange(-32768, 32768, dtype=np.int16)
  )
  soundfile.write(path, samples_S, 16_000, subtype="PCM_16")
  wave_S = audio.decode(path)
  np.testing.assert_array_equal(wave_S, samples_S / 32768)
  np.testing.assert_array_equal(audio.encode_int16(wave_S), samples_S)
