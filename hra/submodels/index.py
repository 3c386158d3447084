"""What a store's files say, remembered in `index.json` by their sizes and times.

The files are the truth: what the index says of a file holds as long as that is the
same one, and whoever lists the store reads the headers of all others. An index that
is missing, old or spoilt costs time and nothing else.
"""

import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hra import config_tree
from hra.config import AdapterConfig
from hra.errors import InputError, StorageError
from hra.submodels.file import VERDICTS, Entry, Kind, is_hash
from hra.submodels.names import INDEX, file_name
from hra.submodels.place import Listed, Place

_FORMAT = 2


class _Known(NamedTuple):
  listed: Listed
  entry: Entry


class Index:
  """Of one folder; safe to use from several threads."""

  def __init__(self, place: Place):
    self._place = place
    self._known: dict[str, _Known] = {}
    self._changed = False
    self._opened = False
    self._seen: Listed | None = None
    self._lock = threading.Lock()

  def get(self, name: str, listed: Listed) -> Entry | None:
    """What is known of a file, if it is still that one."""
    self._open()
    known = self._known.get(name)
    return known.entry if known and known.listed == listed else None

  def put(self, name: str, listed: Listed, entry: Entry) -> None:
    self._open()
    with self._lock:
      self._known[name] = _Known(listed, entry)
      self._changed = True

  def keep(self, names: Mapping[str, Any]) -> None:
    """Forgets all other files."""
    self._open()
    with self._lock:
      for name in self._known.keys() - names.keys():
        del self._known[name]
        self._changed = True

  def refresh(self) -> None:
    """Learns what other processes wrote."""
    self._opened = self._opened and self._listed() == self._seen
    self._open()

  def save(self, names: Mapping[str, Any]) -> None:
    """Writes what is known of these files, where anything is new.

    The folder is the caller's alone, and the names were listed since it is.

    Raises:
      StorageError: it can't be written.
    """
    self.keep(names)
    with self._lock:
      if not self._changed:
        return
      self._place.write(INDEX, _encoded(self._known))
      self._changed, self._seen = False, self._listed()

  def begin(self) -> None:
    """Writes an empty one, which makes a store of a bucket's folder."""
    self._place.write(INDEX, _encoded({}))

  def try_to_save(self, names: Callable[[], Mapping[str, Any]]) -> None:
    """`save`, but not where others are at work or nobody may write."""
    if self._changed:
      with (
        contextlib.suppress(InputError),
        self._place.alone(waits=False),
      ):
        self.save(names())

  def _listed(self) -> Listed | None:
    try:
      return self._place.look(INDEX)
    except (FileNotFoundError, StorageError):
      return None

  def _open(self) -> None:
    with self._lock:
      if self._opened:
        return
      self._opened, self._seen = True, self._listed()
      try:
        self._known |= _decoded(self._place.read(INDEX))
      except (FileNotFoundError, StorageError):
        return
      except (ValueError, LookupError, TypeError, AttributeError):
        self._changed = True  # no index of ours: it is made anew
      except RecursionError:
        self._changed = True


def _encoded(known: Mapping[str, _Known]) -> bytes:
  """Kinds once, and a line for each file."""
  kinds: list[dict[str, Any]] = []
  numbers: dict[Kind, int] = {}
  lines = []
  for name in sorted(known):
    listed, entry = known[name]
    kind = entry.kind
    if kind not in numbers:
      numbers[kind] = len(kinds)
      adapter = config_tree.to_dict(kind.adapter)
      kinds.append({**kind._asdict(), "adapter": adapter})
    told = [
      *listed,
      numbers[kind],
      entry.task,
      entry.version,
      entry.fingerprint,
      entry.verdict,
    ]
    lines.append(f"{json.dumps(name)}: {json.dumps(told)}")
  files = ",\n".join(lines)
  return (
    f'{{"format": {_FORMAT},\n"kinds": {json.dumps(kinds)},\n'
    f'"files": {{\n{files}\n}}}}\n'
  ).encode()


def _decoded(data: bytes) -> dict[str, _Known]:
  """Raises whatever it likes where it is no index."""
  told = json.loads(data)
  if told["format"] != _FORMAT:
    raise ValueError(told["format"])
  kinds = [
    Kind(
      **{
        **each,
        "adapter": config_tree.from_dict(AdapterConfig, each["adapter"]),
      }
    )
    for each in told["kinds"]
  ]
  files = told["files"].items()
  return {name: _known(name, each, kinds) for name, each in files}


def _known(name: str, told: list[Any], kinds: list[Kind]) -> _Known:
  size, mark, kind, task, version, fingerprint, verdict = told
  ours = (
    is_hash(fingerprint)
    and type(size) is type(version) is int
    and verdict in VERDICTS
    and file_name(task) == name
  )
  if not ours:
    raise ValueError(name)
  entry = Entry(task, version, fingerprint, kinds[kind], verdict, size)
  return _Known(Listed(size, mark), entry)
