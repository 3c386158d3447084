"""Whether a recording is whole, by what its own container says of itself.

Enters: a file's bytes (`Source`), and the samples decoded from it (`PcmDigest`).
Leaves: what is wrong, in words, or nothing.

Decoders are made for listening: they skip what is damaged and end where a file
does. What a container repeats about itself finds that out:

  WAV, RF64, W64, AIFF, AU, CAF, NIST   bytes of samples, by the header
  FLAC    the MD5 of all samples
  OGG     a checksum and a number in each page, a mark on the last one
  MP3     the size of each frame; their number, where Xing, Info or VBRI says it

Headers that were written before the length was known (pipes, recorders) say
nothing of it, and that is no damage. Nor is it when bytes after the samples (tags,
lists) are missing or unknown. Sources: RFC 3533 (OGG), RFC 9639 (FLAC), ISO 11172-3
(MP3), EBU Tech 3306 (RF64).
"""

import hashlib
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

_WINDOW = 1 << 20
_MAX_CHUNKS = 10_000
_STREAMED = 0x7FFF0000
"""A 32-bit size from here on is a placeholder, as is 0: SoX writes 0x7FFFF000,
ffmpeg 0xFFFFFFFF, others what is near."""


class Source(NamedTuple):
  """The bytes of an open regular file."""

  descriptor: int
  size: int

  def read(self, start: int, count: int) -> bytes:
    """Up to `count` bytes from `start` on; the file's position stays."""
    return os.pread(self.descriptor, count, start)

  def unpack(self, layout: str, start: int) -> tuple:
    """Fields by a `struct` layout; zeros stand for what is beyond the end."""
    width = struct.calcsize(layout)
    return struct.unpack(layout, self.read(start, width).ljust(width, b"\0"))


def find_damage(source: Source, container: str) -> str:
  """What is wrong with a whole file, or "".

  Args:
    container: libsndfile's name; OGG has `read_ogg`, FLAC `flac_digest`.
  """
  check = _CHECKS.get(container)
  return check(source, _skip_id3(source)) if check else ""


def _skip_id3(source: Source) -> int:
  position = 0
  while True:
    head = source.read(position, 10)
    if len(head) < 10 or head[:3] != b"ID3":
      return position
    position += _id3_size(head)


def _id3_size(head: bytes) -> int:
  size = 0
  for byte in head[6:10]:
    size = size << 7 | byte & 0x7F
  return 10 + size


def _cut_short(source: Source, start: int, stated: int) -> str:
  """Whether there are `stated` bytes from `start` on; 0 or less states nothing."""
  present = max(0, source.size - start)
  if present >= stated:
    return ""
  return f"a file cut short: {present:,} of {stated:,} bytes of samples"


def _known(size: int) -> int:
  return size if size < _STREAMED else 0


def _chunks(
  source: Source, position: int, *, layout: str, multiple: int
) -> Iterator[tuple[bytes, int, int]]:
  """Name, stated size and start of the content of each chunk.

  Args:
    layout: of a chunk's header, name and size, for `struct`.
    multiple: bytes that contents are padded to.
  """
  header = struct.calcsize(layout)
  for _ in range(_MAX_CHUNKS):
    name, size = source.unpack(layout, position)
    position += header
    yield name, size, position
    position += max(0, -(-size // multiple) * multiple)
    if position >= source.size:
      return


def _riff(source: Source, start: int) -> str:
  form = source.read(start, 4)
  layout = ">4sI" if form == b"RIFX" else "<4sI"
  long_size = 0
  for name, size, content in _chunks(
    source, start + 12, layout=layout, multiple=2
  ):
    if name == b"ds64":
      _, long_size = source.unpack("<QQ", content)
    if name == b"data":
      if form == b"RF64" and size == 0xFFFFFFFF:
        return _cut_short(source, content, long_size)
      return _cut_short(source, content, _known(size))
  return ""


def _w64(source: Source, start: int) -> str:
  position = start + 40
  for _ in range(_MAX_CHUNKS):
    # Unlike the others', this size counts the header.
    name, size = source.unpack("<4s12xQ", position)
    if name == b"data":
      return _cut_short(source, position + 24, size - 24)
    position += max(24, size + 7 & ~7)
    if position >= source.size:
      break
  return ""


def _aiff(source: Source, start: int) -> str:
  for name, size, content in _chunks(
    source, start + 12, layout=">4sI", multiple=2
  ):
    if name == b"SSND":
      # Offset and block size stand before the samples.
      return _cut_short(source, content + 8, _known(size) - 8)
  return ""


def _caf(source: Source, start: int) -> str:
  for name, size, content in _chunks(
    source, start + 8, layout=">4sq", multiple=1
  ):
    if name == b"data":
      # An edit count stands before the samples; -1: up to the end.
      return _cut_short(source, content + 4, size - 4)
  return ""


def _au(source: Source, start: int) -> str:
  order = ">" if source.read(start, 4) == b".snd" else "<"
  offset, size = source.unpack(f"{order}4xII", start)
  return _cut_short(source, start + offset, _known(size))


def _nist(source: Source, start: int) -> str:
  header = source.read(start, 1024)
  fields = dict(re.findall(rb"^(\w+) -i (\d{1,18})", header, re.MULTILINE))
  length = re.match(rb"NIST_1A\s+(\d{1,18})", header)
  counts = [
    int(fields.get(name, 0))
    for name in (b"sample_count", b"channel_count", b"sample_n_bytes")
  ]
  if length is None or not all(counts):
    return ""
  samples, channels, width = counts
  return _cut_short(source, start + int(length[1]), samples * channels * width)


class PcmDigest:
  """The MD5 of a FLAC file's samples, as decoding goes on."""

  def __init__(self, bits: int, stated: bytes):
    self._scale = np.float32(1 << bits - 1)
    self._bytes = bits // 8
    self._stated = stated
    self._md5 = hashlib.md5(usedforsecurity=False)

  def update(self, signal_SC: np.ndarray) -> None:
    """Takes the next decoded samples, float32 in [-1, 1): exact to 24 bits."""
    rows = max(1, (1 << 16) // signal_SC.shape[1])  # stays in the cache
    width = self._bytes
    for start in range(0, len(signal_SC), rows):
      scaled_SC = signal_SC[start : start + rows] * self._scale
      if width == 3:
        bytes_SCB = scaled_SC.astype("<i4").view(np.uint8).reshape(-1, 4)
        self._md5.update(bytes_SCB[:, :3].tobytes())
      else:
        self._md5.update(scaled_SC.astype(f"<i{width}").tobytes())

  def damage(self) -> str:
    """What is wrong once all samples were taken, or ""."""
    if self._md5.digest() == self._stated:
      return ""
    return "a damaged file: its samples differ from their MD5"


def flac_digest(source: Source) -> PcmDigest | None:
  """The digest to check a FLAC file by; None where its encoder left none."""
  header = source.read(_skip_id3(source), 42)
  if len(header) < 42 or header[:4] != b"fLaC" or header[4] & 0x7F:
    return None
  bits = ((header[20] & 1) << 4 | header[21] >> 4) + 1
  stated = header[26:42]
  return (
    PcmDigest(bits, stated) if bits in (8, 16, 24) and any(stated) else None
  )


class Ogg(NamedTuple):
  """What the pages of an OGG file say."""

  links: tuple[tuple[int, int], ...] = ()
  """Start and end, in bytes, of the streams that follow one another."""
  damage: str = ""


_MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_FIRST_PAGE, _LAST_PAGE = 2, 4
_MAX_PAGE = 27 + 255 + 255 * 255


def _ogg_checksum(page: bytes) -> int:
  # OGG's CRC is zlib's with every byte's bits, and the result's, mirrored, and
  # starting at 0 (https://www.rfc-editor.org/rfc/rfc3533#section-6).
  mirrored = (page[:22] + bytes(4) + page[26:]).translate(_MIRROR)
  crc = zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF
  return int.from_bytes(crc.to_bytes(4, "little").translate(_MIRROR), "big")


def read_ogg(source: Source) -> Ogg:
  """Walks all pages of an OGG file: checksums, numbers, first and last marks."""
  links: list[tuple[int, int]] = []
  awaited: dict[
    int, int
  ] = {}  # streams that are open -> their next page's number
  begin = position = base = 0
  window = b""
  while position < source.size:
    if position + _MAX_PAGE > base + len(window) < source.size:
      base, window = position, source.read(position, _WINDOW)
    at = position - base
    head = window[at : at + 27]
    if head[:4] != b"OggS"[: len(head)]:
      if links and not awaited and b"OggS" not in window[at:]:
        break  # a tag, or padding
      return Ogg(damage=f"a damaged file: no OGG page at byte {position:,}")
    segments = window[at + 27 : at + 27 + (head[26] if len(head) > 26 else 0)]
    size = 27 + len(segments) + sum(segments)
    page = window[at : at + size]
    if len(head) < 27 or len(segments) < head[26] or len(page) < size:
      return Ogg(damage="a file cut short: its last OGG page is not whole")
    flags, serial, number, checksum = struct.unpack("<5xB8xIII", head[:26])
    if _ogg_checksum(page) != checksum:
      return Ogg(
        damage="a damaged file: wrong checksum of the OGG page at byte "
        f"{position:,}"
      )
    if flags & _FIRST_PAGE and serial not in awaited:
      awaited[serial] = number
    if awaited.get(serial) != number:
      return Ogg(
        damage=f"a damaged file: OGG pages are missing before byte {position:,}"
      )
    awaited[serial] = number + 1 & 0xFFFFFFFF
    position += size
    if flags & _LAST_PAGE:
      del awaited[serial]
      if not awaited:
        links.append((begin, position))
        begin = position
  if awaited:
    return Ogg(damage="a file cut short: its last OGG page is missing")
  return Ogg(links=tuple(links))


class _Frame(NamedTuple):
  """An MPEG audio frame by its four-byte header."""

  size: int
  """Bytes."""
  kind: tuple[int, int, int]
  """Version, layer, index of the rate: the same in all frames of a stream."""
  info_at: int
  """Where a Xing or Info header would stand."""


_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000)}
_RATES[0] = (11025, 12000, 8000)  # MPEG 2.5
_KBPS = {
  (1, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
  (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
  (1, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
  (2, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
  (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
  (2, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""By MPEG 1 or 2, and by layer as it is coded: 3 is layer I, 1 layer III."""
_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")


def _frame(head: bytes) -> _Frame | None:
  if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
    return None
  version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
  kbps, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
  if version == 1 or layer == 0 or kbps in (0, 15) or rate == 3:
    return None  # reserved, or of a size that no header tells
  generation = 1 if version == 3 else 2
  hertz = _RATES[version][rate]
  bits = _KBPS[generation, layer][kbps - 1] * 1000
  if layer == 3:
    size = (12 * bits // hertz + padding) * 4
  else:
    slots = 72 if layer == 1 and generation == 2 else 144
    size = slots * bits // hertz + padding
  mono = head[3] >> 6 == 3
  side = (17 if mono else 32) if generation == 1 else (9 if mono else 17)
  checked = 0 if head[1] & 1 else 2
  return _Frame(size, (version, layer, rate), 4 + checked + side)


def _stated_frames(source: Source, start: int, frame: _Frame) -> int:
  """What a Xing, Info or VBRI header says; 0 where there is none."""
  name, flags, count = source.unpack(">4sII", start + frame.info_at)
  if name in (b"Xing", b"Info"):
    return count if flags & 1 else 0
  name, count = source.unpack(">4s10xI", start + 36)
  return count if name == b"VBRI" else 0


def _mp3(source: Source, start: int) -> str:
  first = _frame(source.read(start, 4))
  if first is None:
    return ""
  stated = _stated_frames(source, start, first)
  frames: dict[bytes, _Frame | None] = {}
  position, count = start, -1 if stated else 0
  base, window = 0, b""
  while position < source.size:
    at = position - base
    if at + 4 > len(window):
      base, window, at = position, source.read(position, _WINDOW), 0
      if not window:
        break
    head = window[at : at + 4]
    if head not in frames:
      frames[head] = _frame(head)
    frame = frames[head]
    if frame is None or frame.kind != first.kind:
      after = _after_tag(source, position, first)
      if after < 0:
        return f"a damaged file: no MP3 frame at byte {position:,}"
      position = after
      continue
    position += frame.size
    count += 1
  if position > source.size and count:
    return "a file cut short: its last MP3 frame is not whole"
  # Some encoders count the header's own frame, some don't.
  if stated and abs(count - stated) > 1:
    return f"{count:,} MP3 frames where its header says {stated:,}"
  return ""


def _after_tag(source: Source, start: int, first: _Frame) -> int:
  """Where frames go on after what is none, or the end; -1 where it is damage."""
  head = source.read(start, 10)
  if len(head) == 10 and head[:3] == b"ID3":
    return min(source.size, start + _id3_size(head))
  if head.startswith(_TAGS):
    return source.size
  rest = source.read(start, _WINDOW)
  for at in range(len(rest) - 3):
    if rest[at] != 0xFF:
      continue
    frame = _frame(rest[at : at + 4])
    if frame is None or frame.kind != first.kind:
      continue
    after = _frame(source.read(start + at + frame.size, 4))
    if after is not None and after.kind == first.kind:
      return -1
  return source.size


_CHECKS: dict[str, Callable[[Source, int], str]] = {
  "WAV": _riff,
  "WAVEX": _riff,
  "RF64": _riff,
  "W64": _w64,
  "AIFF": _aiff,
  "AU": _au,
  "CAF": _caf,
  "NIST": _nist,
  "MP3": _mp3,
}
