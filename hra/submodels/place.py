"""Where a store's files are: a local folder, or one in a bucket.

Names are relative to the folder, such as `versions/anna/2.safetensors`. A file that
isn't there is FileNotFoundError, a folder or bucket that can't be reached
StorageError. Whatever is written appears whole.
"""

import contextlib
import os
import pathlib
import random
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any, NamedTuple, Protocol

from etils import epath

from hra.errors import InputError, StorageError
from hra.files import is_remote, locked, storage
from hra.submodels.names import INDEX

_PATIENCE = 60.0
"""Seconds to wait for another process that publishes to the same folder."""
_MARKS = ("ETag", "etag", "generation", "md5Hash", "LastModified", "mtime")
_MISSING = (FileNotFoundError, NotADirectoryError)


class Listed(NamedTuple):
  """A file's size, and a mark that differs when it is written anew."""

  size: int
  mark: str


class Place(Protocol):
  """A folder of files."""

  path: epath.Path

  def is_there(self) -> bool:
    """Whether there is such a folder; in a bucket, whether it has anything in it."""
    ...

  def holds_anything(self) -> bool: ...

  def files(self, below: str = "") -> dict[str, Listed]:
    """The files of the folder, or of one below it, by their bare names."""
    ...

  def folders(self, below: str) -> list[str]:
    """The folders in one below it; none where it isn't there."""
    ...

  def look(self, name: str) -> Listed: ...

  def read(self, name: str) -> bytes: ...

  def part(self, name: str, start: int, stop: int) -> bytes:
    """Bytes of a file; fewer where it ends before."""
    ...

  def write(self, name: str, data: bytes) -> None: ...

  def send(self, made: pathlib.Path, name: str) -> None:
    """Moves a local file there."""
    ...

  def fetched(self, name: str, work: pathlib.Path) -> "Place":
    """Where a file can be read part by part; a copy, if this is far away."""
    ...

  def keep(self, name: str, copy: str) -> None:
    """Gives a file that will be replaced a second name."""
    ...

  def remove(self, name: str) -> None:
    """Also where it isn't there; and a folder below that is empty then."""
    ...

  def workplace(self) -> contextlib.AbstractContextManager[pathlib.Path]:
    """A local folder for files that `send` takes."""
    ...

  def alone(
    self, *, waits: bool = True
  ) -> contextlib.AbstractContextManager[Any]:
    """Keeps others from changing the folder; in buckets that is up to who does."""
    ...


def place_of(path: epath.PathLike) -> Place:
  """The folder of that name."""
  return RemotePlace(path) if is_remote(path) else LocalPlace(path)


@contextlib.contextmanager
def _reaching(
  path: object, *, expected: str = "a file that can be read"
) -> Iterator[None]:
  """`storage`, but a file that isn't there is nothing of the storage's."""
  try:
    with storage(str(path), expected=expected):
      yield
  except StorageError as error:
    if isinstance(error.__cause__, _MISSING):
      raise FileNotFoundError(str(path)) from error
    raise


def _regular(path: str, flags: int) -> int:
  """Opens a file, and no pipe, on which one would wait for ever."""
  if not stat.S_ISREG(os.stat(path).st_mode):
    got = "a folder" if os.path.isdir(path) else "a pipe, socket or device"
    raise InputError(path, expected="a regular file", got=got)
  return os.open(path, flags | os.O_NONBLOCK)


class LocalPlace:
  """A folder of this machine, or one that is mounted there."""

  def __init__(self, path: epath.PathLike):
    self.path = epath.Path(path).expanduser()
    self._folder = os.fspath(self.path)

  def is_there(self) -> bool:
    return os.path.isdir(self._folder)

  def holds_anything(self) -> bool:
    try:
      with os.scandir(self._folder) as entries:
        return next(entries, None) is not None
    except OSError:
      return False

  def files(self, below: str = "") -> dict[str, Listed]:
    folder = os.path.join(self._folder, below)
    found = {}
    with (
      _reaching(folder, expected="a folder that can be read"),
      os.scandir(folder) as entries,
    ):
      for each in entries:
        with contextlib.suppress(FileNotFoundError):  # replaced meanwhile
          if each.is_file():
            found[each.name] = _listed(each.stat())
    return found

  def folders(self, below: str) -> list[str]:
    folder = self._of(below)
    with storage(folder, expected="a folder that can be read"):
      if not os.path.isdir(folder):
        return []
      with os.scandir(folder) as entries:
        return sorted(each.name for each in entries if each.is_dir())

  def look(self, name: str) -> Listed:
    return _listed(self._stat(name))

  def read(self, name: str) -> bytes:
    with self.open(name) as file, _reaching(file.name):
      return file.read()

  def part(self, name: str, start: int, stop: int) -> bytes:
    with self.open(name) as file, _reaching(file.name):
      file.seek(start)
      return file.read(stop - start)

  def write(self, name: str, data: bytes) -> None:
    """Aside at first, at the top of the folder, where `_tidy` looks."""
    path = self._made(name)
    beside = self._of(f".{os.path.basename(path)}.{os.getpid()}")
    with storage(path, expected="a file that can be written"):
      try:
        with open(beside, "wb") as file:
          file.write(data)
        os.replace(beside, path)
      except BaseException:
        with contextlib.suppress(OSError):
          os.unlink(beside)
        raise

  def send(self, made: pathlib.Path, name: str) -> None:
    path = self._made(name)
    with storage(path, expected="a file that can be written"):
      os.replace(made, path)

  def open(self, name: str) -> IO[bytes]:
    """Raises InputError where something else has the name of a file."""
    path = self._of(name)
    with _reaching(path):
      return open(path, "rb", opener=_regular)

  def fetched(self, name: str, work: pathlib.Path) -> Place:
    return self

  def keep(self, name: str, copy: str) -> None:
    """By a second link: what replaces the first by renaming leaves it alone."""
    path, other = self._of(name), self._made(copy)
    try:
      os.link(path, other)
    except FileExistsError:
      self.remove(copy)
      self.keep(name, copy)
    except OSError:  # a file system that has no links
      self.write(copy, self.read(name))

  def remove(self, name: str) -> None:
    path = self._of(name)
    with storage(path, expected="a file that can be removed"):
      with contextlib.suppress(*_MISSING):
        os.unlink(path)
      if "/" in name:
        with contextlib.suppress(OSError):  # not empty, or not there
          os.rmdir(os.path.dirname(path))

  @contextlib.contextmanager
  def workplace(self) -> Iterator[pathlib.Path]:
    folder = pathlib.Path(self._folder, f".work.{os.getpid()}")
    with storage(folder, expected="a folder that can be made"):
      folder.mkdir(exist_ok=True)
    try:
      yield folder
    finally:
      shutil.rmtree(folder, ignore_errors=True)

  @contextlib.contextmanager
  def alone(self, *, waits: bool = True) -> Iterator[None]:
    until = time.monotonic() + (_PATIENCE if waits else 0.0)
    with contextlib.ExitStack() as stack:
      while True:
        try:
          stack.enter_context(locked(self._folder, fix="stop it"))
          break
        except StorageError:
          raise
        except InputError:
          if time.monotonic() >= until:
            raise
          time.sleep(random.uniform(0.002, 0.02))
      self._tidy()
      yield

  def _tidy(self) -> None:
    """Removes what killed processes left: all is written under the lock."""
    with storage(self._folder, expected="files that can be removed"):
      for name in os.listdir(self._folder):
        if name.startswith(".") and name.rpartition(".")[2].isdigit():
          path = self._of(name)
          if os.path.isdir(path):
            shutil.rmtree(path)
          else:
            os.unlink(path)

  def _stat(self, name: str) -> os.stat_result:
    path = self._of(name)
    with _reaching(path):
      return os.stat(path)

  def _of(self, name: str) -> str:
    return os.path.join(self._folder, name)

  def _made(self, name: str) -> str:
    """The path of a file, whose folder is there."""
    path = self._of(name)
    if "/" in name:
      folder = os.path.dirname(path)
      with storage(folder, expected="a folder that can be made"):
        os.makedirs(folder, exist_ok=True)
    return path


class RemotePlace:
  """A folder of a bucket, by fsspec, whose memory of listings is never asked."""

  def __init__(self, path: epath.PathLike):
    self.path = epath.Path(path)
    with storage(path, expected="an address that can be reached"):
      from fsspec.core import url_to_fs  # a leaf: comes with the extras

      self._system, self._folder = url_to_fs(os.fspath(path))

  def is_there(self) -> bool:
    """Asked for each unknown name: the index spares a listing."""
    try:
      self.look(INDEX)
      return True
    except FileNotFoundError:
      with contextlib.suppress(FileNotFoundError):
        return bool(self._infos(""))
    return False

  def holds_anything(self) -> bool:
    return self.is_there()

  def files(self, below: str = "") -> dict[str, Listed]:
    return {
      os.path.basename(info["name"]): _told(info)
      for info in self._infos(below)
      if info["type"] == "file"
    }

  def folders(self, below: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
      return sorted(
        os.path.basename(info["name"].rstrip("/"))
        for info in self._infos(below)
        if info["type"] == "directory"
      )
    return []

  def look(self, name: str) -> Listed:
    path = self._fresh(name)
    with _reaching(path):
      return _told(self._system.info(path))

  def read(self, name: str) -> bytes:
    path = self._fresh(name)
    with _reaching(path):
      return self._system.cat_file(path)

  def part(self, name: str, start: int, stop: int) -> bytes:
    path = self._fresh(name)
    with _reaching(path):
      try:
        return self._system.cat_file(path, start=start, end=stop)
      except OSError:  # some refuse to read behind the end
        if self.look(name).size > start:
          raise
        return b""

  def write(self, name: str, data: bytes) -> None:
    """An object appears when all of it has arrived."""
    path = self._fresh(name)
    with storage(path, expected="a file that can be written"):
      self._system.pipe_file(path, data)

  def send(self, made: pathlib.Path, name: str) -> None:
    path = self._fresh(name)
    with storage(path, expected="a file that can be written"):
      self._system.put_file(str(made), path)

  def fetched(self, name: str, work: pathlib.Path) -> Place:
    path, near = self._fresh(name), work / name
    with _reaching(path):
      near.parent.mkdir(parents=True, exist_ok=True)
      self._system.get_file(path, str(near))
    return LocalPlace(work)

  def keep(self, name: str, copy: str) -> None:
    path = self._fresh(name)
    with _reaching(path, expected="a file that can be copied"):
      self._system.cp_file(path, self._fresh(copy))

  def remove(self, name: str) -> None:
    path = self._fresh(name)
    with (
      storage(path, expected="a file that can be removed"),
      contextlib.suppress(FileNotFoundError),
    ):
      self._system.rm_file(path)
    self._system.invalidate_cache(path)

  @contextlib.contextmanager
  def workplace(self) -> Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory(prefix="hra-") as folder:
      yield pathlib.Path(folder)

  @contextlib.contextmanager
  def alone(self, *, waits: bool = True) -> Iterator[None]:
    del waits
    yield

  def _infos(self, below: str) -> list[dict[str, Any]]:
    path = self._fresh(below)
    with _reaching(path, expected="a folder that can be read"):
      return self._system.ls(path, detail=True)

  def _fresh(self, name: str) -> str:
    path = f"{self._folder}/{name}".rstrip("/")
    self._system.invalidate_cache(path)
    return path


def _listed(told: os.stat_result) -> Listed:
  """With what a copy in place changes that keeps the time of the original."""
  times = f"{told.st_mtime_ns} {told.st_ctime_ns}"
  return Listed(told.st_size, f"{times} {told.st_ino}")


def _told(info: dict[str, Any]) -> Listed:
  """What a bucket says of an object: its hash, or else when it was written."""
  marks = (info.get(name) for name in _MARKS)
  return Listed(info["size"], str(next((m for m in marks if m), "")))
