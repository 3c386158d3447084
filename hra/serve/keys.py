"""A file of keys -> who asks, and whose Submodels they may use.

Enters: a JSON file that `hra key` writes, mode 0600, and the token of a request.
Leaves: the `Key`, or None. A token is `hra_ID_SECRET`: the ID finds the entry and is
no secret, and of the whole only a SHA-256 is kept, which 256 random bits need no
salt or stretching for.

The file is read again when it changes: a key that is revoked asks for nothing more from
then on, its streams end within a second or so of samples, and what it has asked for
already is answered.
One that is lost or damaged while a server runs lets nobody in.
"""

import contextlib
import datetime
import hashlib
import hmac
import json
import logging
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from hra import files
from hra.errors import InputError

_FORMAT = 1
_MARK = "hra_"
_NOBODYS = bytes(32)
"""What is compared where no key has the ID: it takes as long."""
_FIELDS = {"id", "sha256", "speakers", "admin", "made"}
_LOG = logging.getLogger(__name__)

Stamp = tuple[int, ...]


class Key(NamedTuple):
  """Who asks."""

  name: str
  speakers: frozenset[str] | None
  """Whose Submodels it may use; None is everybody's."""
  admin: bool
  """Whether it may load and unload."""

  def may_use(self, task: str | None) -> bool:
    """Whether it may ask for a speaker; for the bare backbone (None) all may."""
    return task is None or self.speakers is None or task in self.speakers


class Entry(NamedTuple):
  """A key as it is kept."""

  key: Key
  id: str
  sha256: bytes
  made: str
  """The day, UTC."""


class Keys:
  """The keys of a file, as they are at the moment."""

  def __init__(self, path: str | os.PathLike[str]):
    self._path = os.fspath(path)
    self._stamp: Stamp | None = None
    self._by_id: dict[str, Entry] = {}

  @classmethod
  def open(cls, path: str | os.PathLike[str]) -> "Keys":
    """Reads a file of keys.

    Raises:
      InputError: it is no such file, or others than its owner may write to it.
      StorageError: it can't be read.
    """
    keys = cls(path)
    keys._stamp = _stamp(keys._path)
    keys._by_id = _by_id(entries(path))
    return keys

  def find(self, token: str) -> Key | None:
    """Whose token it is; how long that takes doesn't tell how nearly right it is."""
    self._refresh()
    ident = token.removeprefix(_MARK).partition("_")[0]
    entry = self._by_id.get(ident)
    right = hmac.compare_digest(
      _sha256(token), entry.sha256 if entry else _NOBODYS
    )
    return entry.key if entry is not None and right else None

  def _refresh(self) -> None:
    stamp = _stamp(self._path)
    if stamp == self._stamp:
      return
    try:
      self._by_id = _by_id(entries(self._path))
      _LOG.info("%s: read again", self._path)
    except InputError as error:
      self._by_id = {}
      _LOG.error("%s; until then nobody is let in", error)
    self._stamp = stamp


def entries(path: str | os.PathLike[str]) -> list[Entry]:
  """The keys of a file, in the order in which they were made.

  Raises:
    InputError: it is no such file, or others than its owner may write to it.
    StorageError: it can't be read.
  """
  told = files.read_json(
    path,
    keys=("format", "keys"),
    fix="bring a copy back, or make another file by hra key --action=add",
  )
  mode = os.stat(path).st_mode
  if mode & (stat.S_IWGRP | stat.S_IWOTH):
    raise InputError(
      path,
      expected="a file of keys that only its owner may write to",
      got=f"mode {stat.S_IMODE(mode):04o}",
      fix=f"chmod 600 {os.fspath(path)}",
    )
  if told["format"] != _FORMAT:
    raise InputError(
      path, expected=f"keys of format {_FORMAT}", got=repr(told["format"])
    )
  try:
    found = [_entry(name, kept) for name, kept in told["keys"].items()]
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise InputError(
      path,
      expected="keys as hra key wrote them",
      got=f"others ({type(error).__name__}: {error})",
      fix="bring a copy back, or make another file by hra key --action=add",
    ) from error
  return found


def add(
  path: str | os.PathLike[str],
  name: str,
  *,
  speakers: Iterable[str] | None,
  admin: bool = False,
) -> str:
  """Makes a key, and the file where there is none.

  Args:
    speakers: whose Submodels it may use; None is everybody's.
    admin: whether it may load and unload.

  Returns:
    The token, which can't be had again.

  Raises:
    InputError: there is a key of that name, or it is no name; no such file.
    StorageError: it can't be written.
  """
  if not (name and name.isprintable() and name == name.strip()):
    raise InputError("--name", expected="a name on one line", got=repr(name))
  bound = None if speakers is None else frozenset(speakers)
  if bound is not None and not all(bound):
    raise InputError("--speakers", expected="names of speakers", got="an empty")
  ident = secrets.token_hex(6)
  token = f"{_MARK}{ident}_{secrets.token_urlsafe(32)}"
  made = datetime.datetime.now(datetime.UTC).date().isoformat()
  with _changing(path, absent_ok=True) as kept:
    if any(entry.key.name == name for entry in kept):
      raise InputError(
        path,
        expected="a new name",
        got=f"a key {name!r} that there is already",
        fix="revoke it first, or choose another name",
      )
    key = Key(name, bound, admin)
    kept.append(Entry(key, ident, _sha256(token), made))
  return token


def revoke(path: str | os.PathLike[str], name: str) -> None:
  """Takes a key away; servers that run see it at their next request.

  Raises:
    InputError: there is no such key, or no such file.
    StorageError: it can't be written.
  """
  with _changing(path, absent_ok=False) as kept:
    left = [entry for entry in kept if entry.key.name != name]
    if len(left) == len(kept):
      raise InputError(
        path,
        expected="the name of a key",
        got=repr(name),
        fix=f"hra key --action=list --keys={os.fspath(path)}",
      )
    kept[:] = left


@contextlib.contextmanager
def _changing(
  path: str | os.PathLike[str], *, absent_ok: bool
) -> Iterator[list[Entry]]:
  """The entries, to be changed; what they are at the end is written."""
  folder = os.path.dirname(os.path.abspath(path))
  with files.locked(folder, fix="give the command again"):
    absent = absent_ok and not os.path.lexists(path)
    kept = [] if absent else entries(path)
    yield kept
    _write(path, kept)


def _write(path: str | os.PathLike[str], kept: Iterable[Entry]) -> None:
  told = {
    "format": _FORMAT,
    "keys": {
      entry.key.name: {
        "id": entry.id,
        "sha256": entry.sha256.hex(),
        "speakers": _listed(entry.key.speakers),
        "admin": entry.key.admin,
        "made": entry.made,
      }
      for entry in kept
    },
  }
  data = json.dumps(told, indent=2).encode() + b"\n"
  with files.aside(path) as beside:
    beside.unlink(missing_ok=True)
    # Not as wide as the umask allows, not even for a moment.
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
      _belong(descriptor, path)
      file.write(data)
      file.flush()
      os.fsync(descriptor)


def _belong(descriptor: int, path: str | os.PathLike[str]) -> None:
  """The file that is replaced may be root's work for a service's user to read."""
  with contextlib.suppress(FileNotFoundError):
    before = os.stat(path)
    if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
      with contextlib.suppress(PermissionError):
        os.fchown(descriptor, before.st_uid, before.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(before.st_mode) & 0o640)


def _listed(speakers: frozenset[str] | None) -> list[str] | None:
  return None if speakers is None else sorted(speakers)


def _entry(name: str, kept: Mapping[str, Any]) -> Entry:
  if kept.keys() != _FIELDS:
    raise ValueError(f"{name!r} has {', '.join(sorted(kept))}")
  speakers, admin, digest = kept["speakers"], kept["admin"], kept["sha256"]
  if not (speakers is None or isinstance(speakers, list)):
    raise TypeError(f"{name!r} has no list of speakers")
  if not isinstance(admin, bool):
    raise TypeError(f"{name!r} neither is nor isn't an admin's")
  if len(digest) != 2 * len(_NOBODYS):
    raise ValueError(f"{name!r} has no SHA-256")
  key = Key(name, None if speakers is None else frozenset(speakers), admin)
  return Entry(key, str(kept["id"]), bytes.fromhex(digest), str(kept["made"]))


def _by_id(kept: Iterable[Entry]) -> dict[str, Entry]:
  return {entry.id: entry for entry in kept}


def _sha256(token: str) -> bytes:
  return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def _stamp(path: str) -> Stamp | None:
  try:
    status = os.stat(path)
  except OSError:
    return None
  return (
    status.st_ino,
    status.st_size,
    status.st_mtime_ns,
    status.st_ctime_ns,
    status.st_mode,
    status.st_uid,
  )
