"""Paths and URLs -> open files -> decoded blocks, none of which can be trusted.

Enters: a local path or an epath URL. Leaves: its bytes (`Source`), if it is a
regular file, and a decoder of them (`Stream`) that reads on in bounded blocks.

libsndfile gets the descriptor: neither does it see a path of odd bytes, nor does it
guess from an extension that bytes are samples, nor are bytes copied for it.
"""

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator

import numpy as np
import soundfile
from etils import epath

from hra.data.integrity import Source
from hra.errors import InputError
from hra.files import is_remote, storage

BLOCK = 1 << 22
"""Samples that are decoded at a time: four minutes at 16 kHz, 16 MiB."""
UNKNOWN = 1 << 62
"""libsndfile's number of frames of a stream with no stated length, or more."""
_LOSSY = ("MP3", "OGG")
_PRE_ROLL = 1.0
"""Seconds that are decoded before a segment: after a jump, MP3 is silent until it
has what earlier frames hold (0.22 s of it measured at 16 kHz; 511 bytes at most)
and Opus takes 80 ms to converge."""
_COPIED = 1 << 20
_MIN_RATE, _MAX_RATE = 1_000, 768_000
_MAX_CHANNELS = 64
CONTAINERS = (
  "WAV",
  "WAVEX",
  "RF64",
  "W64",
  "FLAC",
  "OGG",
  "MP3",
  "AIFF",
  "AU",
  "CAF",
  "NIST",
)
"""What speech comes in. libsndfile's decoders of samplers' and computers' formats
of old times print to the standard output and make samples of nearly any bytes."""
_READABLE = "a readable WAV, FLAC, OGG or MP3 file"
_OF_THE_FILE = {
  errno.EACCES: "a file that may not be read",
  errno.ELOOP: "a link that leads to itself",
  errno.ENAMETOOLONG: "too long a name",
  errno.ENOENT: "no such file",
  errno.ENOTDIR: "no such file",
  errno.EPERM: "a file that may not be read",
}
"""What is wrong with one recording, rather than with the disk."""


def printable(path: str | os.PathLike[str]) -> str:
  """A path on one line, in characters that any terminal takes."""
  return "".join(
    character
    if character.isprintable()
    else character.encode("unicode_escape").decode()
    for character in os.fspath(path)
  )


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Source]:
  """The bytes of a regular file, or a copy of what stands at a URL.

  Raises:
    InputError: there is no such file, or it is none that could hold a recording.
    StorageError: the disk or the bucket doesn't give it.
  """
  where = printable(path)
  if is_remote(path):
    with tempfile.TemporaryFile() as copy:
      with storage(path, expected="an audio file"):
        try:
          with epath.Path(path).open("rb") as remote:
            shutil.copyfileobj(remote, copy, _COPIED)
        except FileNotFoundError as error:
          raise InputError(
            where, expected="an audio file", got="no such file"
          ) from error
        copy.flush()
      yield source(copy.fileno(), where)
    return
  with storage(where, expected="an audio file"):
    descriptor = _open_regular(path, where)
    try:
      yield source(descriptor, where)
    finally:
      os.close(descriptor)


def source(descriptor: int, where: str) -> Source:
  """The bytes of an open regular file.

  Raises:
    InputError: it has none.
  """
  size = os.fstat(descriptor).st_size
  if not size:
    raise InputError(where, expected="an audio file", got="an empty file")
  return Source(descriptor, size)


def _open_regular(path: str | os.PathLike[str], where: str) -> int:
  """Opens neither devices nor pipes, which may answer never, or for ever."""
  try:
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
      return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    got = "a directory" if stat.S_ISDIR(mode) else "a pipe or a device"
  except ValueError:  # a zero byte, or a character that no file name has
    got = "a name that no file can have"
  except OSError as error:
    if error.errno not in _OF_THE_FILE:
      raise
    got = _OF_THE_FILE[error.errno]
  raise InputError(where, expected="an audio file", got=got)


@contextlib.contextmanager
def part(source: Source, start: int, end: int) -> Iterator[Source]:
  """Bytes of a file as a file of their own."""
  with tempfile.TemporaryFile() as copy:
    for position in range(start, end, _COPIED):
      copy.write(source.read(position, min(_COPIED, end - position)))
    copy.flush()
    yield Source(copy.fileno(), end - start)


class Stream(soundfile.SoundFile):
  """A decoder that reads on from where it stands.

  soundfile seeks after each block of a file that can seek, which makes lossy
  decoders begin anew.
  """

  def seekable(self) -> bool:
    return False

  def skip(self, start: int) -> int:
    """Goes to a frame: by a jump where the codec can, else by decoding.

    Returns:
      The frame where it stands: an earlier one if the file ends before `start`.
    """
    at = 0
    if super().seekable() and self.frames < UNKNOWN:
      lossy = self.format in _LOSSY
      before = round(_PRE_ROLL * self.samplerate) if lossy else 0
      at = self.seek(max(0, start - before))
    for block_SC in self.blocks_up_to(start - at):
      at += len(block_SC)
    return at

  def blocks_up_to(self, count: float) -> Iterator[np.ndarray]:
    """The next `count` frames, float32, or as many as there are, in blocks."""
    size = max(1, BLOCK // self.channels)
    while count > 0:
      block_SC = self.read(
        int(min(size, count)), dtype="float32", always_2d=True
      )
      if not len(block_SC):
        return
      yield block_SC
      count -= len(block_SC)


@contextlib.contextmanager
def decoding(source: Source, where: str) -> Iterator[Stream]:
  """A decoder at the first sample; what it raises is about the file.

  Raises:
    InputError: these bytes are no audio, or of an absurd rate or channel count.
  """
  os.lseek(source.descriptor, 0, os.SEEK_SET)
  try:
    with Stream(source.descriptor, closefd=False) as stream:
      if stream.format not in CONTAINERS:
        raise InputError(
          where, expected=_READABLE, got=stream.format_info, fix="convert it"
        )
      if not _MIN_RATE <= stream.samplerate <= _MAX_RATE:
        raise InputError(
          where,
          expected=f"a rate of {_MIN_RATE:,} to {_MAX_RATE:,} Hz",
          got=f"{stream.samplerate:,}",
        )
      if not 1 <= stream.channels <= _MAX_CHANNELS:
        raise InputError(
          where,
          expected=f"1 to {_MAX_CHANNELS} channels",
          got=f"{stream.channels:,}",
        )
      yield stream
  except soundfile.LibsndfileError as error:
    raise InputError(
      where,
      expected=_READABLE,
      got=" ".join(error.error_string.split()).rstrip("."),
      fix="copy or export it again",
    ) from error
