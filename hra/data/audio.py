"""Audio files -> waveforms.

Enters: WAV, FLAC, OGG or MP3 (whatever libsndfile reads) at any rate, with any
number of channels, from a local path or an epath URL. Leaves: `wave_S`, float32,
mono, at `dims.SAMPLE_RATE`, finite and in [-1, 1]; or one `InputError`.

Nothing is believed that a file says of itself: its length bounds no allocation,
samples are read in blocks, and a whole recording is compared with what its
container states (`hra.data.integrity`). libsndfile itself is C, and what bytes can
do to it ends with its process: `hra.data.shards` decodes in processes of its own.
"""

import math
import os
from typing import NamedTuple

import numpy as np
import soxr

from hra import dims
from hra.data import integrity, sound_files
from hra.data.records import Record
from hra.errors import InputError

_INT16_SCALE = 32768.0
_MAX_LINKS = 1_000
"""Streams in one chained OGG file."""
_SLACK = 0.02
"""Seconds by which a segment may end after its recording."""
_ROUNDING = 1e-3
"""Seconds between two frames at the lowest rate: limits are not finer."""
_AGREEMENT = (0.25, 0.02)
"""Seconds, or part of the whole, that a stated duration may be wrong by."""
_COPY = "copy or export it again"


class Recording(NamedTuple):
  """A waveform and the rate that its file had."""

  wave_S: np.ndarray
  source_rate: int


class TooLong(InputError):
  """A recording is longer than the limits allow."""


class Limits(NamedTuple):
  """What a recording must keep to."""

  min_seconds: float = 0.0
  max_seconds: float = math.inf
  """A longer one is refused from its header, before it is decoded."""
  labels_per_second: float = 0.0
  """More labels than that can't be aligned; 0 asks for nothing."""


NO_LIMITS = Limits()


def decode(path: str | os.PathLike[str]) -> np.ndarray:
  """Reads a whole audio file; see `read`."""
  return read(path).wave_S


def decode_open(
  descriptor: int, where: str, *, limits: Limits = NO_LIMITS
) -> np.ndarray:
  """Reads a whole audio file that is open; see `read`.

  Args:
    descriptor: of a regular file, whose position moves.
    where: what errors call it.
  """
  source = sound_files.source(descriptor, where)
  return _sound(_read_whole(source, where, limits=limits), where).wave_S


def read(
  path: str | os.PathLike[str],
  *,
  offset: float = 0.0,
  duration: float | None = None,
  limits: Limits = NO_LIMITS,
) -> Recording:
  """Reads an audio file, or `duration` seconds of it from `offset` on.

  Channels are averaged, then the signal is resampled (soxr, high quality) to
  `dims.SAMPLE_RATE` and clipped to [-1, 1]. 16-bit mono at that rate is exact:
  sample / 2^15. Of a segment's file only the segment is decoded; the rest is
  looked at when the whole is read.

  Raises:
    InputError: it is no regular file, no audio, empty, damaged or cut short; it
      is silent or holds NaN; the limits or the segment don't fit.
    TooLong: it is longer than the limits allow.
    StorageError: the disk or the bucket doesn't give it.
  """
  where = sound_files.printable(path)
  _check_segment(where, offset=offset, duration=duration)
  with sound_files.opened(path) as source:
    if offset or duration is not None:
      recording = _read_segment(
        source, where, offset=offset, duration=duration, limits=limits
      )
    else:
      recording = _read_whole(source, where, limits=limits)
  return _sound(recording, where)


def _sound(recording: Recording, where: str) -> Recording:
  """The recording, if it is one, in [-1, 1]."""
  wave_S = recording.wave_S
  low, high = float(wave_S.min()), float(wave_S.max())
  if not (math.isfinite(low) and math.isfinite(high)):
    raise InputError(
      where, expected="finite samples", got="NaN or infinite ones"
    )
  if max(high, -low) * _INT16_SCALE <= 0.5:
    raise InputError(where, expected="a recording with sound", got="silence")
  if low < -1 or high > 1:
    np.clip(wave_S, -1.0, 1.0, out=wave_S)
  return recording


def read_record(record: Record, *, limits: Limits) -> Recording:
  """Reads a corpus's recording and compares it with what the corpus says of it.

  Raises:
    InputError: as `read` does, with the record's own `where` and the file's path;
      or the file is not as long as stated, or too short for its labels.
  """
  where = record.where or record.id
  segment = record.offset is not None
  try:
    recording = read(
      record.path,
      offset=record.offset or 0.0,
      duration=record.duration if segment else None,
      limits=limits,
    )
  except InputError as error:
    raise type(error)(
      where,
      expected=error.expected,
      got=f"{error.got} in {error.where}",
      fix=error.fix,
    ) from error
  seconds = len(recording.wave_S) / dims.SAMPLE_RATE
  found = f"{seconds:.2f} s in {sound_files.printable(record.path)}"
  if record.duration is not None:
    slack, part = _AGREEMENT
    if not abs(record.duration - seconds) <= max(slack, part * seconds):
      raise InputError(
        where,
        expected=f"a recording of {record.duration:g} s, as its duration says",
        got=found,
        fix='correct the duration, or add "offset": 0 if it is a segment',
      )
  if record.labels is not None and limits.labels_per_second > 0:
    needed = record.labels / limits.labels_per_second
    if seconds < needed:
      raise InputError(
        where,
        expected=f"a recording of at least {needed:.2f} s for its "
        f"{record.labels} labels",
        got=found,
        fix="see whether the transcript is of this recording",
      )
  return recording


def encode_int16(wave_S: np.ndarray) -> np.ndarray:
  """[-1, 1] -> int16 at 2^15 per unit, rounded, saturating at the ends."""
  scaled_S = np.rint(wave_S * _INT16_SCALE)
  return np.clip(scaled_S, -32768, 32767).astype(np.int16)


def decode_int16(samples_S: np.ndarray) -> np.ndarray:
  """The inverse of `encode_int16`: int16 -> float32 in [-1, 1); exact."""
  return np.multiply(samples_S, 1 / _INT16_SCALE, dtype=np.float32)


def _check_segment(
  where: str, *, offset: float, duration: float | None
) -> None:
  if not (math.isfinite(offset) and offset >= 0):
    raise InputError(where, expected="an offset from 0 s on", got=f"{offset:g}")
  if duration is not None and not (math.isfinite(duration) and duration > 0):
    raise InputError(
      where, expected="a duration of more than 0 s", got=f"{duration:g}"
    )


def _check_longest(where: str, seconds: float, limits: Limits) -> None:
  if seconds > limits.max_seconds + _ROUNDING:
    raise TooLong(
      where,
      expected=f"a recording of at most {limits.max_seconds:g} s",
      got=f"{seconds:.2f} s",
      fix="cut it by offset and duration",
    )


def _check_seconds(where: str, seconds: float, limits: Limits) -> None:
  _check_longest(where, seconds, limits)
  if seconds < limits.min_seconds - _ROUNDING:
    raise InputError(
      where,
      expected=f"a recording of at least {limits.min_seconds:g} s",
      got=f"{seconds:.3f} s",
    )


def _read_segment(
  source: integrity.Source,
  where: str,
  *,
  offset: float,
  duration: float | None,
  limits: Limits,
) -> Recording:
  with sound_files.decoding(source, where) as stream:
    rate, total = stream.samplerate, stream.frames
    start = round(offset * rate)
    if start and start >= total:
      raise _ends_before(where, offset, total / rate)
    count = math.inf if duration is None else round(duration * rate)
    if duration is not None and start + count > total + _SLACK * rate:
      raise _ends_early(where, offset + duration, total / rate)
    left = total - start if total < sound_files.UNKNOWN else math.inf
    stated = min(count, left)
    if stated < math.inf:
      _check_seconds(where, stated / rate, limits)
    reached = stream.skip(start)
    wave_S = _mono(stream, min(stated, _most(rate, limits)))
  if start and not len(wave_S):
    raise _ends_before(where, offset, reached / rate)
  if stated < math.inf and len(wave_S) < stated - _SLACK * rate:
    raise _ends_early(
      where, offset + stated / rate, offset + len(wave_S) / rate
    )
  return _resample(where, wave_S, rate, limits=limits)


def _ends_before(where: str, start: float, found: float) -> InputError:
  return InputError(
    where,
    expected=f"a segment from {start:g} s on",
    got=f"a recording of {found:g} s",
  )


def _ends_early(where: str, end: float, found: float) -> InputError:
  return InputError(
    where,
    expected=f"a segment up to {end:g} s",
    got=f"a recording of {found:g} s",
  )


def _read_whole(
  source: integrity.Source, where: str, *, limits: Limits
) -> Recording:
  with sound_files.decoding(source, where) as stream:
    rate, stated = stream.samplerate, stream.frames
    if stated < sound_files.UNKNOWN:
      _check_longest(where, stated / rate, limits)
    links = _check_container(source, where, stream.format)
    if len(links) > 1:
      return _read_links(source, where, links, limits=limits)
    digest = integrity.flac_digest(source) if stream.format == "FLAC" else None
    wave_S = _mono(
      stream, min(max(0, stated), _most(rate, limits)), digest=digest
    )
  _check_longest(where, len(wave_S) / rate, limits)
  if 0 < stated < sound_files.UNKNOWN and len(wave_S) != stated:
    raise _damaged(
      where, f"{len(wave_S) / rate:.3f} s of the {stated / rate:.3f} s stated"
    )
  damage = digest.damage() if digest is not None else ""
  if damage:
    raise _damaged(where, damage)
  return _resample(where, wave_S, rate, limits=limits)


def _check_container(
  source: integrity.Source, where: str, container: str
) -> tuple[tuple[int, int], ...]:
  """Raises what a container's own words show to be damaged.

  Returns:
    Start and end of an OGG file's streams; nothing for other files.
  """
  if container == "OGG":
    ogg = integrity.read_ogg(source)
    damage, links = ogg.damage, ogg.links
  else:
    damage, links = integrity.find_damage(source, container), ()
  if damage:
    raise _damaged(where, damage)
  return links


def _damaged(where: str, got: str) -> InputError:
  return InputError(where, expected="a whole recording", got=got, fix=_COPY)


def _read_links(
  source: integrity.Source,
  where: str,
  links: tuple[tuple[int, int], ...],
  *,
  limits: Limits,
) -> Recording:
  """OGG streams one after another, of which libsndfile reads the first alone."""
  if len(links) > _MAX_LINKS:
    raise InputError(
      where,
      expected=f"an OGG file of at most {_MAX_LINKS:,} streams",
      got=f"{len(links):,}",
    )
  parts: list[Recording] = []
  seconds = 0.0
  for start, end in links:
    with sound_files.part(source, start, end) as link:
      bounded = limits._replace(min_seconds=0.0)
      parts.append(_read_whole(link, where, limits=bounded))
    seconds += len(parts[-1].wave_S) / dims.SAMPLE_RATE
    _check_longest(where, seconds, limits)
  _check_seconds(where, seconds, limits)
  wave_S = np.concatenate([part.wave_S for part in parts])
  return Recording(wave_S, parts[0].source_rate)


def _most(rate: int, limits: Limits) -> float:
  """Frames at which it is plain that a recording is too long."""
  return (
    math.floor(limits.max_seconds * rate) + rate
    if limits.max_seconds < math.inf
    else math.inf
  )


def _mono(
  stream: sound_files.Stream,
  count: float,
  *,
  digest: integrity.PcmDigest | None = None,
) -> np.ndarray:
  parts = []
  for block_SC in stream.blocks_up_to(count):
    if digest is not None:
      digest.update(block_SC)
    parts.append(_mean(block_SC))
  if len(parts) == 1:
    return parts[0]
  return np.concatenate(parts or [np.zeros(0, np.float32)])


def _mean(block_SC: np.ndarray) -> np.ndarray:
  # NumPy's mean over so short an axis takes 40 times as long.
  channels = block_SC.shape[1]
  if channels == 1:
    return block_SC[:, 0]
  with np.errstate(over="ignore", invalid="ignore"):  # found out later
    wave_S = block_SC[:, 0] + block_SC[:, 1]
    for channel in range(2, channels):
      wave_S += block_SC[:, channel]
    wave_S /= channels
  return wave_S


def _resample(
  where: str, wave_S: np.ndarray, rate: int, *, limits: Limits
) -> Recording:
  if wave_S.size:
    _check_seconds(where, len(wave_S) / rate, limits)
  if rate != dims.SAMPLE_RATE and wave_S.size:
    wave_S = soxr.resample(wave_S, rate, dims.SAMPLE_RATE)
  if not wave_S.size:
    raise InputError(
      where,
      expected="some samples",
      got="none",
      fix="export it again, or repair a header that was never finished",
    )
  return Recording(wave_S, rate)
