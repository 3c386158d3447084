"""Where prepared data are made, where they end, and where they are read.

Enters: the folder that a user named, local or a URL (gs://, s3://). Leaves: a
local folder to work in; the finished folder under its name; local copies of what
stands in a bucket, since array_record reads local files only.

What is made local appears by one rename. A bucket has none: there the recordings
go first and `summary.json` last, and what has no index is no prepared data.
"""

import contextlib
import errno
import hashlib
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath
from tqdm import tqdm

from hra.data import tokenizer
from hra.errors import InputError
from hra.files import cache_folder, is_remote, storage

LAST = "summary.json"
_BLOCK = 1 << 23
"""Bytes that are copied at a time."""


def workplace(folder: epath.PathLike) -> pathlib.Path:
  """The local folder in which `folder` is made: beside it, or in the cache."""
  folder = epath.Path(folder)
  if is_remote(folder):
    return cache_folder() / "prepare" / _digest(os.fspath(folder).encode())
  return pathlib.Path(folder.parent / f".{folder.name}.partial")


def publish(made: pathlib.Path, folder: epath.Path) -> None:
  """Gives a folder that is complete its name; in a bucket, its files.

  Raises:
    StorageError: it can't be written; the same call goes on later.
  """
  with storage(folder, expected="a place for the prepared data"):
    if is_remote(folder):
      _upload(made, folder)
    elif not folder.exists() or _removed(folder):
      os.replace(made, folder)
    else:
      for path in _in_order(made):
        shutil.move(path, pathlib.Path(folder) / path.name)


def _removed(folder: epath.Path) -> bool:
  """Removes an empty folder, but for one that something is mounted on."""
  try:
    os.rmdir(folder)
  except OSError as error:
    if error.errno != errno.EBUSY:
      raise
    return False
  return True


def _in_order(folder: pathlib.Path) -> list[pathlib.Path]:
  """What a folder holds: recordings, then the indexes that speak of them."""
  return sorted(
    folder.iterdir(), key=lambda path: (path.name == LAST, path.is_file(), path)
  )


def is_vacant(folder: epath.Path) -> bool:
  """Whether a folder may be made there: nothing is, or a part of an upload.

  Raises:
    StorageError: the bucket can't be reached.
  """
  with storage(folder, expected="a place for the prepared data"):
    if not folder.exists():
      return True
    names = (
      {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
    )
  if not is_remote(folder):
    return not names
  ours = ("index-", *tokenizer.FILES, "left_out.jsonl", "recordings")
  return LAST not in names and all(name.startswith(ours) for name in names)


def local_files(
  folder: epath.Path, files: Mapping[str, int], *, version: bytes
) -> pathlib.Path:
  """A local folder that holds those files of `folder`; itself, if it is local.

  Args:
    folder: prepared data.
    files: bytes of each, by path relative to the folder.
    version: what differs when the folder is made again with other data.

  Raises:
    InputError: a file is not as long as it should be.
    StorageError: the bucket can't be read, or the cache not written.
  """
  if not is_remote(folder):
    return pathlib.Path(folder)
  name = _digest(os.fspath(folder).encode(), version)
  cache = cache_folder() / "data" / name
  missing = [
    path for path, size in files.items() if _size(cache / path) != size
  ]
  with _bar(sum(files[path] for path in missing), "fetching") as bar:
    for path in missing:
      _fetch(folder / path, cache / path, size=files[path], bar=bar)
  return cache


def _upload(made: pathlib.Path, folder: epath.Path) -> None:
  with storage(folder, expected="a bucket that can be written"):
    for stale in folder.glob("index-*.json"):
      stale.unlink()  # Of an attempt that was interrupted.
  files = [
    path
    for entry in _in_order(made)
    for path in ([entry] if entry.is_file() else sorted(entry.rglob("*")))
    if path.is_file()
  ]
  with _bar(sum(path.stat().st_size for path in files), "sending") as bar:
    for path in files:
      target = folder / path.relative_to(made).as_posix()
      with storage(target, expected="a file that can be written"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as reader, target.open("wb") as writer:
          _copy(reader, writer, bar=bar)


def _fetch(
  remote: epath.Path, local: pathlib.Path, *, size: int, bar: tqdm
) -> None:
  aside = local.with_name(f".{local.name}.{os.getpid()}")
  with storage(local, expected="a file that can be written"):
    local.parent.mkdir(parents=True, exist_ok=True)
  try:
    with (
      storage(remote, expected="a file of prepared data"),
      remote.open("rb") as reader,
      aside.open("wb") as writer,
    ):
      _copy(reader, writer, bar=bar)
    got = aside.stat().st_size
    if got != size:
      raise InputError(remote, expected=f"{size} bytes", got=str(got))
    aside.replace(local)
  finally:
    aside.unlink(missing_ok=True)


def _copy(reader: Any, writer: Any, *, bar: tqdm) -> None:
  while block := reader.read(_BLOCK):
    writer.write(block)
    bar.update(len(block))


@contextlib.contextmanager
def _bar(total: int, what: str) -> Iterator[tqdm]:
  with tqdm(
    total=total,
    desc=what,
    unit="B",
    unit_scale=True,
    disable=None if total else True,
  ) as bar:
    yield bar


def _size(path: pathlib.Path) -> int | None:
  return path.stat().st_size if path.exists() else None


def _digest(*parts: bytes) -> str:
  return hashlib.blake2b(b"\0".join(parts), digest_size=16).hexdigest()
