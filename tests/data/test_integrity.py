"""What is whole passes, whoever wrote it; what is damaged is found out."""

import hashlib
import io
import os
import struct

import numpy as np
import pytest
import soundfile

from hra.data import audio, integrity, sound_files
from hra.errors import InputError

_RATE = 16_000


def _wave(samples: int = 4_000, *, seed: int = 0) -> np.ndarray:
  time_S = np.arange(samples) / _RATE
  noise_S = np.random.default_rng(seed).standard_normal(samples)
  return (
    0.3 * np.sin(2 * np.pi * (200 + 300 * time_S) * time_S) + 0.02 * noise_S
  )


def _encoded(wave, *, rate: int = _RATE, **options) -> bytes:
  file = io.BytesIO()
  soundfile.write(file, wave, rate, **options)
  return file.getvalue()


@pytest.fixture
def read(tmp_path):
  """Bytes -> the whole recording's waveform."""

  def read(data: bytes) -> np.ndarray:
    path = tmp_path / "recording"
    path.write_bytes(data)
    return audio.decode(path)

  return read


_WAV = _encoded(_wave(), format="WAV")
_FLAC = _encoded(_wave(), format="FLAC")
_VORBIS = _encoded(_wave(), format="OGG")
_OPUS = _encoded(_wave(), format="OGG", subtype="OPUS")
_MP3 = _encoded(_wave(), format="MP3")


# Whole files that libsndfile writes.


def _writable():
  yield "MP3", "MPEG_LAYER_III"
  for container in sound_files.CONTAINERS:
    for subtype in soundfile.available_subtypes(container):
      # What its own decoder doesn't read, or its encoder doesn't write.
      if not subtype.startswith(("DWVW", "MPEG")):
        yield container, subtype


@pytest.mark.parametrize(("container", "subtype"), list(_writable()))
def test_no_false_alarm_for_what_libsndfile_writes(read, container, subtype):
  written = 0
  for rate, channels, samples in [
    (16_000, 1, 1_777),
    (8_000, 1, 1_600),
    (44_100, 2, 12_345),
    (48_000, 2, 4_801),
  ]:
    signal_SC = np.stack([_wave(samples)] * channels, axis=1)
    try:
      data = _encoded(signal_SC, rate=rate, format=container, subtype=subtype)
    except soundfile.LibsndfileError:
      continue  # this codec knows no such rate or channels
    written += 1
    seconds = len(read(data)) / _RATE
    # Codecs of blocks fill the last one.
    assert samples / rate - 1e-3 < seconds < samples / rate + 0.13
  assert written


# Whole files as others write them, by hand.


def _chunk(name: bytes, body: bytes) -> bytes:
  return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


_BODY = _WAV[44:]


def _riff(*chunks: bytes, size: int | None = None) -> bytes:
  body = b"WAVE" + b"".join(chunks)
  size = len(body) if size is None else size
  return b"RIFF" + struct.pack("<I", size) + body


def _data(size: int) -> bytes:
  return b"data" + struct.pack("<I", size) + _BODY


_FORMAT = _chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, _RATE, 2 * _RATE, 2, 16))
_LIST = _chunk(b"LIST", b"INFOISFT\5\0\0\0Lavf\0\0")
_ID3V1 = b"TAG".ljust(128, b"\0")
_ID3V2 = b"ID3\4\0\0" + struct.pack(">4B", 0, 0, 2, 1) + bytes(257)
_APE = (
  b"APETAGEX"
  + struct.pack("<IIII", 2000, 32 + 20, 1, 0xA0000000)
  + bytes(8)
  + struct.pack("<II", 11, 0)
  + b"\xff\xfbTitle\0word"
)


def _no_total(flac: bytes) -> bytes:
  data = bytearray(flac)
  data[21] &= 0xF0
  data[22:26] = bytes(4)
  return bytes(data)


def _no_md5(flac: bytes) -> bytes:
  return flac[:26] + bytes(16) + flac[42:]


_WHOLE = {
  "ffmpeg to a pipe": _riff(_FORMAT, _LIST, _data(0xFFFFFFFF), size=0xFFFFFFFF),
  "sox to a pipe": _riff(_FORMAT, _data(0x7FFFF000), size=0x7FFFF024),
  "arecord to a pipe": _riff(_FORMAT, _data(0x7FFFFFFF - 36), size=0x7FFFFFFF),
  "2 GiB and no more": _riff(_FORMAT, _data(0x80000000), size=0x80000024),
  "never closed": _riff(_FORMAT, _data(0), size=8),
  "a RIFF size of 0": _riff(_FORMAT, _data(len(_BODY)), size=0),
  "a RIFF size too great": _riff(_FORMAT, _data(len(_BODY)), size=999_999),
  "lists before and after": _riff(
    _chunk(b"JUNK", bytes(27)),
    _chunk(b"bext", bytes(602)),
    _FORMAT,
    _LIST,
    _data(len(_BODY)),
    _LIST,
    _chunk(b"id3 ", _ID3V2),
  ),
  "a list cut short": _riff(_FORMAT, _data(len(_BODY)), _LIST[:-7]),
  "bytes behind": _WAV + b"\0" * 77,
  "ID3 before WAV": _ID3V2 + _WAV,
  "ID3 before FLAC": _ID3V2 + _FLAC,
  "two ID3s before FLAC": _ID3V2 + _ID3V2 + _FLAC,
  "FLAC from a pipe": _no_total(_no_md5(_FLAC)),
  "FLAC without its MD5": _no_md5(_FLAC),
  "FLAC and ID3v1": _FLAC + _ID3V1,
  "OGG and ID3v1": _VORBIS + _ID3V1,
  "OGG and zeros": _VORBIS + bytes(100),
  "Opus and ID3v1": _OPUS + _ID3V1,
  "MP3 and ID3v1": _MP3 + _ID3V1,
  "MP3 and both ID3s": _ID3V2 + _MP3 + _ID3V1,
  "MP3 and APE": _MP3 + _APE + _ID3V1,
  "MP3 and zeros": _MP3 + bytes(1000),
}


def _plain(case: str) -> bytes:
  kinds = {"FLAC": _FLAC, "OGG": _VORBIS, "Opus": _OPUS, "MP3": _MP3}
  return next((kinds[word] for word in case.split() if word in kinds), _WAV)


@pytest.mark.parametrize("case", _WHOLE)
def test_no_false_alarm_for_what_others_write(read, case):
  np.testing.assert_array_equal(read(_WHOLE[case]), read(_plain(case)))


def test_long_sizes_of_rf64_and_w64_count(read):
  for container in ("RF64", "W64", "CAF", "AIFF", "AU", "NIST"):
    data = _encoded(_wave(), format=container)
    np.testing.assert_array_equal(read(data), read(_WAV))
    with pytest.raises(
      InputError, match=r"7,9\d\d of 8,0\d\d bytes of samples"
    ):
      read(data[:-10])


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_chained_ogg_streams_are_one_recording(read, subtype):
  waves = [_wave(5_000, seed=seed) for seed in range(3)]
  links = [_encoded(wave, format="OGG", subtype=subtype) for wave in waves]
  together_S = read(b"".join(links))
  np.testing.assert_array_equal(
    together_S, np.concatenate([read(link) for link in links])
  )
  with pytest.raises(InputError, match="a file cut short"):
    read(b"".join(links)[:-1])


def test_chained_ogg_streams_keep_to_the_limits_together(tmp_path):
  path = tmp_path / "chain.ogg"
  path.write_bytes(_VORBIS * 3)
  with pytest.raises(InputError, match=r"at most 0\.6 s, got 0\.75 s"):
    audio.read(path, limits=audio.Limits(max_seconds=0.6))
  assert len(audio.read(path, limits=audio.Limits(0.7, 0.8)).wave_S) == 12_000


# Files that end too early.


def _short(**options) -> bytes:
  return _encoded(_wave(1_200), **options)


_CUT = {
  "WAV": _short(format="WAV"),
  "WAV of 24 bits": _short(format="WAV", subtype="PCM_24"),
  "float WAV": _short(format="WAV", subtype="FLOAT"),
  "u-law WAV": _short(format="WAV", subtype="ULAW"),
  "ADPCM WAV": _short(format="WAV", subtype="IMA_ADPCM"),
  "WAVEX": _short(format="WAVEX"),
  "FLAC": _short(format="FLAC"),
  "FLAC of 24 bits": _short(format="FLAC", subtype="PCM_24"),
  "OGG": _short(format="OGG"),
  "Opus": _short(format="OGG", subtype="OPUS"),
  "MP3": _short(format="MP3"),
  "AIFF": _short(format="AIFF"),
  "AU": _short(format="AU"),
  "NIST": _short(format="NIST"),
}


@pytest.mark.parametrize("case", _CUT)
def test_a_file_that_is_cut_anywhere_is_found_out(read, case):
  """At bytes all over it. What can't be: a cut in what follows the samples; between two
  streams of a chained OGG file; between two frames of an MP3 file whose encoder
  wrote no Xing or VBRI header, or of a FLAC file from a pipe, which states neither
  its length nor its MD5; and of anything that says it was streamed."""
  whole = _CUT[case]
  read(whole)
  ends = {*range(100), *range(len(whole) - 100, len(whole))}
  for size in sorted(ends.union(range(0, len(whole), 11))):
    with pytest.raises(InputError) as caught:
      read(whole[:size])
    assert "\n" not in str(caught.value)


def test_a_cut_wav_tells_how_much_is_there(read):
  with pytest.raises(
    InputError, match=r"whole recording, got a file cut short: 5,000 of 8,000"
  ):
    read(_WAV[:5_044])


@pytest.mark.parametrize("size", [0, 1, 26, 27])
def test_the_samples_are_found_behind_other_chunks(read, size):
  whole = _riff(_chunk(b"JUNK", bytes(size)), _FORMAT, _data(len(_BODY)))
  np.testing.assert_array_equal(read(whole), read(_WAV))
  with pytest.raises(InputError, match="7,998 of 8,000 bytes"):
    read(whole[:-2])


def test_a_cut_big_endian_wav_is_found_out(read):
  data = _encoded(_wave(), format="WAV", endian="BIG")
  assert data.startswith(b"RIFX")
  np.testing.assert_array_equal(read(data), read(_WAV))
  with pytest.raises(InputError, match="of 8,000 bytes"):
    read(data[:-2])


def test_mp3_without_a_header_of_counts_has_whole_frames(read):
  first = integrity._frame(_MP3[:4])
  assert first is not None
  bare = _MP3[first.size :]
  assert read(bare).size
  with pytest.raises(InputError, match="its last MP3 frame is not whole"):
    read(bare[:-5])


# Files with something wrong inside.


def _flips(data: bytes, *, start: int, count: int = 300):
  rng = np.random.default_rng(len(data))
  for place in rng.integers(start, len(data), count):
    damaged = bytearray(data)
    damaged[place] ^= 1 << int(rng.integers(8))
    yield bytes(damaged)


@pytest.mark.parametrize("data", [_VORBIS, _OPUS], ids=["vorbis", "opus"])
def test_any_bit_of_ogg_is_guarded(read, data):
  for damaged in _flips(data, start=0):
    with pytest.raises(InputError):
      read(damaged)


def test_a_page_in_the_middle_with_a_wrong_bit(read):
  pages = _pages(_LONG)
  before = len(b"".join(pages[:3]))
  for damaged in _flips(_LONG[:before] + pages[3], start=before + 28, count=9):
    with pytest.raises(
      InputError, match=f"wrong checksum of the OGG page at byte {before:,}"
    ):
      read(damaged + b"".join(pages[4:]))


def test_any_bit_of_flac_is_guarded_that_changes_the_sound(read):
  expected_S = read(_FLAC)
  found = 0
  for damaged in _flips(_FLAC, start=42):
    try:
      np.testing.assert_array_equal(read(damaged), expected_S)
    except InputError:
      found += 1
  assert found > 250


def test_flac_of_other_samples_than_its_md5(read):
  """Frames by themselves are whole: only the digest can tell."""
  other = _encoded(_wave(seed=1), format="FLAC")
  with pytest.raises(InputError, match="its samples differ from their MD5"):
    read(_FLAC[:26] + other[26:42] + _FLAC[42:])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
  ("subtype", "width"), [("PCM_S8", 1), ("PCM_16", 2), ("PCM_24", 3)]
)
def test_digest_is_the_encoders(tmp_path, subtype, width, channels):
  path = tmp_path / "a.flac"
  signal_SC = np.stack([_wave(70_000, seed=s) for s in range(channels)], axis=1)
  soundfile.write(path, signal_SC, _RATE, subtype=subtype)
  integers_SC = soundfile.read(path, dtype="int32", always_2d=True)[0]
  packed = integers_SC.astype("<i4").view(np.uint8).reshape(-1, 4)
  oracle = hashlib.md5(packed[:, 4 - width :].tobytes()).digest()
  assert path.read_bytes()[26:42] == oracle
  with sound_files.opened(path) as source:
    digest = integrity.flac_digest(source)
    assert digest is not None
    with sound_files.decoding(source, "a") as stream:
      for block_SC in stream.blocks_up_to(1e9):
        digest.update(block_SC)
  assert digest.damage() == ""
  digest.update(block_SC[:1])
  assert digest.damage()


def _slow_checksum(page: bytes) -> int:
  crc = 0
  for byte in page[:22] + bytes(4) + page[26:]:
    crc ^= byte << 24
    for _ in range(8):
      crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
  return crc


def test_ogg_checksum_by_the_book():
  rng = np.random.default_rng(0)
  for size in (27, 28, 100, 1_000):
    page = rng.integers(0, 256, size, dtype=np.uint8).tobytes()
    assert integrity._ogg_checksum(page) == _slow_checksum(page)


def _pages(ogg: bytes) -> list[bytes]:
  pages = []
  while ogg:
    count = ogg[26]
    size = 27 + count + sum(ogg[27 : 27 + count])
    pages.append(ogg[:size])
    ogg = ogg[size:]
  return pages


_LONG = _encoded(_wave(60_000), format="OGG")


@pytest.mark.parametrize(
  ("rearranged", "match"),
  [
    (lambda p: [*p[:-2], p[-1]], "pages are missing before"),
    (lambda p: [*p[:-1]], "its last OGG page is missing"),
    (lambda p: [*p[:-2], p[-2], p[-2], p[-1]], "pages are missing before"),
    (lambda p: [*p[:-2], p[-1], p[-2]], "damaged file"),
    (lambda p: [*p[:-1], b"junk", p[-1]], "no OGG page at byte"),
    (lambda p: [*p[:-1], p[-1][:40]], "is not whole"),
    (lambda p: [*p, b"junk", *p], "no OGG page at byte"),
    (lambda p: [*p, *p[2:]], "pages are missing before"),
  ],
)
def test_ogg_pages_stand_in_their_order(read, rearranged, match):
  pages = _pages(_LONG)
  assert len(pages) > 4
  read(b"".join(pages))
  with pytest.raises(InputError, match=match):
    read(b"".join(rearranged(pages)))


def _frames(mp3: bytes) -> list[bytes]:
  frames = []
  while mp3:
    frame = integrity._frame(mp3[:4])
    assert frame is not None
    frames.append(mp3[: frame.size])
    mp3 = mp3[frame.size :]
  return frames


@pytest.mark.parametrize(
  ("rearranged", "match"),
  [
    (lambda f: [*f[:4], *f[7:]], "MP3 frames where its header says"),
    (lambda f: f + f, "MP3 frames where its header says"),
    (lambda f: [*f[:4], f[4][:-9], *f[5:]], "no MP3 frame at byte"),
    (lambda f: [*f[:4], bytes(3_000), *f[5:]], "no MP3 frame at byte"),
    (lambda f: [*f[:-1], f[-1][:-1]], "its last MP3 frame is not whole"),
  ],
)
def test_mp3_frames_are_all_there(read, rearranged, match):
  frames = _frames(_MP3)
  assert b"".join(frames) == _MP3
  with pytest.raises(InputError, match=match):
    read(b"".join(rearranged(frames)))


@pytest.mark.parametrize("version", [3, 2, 0])
@pytest.mark.parametrize("rate", [0, 1, 2])
@pytest.mark.parametrize("mono", [False, True])
def test_mp3_frame_sizes_are_those_of_the_encoder(version, rate, mono):
  hertz = integrity._RATES[version][rate]
  wave = _wave(hertz // 2)
  data = _encoded(
    wave if mono else np.stack([wave, 0.5 * wave], axis=1),
    rate=hertz,
    format="MP3",
  )
  frames = _frames(data)
  samples = 1152 if version == 3 else 576
  assert len(frames) - 1 == pytest.approx(len(wave) / samples, abs=4)
  first = integrity._frame(data[:4])
  assert first is not None
  assert first.kind == (version, 1, rate)
  assert data[first.info_at :][:4] in (b"Xing", b"Info")


def test_vbri_header_counts(tmp_path):
  first = integrity._frame(_MP3[:4])
  assert first is not None
  frames = _frames(_MP3)
  for count, damaged in [(len(frames) - 1, False), (len(frames) + 9, True)]:
    vbri = b"VBRI" + struct.pack(">HHHII", 1, 0, 0, len(_MP3), count)
    head = frames[0][:4] + bytes(32) + vbri
    path = tmp_path / "a.mp3"
    path.write_bytes(head.ljust(first.size, b"\0") + b"".join(frames[1:]))
    with sound_files.opened(path) as source:
      assert bool(integrity.find_damage(source, "MP3")) == damaged


def test_walks_end_however_many_chunks_there_are(tmp_path, monkeypatch):
  path = tmp_path / "a"
  empty = b"none" + bytes(4)
  path.write_bytes(b"RIFF" + bytes(4) + b"WAVE" + empty * 200_000)
  reads, pread = [0], os.pread

  def count(*args):
    reads[0] += 1
    return pread(*args)

  monkeypatch.setattr(os, "pread", count)
  with sound_files.opened(path) as source:
    for container in ("WAV", "AIFF", "CAF", "W64"):
      assert integrity.find_damage(source, container) == ""
  assert reads[0] < 50_000


def test_long_files_are_walked_in_windows(read, monkeypatch):
  monkeypatch.setattr(integrity, "_WINDOW", 70_000)
  long_ogg = _encoded(_wave(600_000), format="OGG")
  long_mp3 = _encoded(_wave(600_000), format="MP3")
  assert min(len(long_ogg), len(long_mp3)) > 2 * 70_000
  assert len(read(long_ogg)) == 600_000
  assert len(read(long_mp3)) == pytest.approx(600_000, abs=2_000)
  for data in (long_ogg, long_mp3):
    with pytest.raises(InputError, match="whole recording"):
      read(data[:100_000] + data[101_000:])
