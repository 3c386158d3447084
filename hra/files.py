"""Files that are read whole or not at all, local or on gs:// and s3://."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from absl import logging
from etils import epath

from hra.errors import InputError, StorageError

_APPEARS_SECONDS = 10
_LOCK = ".lock"
_UNLOCKABLE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_FULL = "No space left on device"
_FIXES = {
  errno.ENOSPC: "free some space and give the same command again: what was "
  "saved is whole",
  errno.EDQUOT: "free some of your quota and give the same command again: what "
  "was saved is whole",
  errno.EACCES: "ask for the permission, or choose another place",
  errno.EPERM: "ask for the permission, or choose another place",
  errno.EROFS: "choose a place that can be written to",
}


def write_aside(path: epath.PathLike, data: bytes) -> None:
  """Writes beside `path`, then renames: no reader ever sees a part.

  Raises:
    StorageError: it can't be written; nothing is left behind.
  """
  with aside(path) as beside:
    beside.write_bytes(data)


@contextlib.contextmanager
def aside(path: epath.PathLike) -> Iterator[epath.Path]:
  """A file beside `path` to write to, which then takes its place.

  Raises:
    StorageError: it can't be written; nothing is left behind.
  """
  path = epath.Path(path)
  beside = path.parent / f".{path.name}.{os.getpid()}"
  with storage(path, expected="a file that can be written"):
    try:
      yield beside
      beside.replace(path)
    except BaseException:
      with contextlib.suppress(OSError):
        beside.unlink(missing_ok=True)
      raise


def remove_folder(folder: epath.PathLike) -> None:
  """Removes a folder, and all in it, if it is there.

  Raises:
    StorageError: it can't be removed.
  """
  folder = epath.Path(folder)
  with storage(folder, expected="a folder that can be removed"):
    if folder.exists():
      folder.rmtree()


def write_json(path: epath.PathLike, values: Mapping[str, Any]) -> None:
  """`write_aside` of JSON for people to read, by sorted keys."""
  text = json.dumps(values, indent=2, sort_keys=True) + "\n"
  write_aside(path, text.encode())


_DAMAGED = "it was changed or cut off: bring a copy back, or begin again in another folder"


def read_json(
  path: epath.PathLike, *, keys: Iterable[str] = (), fix: str = _DAMAGED
) -> Any:
  """The object that `write_json` wrote; it has `keys` at least.

  Args:
    fix: what to do where it hasn't.

  Raises:
    InputError: it can't be read, or is no such object any more.
  """
  path = epath.Path(path)
  with storage(path, expected="a file that can be read"):
    data = path.read_bytes()
  lost = set(keys)
  try:
    told = json.loads(data)
    lost -= told.keys()
    got = f"one without {', '.join(sorted(lost))}"
  except ValueError as error:  # no JSON, or no text at all
    got, lost = f"no JSON ({error})", {""}
  except AttributeError:
    got, lost = f"a {type(told).__name__}", {""}
  if lost:
    raise InputError(
      path,
      expected="a JSON object as it was written",
      got=got,
      fix=fix,
    )
  return told


def absolute(path: epath.PathLike) -> epath.Path:
  """The path from the root (~ being one's home), or the URL as it is."""
  path = epath.Path(path).expanduser()
  return path if path.is_absolute() else path.absolute()


def cache_folder() -> pathlib.Path:
  """Where the program keeps what it can make again: compiled programs, copies.

  $HRA_CACHE, or `hra` under $XDG_CACHE_HOME or ~/.cache.

  Raises:
    InputError: that is no local folder.
  """
  base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  folder = os.environ.get("HRA_CACHE") or f"{base}/hra"
  if is_remote(folder):
    raise InputError(
      "$HRA_CACHE",
      expected="a local folder",
      got=repr(folder),
      fix="compiled programs may be in a bucket: set JAX_COMPILATION_CACHE_DIR",
    )
  return pathlib.Path(folder).expanduser()


def is_remote(path: epath.PathLike) -> bool:
  """Whether a path is a URL (gs://, s3://) rather than a local file."""
  return "://" in os.fspath(path)


def await_shared(path: epath.Path) -> None:
  """Returns when what another process has made is seen here: network file systems
  take their time.

  Raises:
    InputError: it doesn't come.
  """
  until = time.monotonic() + _APPEARS_SECONDS
  while not path.exists():
    if time.monotonic() > until:
      raise InputError(
        path,
        expected="what the first process has there",
        got="nothing here",
        fix="give all processes one --workdir, in a file system or bucket that "
        "they share",
      )
    time.sleep(0.2)


@contextlib.contextmanager
def storage(path: epath.PathLike, *, expected: str) -> Iterator[None]:
  """Makes what a file system, or a library on top of one, raises one line.

  Raises:
    StorageError: about `path`, or the file that the system names: it is missing,
      forbidden, on a full disk, or in a bucket that can't be reached.
  """
  try:
    yield
  except InputError:
    raise
  except FileNotFoundError as error:
    got = " ".join(str(error).split()) if is_remote(path) else "no such file"
    raise StorageError(path, expected=expected, got=got) from error
  except OSError as error:
    raise StorageError(
      path,
      expected=expected,
      got=error.strerror or str(error),
      fix=_FIXES.get(error.errno or 0, ""),
    ) from error
  except (
    Exception
  ) as error:  # the cloud's libraries have exceptions of their own
    if _FULL in str(error):
      raise StorageError(
        path, expected=expected, got=_FULL, fix=_FIXES[errno.ENOSPC]
      ) from error
    if not is_remote(path):
      raise
    raise StorageError(
      path,
      expected=expected,
      got=f"{type(error).__name__}: {' '.join(str(error).split())}",
      fix="pip install 'hra[s3]' or 'hra[gs]'"
      if isinstance(error, ImportError)
      else "check the address, your credentials and the network",
    ) from error


@contextlib.contextmanager
def locked(
  folder: epath.PathLike, *, fix: str, name: str = _LOCK, shared: bool = False
) -> Iterator[IO[str]]:
  """Keeps other processes out of an existing local folder.

  The system gives the folder free when this process ends, however it ends, and
  whoever was handed the open file.

  Args:
    fix: what else can be done than to wait for the other process.
    name: of the file; those who lock others don't mind each other.
    shared: whether others may share it, and nobody have it alone.

  Raises:
    InputError: another process is at work in it.
    StorageError: it can't be written to.
  """
  folder = pathlib.Path(folder)
  path = folder / name
  with contextlib.ExitStack() as stack:
    with storage(folder, expected="a folder that can be written to"):
      file = stack.enter_context(path.open("a+"))
      alone = _lock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
      # Who had the lock may have deleted the folder, and the file with it.
      alone = alone and os.path.samestat(os.fstat(file.fileno()), path.stat())
    if not alone:
      file.seek(0)
      raise InputError(
        folder,
        expected="a folder in which nothing else is at work",
        got=f"process {file.read() or 'unknown'}, or one that it started, at "
        "work in it",
        fix=f"wait for it, or {fix}",
      )
    with storage(folder, expected="a folder that can be written to"):
      file.truncate(0)
      file.write(f"{os.getpid()} on {os.uname().nodename}")
      file.flush()
    yield file


def _lock(file: IO[str], how: int) -> bool:
  try:
    fcntl.flock(file, how | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError as error:
    if error.errno not in _UNLOCKABLE:
      raise
    logging.warning("%s: no locks here; start no second process", file.name)
  return True
