"""Archives of LibriSpeech -> a local folder with what they hold.

Enters: a .tar, .tar.gz or .tgz file, local or on a bucket; it is streamed once.
Leaves: a folder with its transcripts and recordings, and nothing else of it.

The folder gets its name when it is complete, with a marker that knows the
archive's name, size and time: the next attempt takes it as it is, and one that
was interrupted unpacks again.
"""

import contextlib
import gzip
import json
import os
import pathlib
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, Self, cast

from etils import epath
from tqdm import tqdm

from hra import keys
from hra.data.corpora import fields, librispeech
from hra.data.records import Problems
from hra.errors import InputError
from hra.files import storage, write_json

SUFFIXES = (".tar", ".tar.gz", ".tgz")

_MARKER = "unpacked.json"
_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 20


class _Member(tarfile.TarInfo):
  """A header that is whole: `tarfile` takes a damaged one for the end."""

  @classmethod
  def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
    try:
      return super().frombuf(buf, encoding, errors)
    except tarfile.HeaderError as error:
      if len(buf) == tarfile.BLOCKSIZE and not any(buf):
        raise  # the mark of the end
      raise tarfile.ReadError(f"a damaged header ({error})") from error


def is_archive(path: epath.PathLike) -> bool:
  """Whether a file's name is that of an archive."""
  return os.fspath(path).lower().endswith(SUFFIXES)


def stem(path: epath.PathLike) -> str:
  """The name of an archive without its suffix."""
  name = epath.Path(path).name
  suffix = next(s for s in SUFFIXES if name.lower().endswith(s))
  return name[: -len(suffix)]


def unpack(
  archive: epath.Path, *, into: pathlib.Path, problems: Problems
) -> pathlib.Path:
  """Unpacks the transcripts and recordings of an archive, once.

  Members that lead out of the folder, links and devices are left out: problems.

  Args:
    archive: the file; on a bucket, its bytes are streamed.
    into: the local folder that gets a folder of its own for each archive.
    problems: where members that can't be used are listed, each time.

  Returns:
    The archive's folder.

  Raises:
    InputError: the archive is truncated or damaged; nothing of it is left.
    StorageError: it can't be read, or the disk refuses.
  """
  with storage(archive, expected="an archive"):
    stat = archive.stat()
  source = {
    "name": archive.name,
    "bytes": stat.length,
    "mtime": int(stat.mtime),
  }
  name = f"{stem(archive)}-{keys.stable_hash(os.fspath(archive)):016x}"
  folder, aside = into / name, into / f".{name}"
  with storage(folder, expected="room for what the archive holds"):
    errors = _unpacked(folder, source)
    if errors is None:
      for old in (folder, aside):
        shutil.rmtree(old, ignore_errors=True)
      aside.mkdir(parents=True)
      try:
        errors = _extract(archive, aside, size=stat.length)
        marker = {"archive": source, "problems": [_saved(e) for e in errors]}
        write_json(aside / _MARKER, marker)
        aside.rename(folder)
      except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
  for error in errors:
    problems.add(error)
  return folder


def _unpacked(
  folder: pathlib.Path, source: dict[str, Any]
) -> list[InputError] | None:
  """The problems of an archive that was unpacked before; None: it wasn't."""
  marker = folder / _MARKER
  if not marker.exists():
    return None
  known = json.loads(marker.read_text())
  if known["archive"] != source:
    return None
  return [InputError(**error) for error in known["problems"]]


def _saved(error: InputError) -> dict[str, str]:
  return {
    "where": error.where,
    "expected": error.expected,
    "got": error.got,
    "fix": error.fix,
  }


def _extract(
  archive: epath.Path, folder: pathlib.Path, *, size: int
) -> list[InputError]:
  problems = []
  try:
    with (
      _decompressed(archive, size=size) as stream,
      tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar,
    ):
      while (member := tar.next()) is not None:
        # LibriSpeech has 300,000, of a kilobyte each.
        cast(Any, tar).members.clear()
        try:
          _place(tar, member, folder, archive=archive)
        except InputError as error:
          problems.append(error)
      while stream.read(_BLOCK):
        pass  # what follows the mark of the end: gzip's checksum
  except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
    raise InputError(
      archive,
      expected="a whole .tar or .tar.gz archive",
      got=_fault(archive, error, size=size),
      fix="fetch it again",
    ) from error
  return problems


def _fault(archive: epath.Path, error: Exception, *, size: int) -> str:
  if not size:
    return "an empty file"
  with archive.open("rb") as file:
    packed = file.read(len(_GZIP)) == _GZIP
  if archive.name.lower().endswith("gz") and not packed:
    return f"neither gzip nor a whole .tar ({error})"
  return f"a truncated or damaged one ({error})"


@contextlib.contextmanager
def _decompressed(archive: epath.Path, *, size: int) -> Iterator[IO[bytes]]:
  """The tar stream of an archive, whatever its suffix says of compression."""
  with contextlib.ExitStack() as stack:
    file = stack.enter_context(archive.open("rb"))
    packed = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    counted = stack.enter_context(
      tqdm.wrapattr(
        file,
        "read",
        total=size,
        desc=f"unpacking {archive.name}",
        disable=None,
      )
    )
    if packed:
      yield cast(IO[bytes], stack.enter_context(gzip.open(counted)))
    else:
      yield counted


def _place(
  tar: tarfile.TarFile,
  member: tarfile.TarInfo,
  folder: pathlib.Path,
  *,
  archive: epath.Path,
) -> None:
  """Writes a member to its place, if it is a transcript or a recording.

  Raises:
    InputError: it leads out of the folder, or is no ordinary file.
  """
  if member.isdir():
    return
  path = pathlib.PurePosixPath(member.name)
  where = f"{archive}/{member.name}"
  if not member.isfile():
    raise InputError(
      ascii(where)[1:-1],
      expected="a file or a folder",
      got="a link or a device",
    )
  if (
    path.is_absolute()
    or ".." in path.parts
    or not fields.is_nameable(member.name)
  ):
    raise InputError(
      ascii(where)[1:-1],
      expected="a path inside of the archive",
      got=fields.shown(member.name),
    )
  if not librispeech.is_part(path.name):
    return
  try:
    tar.extract(member, folder, set_attrs=False, filter="data")
  except tarfile.FilterError as error:
    raise InputError(
      where, expected="a path inside of the archive", got=str(error)
    ) from error
