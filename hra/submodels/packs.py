"""The packs of a store: looked up, and made anew of what is current.

Enters: the files in `packs/`, and loose files. Leaves: rows by task; after `build`,
one pack for each kind of Submodels, with what was loose before.
"""

import collections
import contextlib
import functools
import pathlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from absl import logging

from hra.errors import InputError, StorageError
from hra.submodels import pack
from hra.submodels.file import Content, Entry, Told
from hra.submodels.names import SUFFIX, file_name
from hra.submodels.pack import Found, Pack, Row, Shapes
from hra.submodels.place import Listed, Place
from hra.submodels.shelf import Loose, OtherTask, Source

FOLDER = "packs"
_TRIES = 5
_QUIET = 60.0
"""Seconds between two warnings of what is left aside."""
Used = TypeVar("Used")


class PackedRow(NamedTuple):
  """One of a pack's."""

  packs: "Packs"
  pack: Pack
  listed: Listed
  found: Found

  def told(self) -> tuple[Told, int]:
    return self.found.told, self.found.size

  def content(self) -> Content:
    with self.packs.still(self.pack.name, self.listed):
      return self.pack.content(self.found)

  def stamp(self) -> object:
    """Others' rows don't change it."""
    told = self.found.told
    return "packed", told.version, told.fingerprint


class Packs:
  """Of one folder; safe to use from several threads.

  What can't be read is left aside by who doesn't need it.
  """

  def __init__(self, place: Place):
    self._place = place
    self._open: dict[str, tuple[Listed, Pack]] = {}
    self._lock = threading.Lock()

  def rows(self, task: str) -> list[Source]:
    """Those of a task, the latest first."""
    found, refused = self._rows(task)
    for error in refused:
      logging.log_every_n_seconds(
        logging.WARNING, "left aside: %s", _QUIET, error
      )
    return list(found)

  def check(self, task: str) -> None:
    """Whether all packs can be searched for a task.

    Raises:
      InputError: one can't, and may have it.
    """
    _, refused = self._rows(task)
    if refused:
      raise refused[0]

  def entries(self) -> tuple[dict[str, Entry], list[InputError]]:
    """The latest of each task, and which packs can't be read."""
    packs, refused = self._each(lambda each, _: each.entries)
    found: dict[str, Entry] = {}
    for entries in packs:
      for entry in entries:
        before = found.get(entry.task)
        if before is None or before.version < entry.version:
          found[entry.task] = entry
    return found, refused

  def shared(self) -> set[str]:
    """Fingerprints of the shared parameters that any row was made for.

    Raises:
      InputError: a pack can't be read.
    """
    found, refused = self._each(lambda each, _: each.common["shared"])
    if refused:
      raise refused[0]
    return set(found)

  def hidden(self, names: Collection[str]) -> set[str]:
    """Tasks with a row that is not current, beside loose files of these names."""
    packs, _ = self._each(lambda each, _: each.entries)
    counts = collections.Counter(
      entry.task for entries in packs for entry in entries
    )
    return {
      task
      for task, count in counts.items()
      if count > 1 or file_name(task) in names
    }

  def drop(self, task: str) -> None:
    """Makes packs anew without a task; the others' rows stay as they are."""
    rows, _ = self._rows(task)
    for name in {row.pack.name for row in rows}:
      far = next(row.pack for row in rows if row.pack.name == name)
      gone = {row.found.place for row in rows if row.pack is far}
      left = [place for place in range(len(far)) if place not in gone]
      with self._place.workplace() as work:
        near = self._near(far, work)
        self._replace(
          name, [_row_of(near, place) for place in left], far.shapes, work
        )

  def build(self, names: Collection[str]) -> tuple[int, list[InputError]]:
    """Packs loose files, and anew what is current in packs.

    Files that are packed are removed at last, but for those that somebody wrote
    anew meanwhile. Packs that can't be read stay, and so does what belongs there.

    Args:
      names: of loose files, in the store's folder.

    Returns:
      How many were packed, and what is damaged and stays where it is.
    """
    while True:
      try:
        return self._build(names)
      except _ChangedError as error:
        names = set(names) - {error.name}

  def _build(self, names: Collection[str]) -> tuple[int, list[InputError]]:
    loose, refused = self._read_loose(names)
    with self._place.workplace() as work:
      packs, spoilt = self._each(lambda each, _: self._whole(each, work))
      members = [each.member for each in loose]
      members += _current_rows(packs, hidden={each.name for each in loose})
      made: dict[str, list[_Member]] = {}
      for member in members:
        made.setdefault(_name_of(member.key), []).append(member)
      stay = self._listed().keys() - {each.name for each in packs}
      for name in stay & made.keys():
        stay |= {each.home for each in made.pop(name)}
      for name, group in made.items():
        rows = [each.row for each in group]
        if any(each.home != name for each in group) or self._lost(name, rows):
          self._replace(name, rows, group[0].shapes, work)
      for each in packs:
        if each.name not in made.keys() | stay:
          self._place.remove(each.name)
    packed = [file for file in loose if _name_of(file.member.key) in made]
    for file in packed:
      with contextlib.suppress(FileNotFoundError):
        if self._place.look(file.name) == file.stamp:
          self._place.remove(file.name)
    return len(packed), refused + spoilt

  def _read_loose(
    self, names: Collection[str]
  ) -> tuple[list["_LooseFile"], list[InputError]]:
    """Files that are whole, each read once to see it."""
    found, refused = [], []
    for name in sorted(names):
      source = Loose(self._place, name, "")
      try:
        stamp = source.stamp()
        content = source.content()
        check_name(content.told.task, name, self._place)
      except FileNotFoundError:  # deleted meanwhile
        continue
      except StorageError:
        raise
      except InputError as error:
        refused.append(error)
        continue
      shapes = {
        path: (leaf.dtype, leaf.shape) for path, leaf in content.tensors.items()
      }
      told = content.told
      row = Row(
        told.fields, functools.partial(_tensors, source, told.fingerprint)
      )
      key = pack.key_of(told.fields, shapes)
      found.append(_LooseFile(name, stamp, _Member(key, row, shapes, "")))
    return found, refused

  def _lost(self, name: str, rows: list[Row]) -> bool:
    """Whether a pack has rows that are not to stay."""
    return len(self._opened(name, self._place.look(name))) != len(rows)

  def _replace(
    self, name: str, rows: list[Row], shapes: Shapes, work: pathlib.Path
  ) -> None:
    if not rows:
      self._place.remove(name)
      return
    made = work / "made"
    pack.write(made, rows, shapes)
    self._place.send(made, name)

  def _whole(self, far: Pack, work: pathlib.Path) -> Pack:
    """`_near`, if it can be read."""
    near = self._near(far, work)
    _ = near.entries
    return near

  def _near(self, far: Pack, work: pathlib.Path) -> Pack:
    """A pack whose rows can be read one by one without a question to a bucket."""
    place = self._place.fetched(far.name, work)
    return far if place is self._place else Pack(place, far.name)

  def _rows(self, task: str) -> tuple[list[PackedRow], list[InputError]]:
    """Of a task, the latest first, and which packs can't be searched for it."""
    packs, refused = self._each(
      lambda each, listed: [
        PackedRow(self, each, listed, found) for found in each.find(task)
      ]
    )
    rows = [row for rows in packs for row in rows]
    rows.sort(key=lambda row: row.found.told.version, reverse=True)
    return rows, refused

  def _each(
    self, use: Callable[[Pack, Listed], Used]
  ) -> tuple[list[Used], list[InputError]]:
    """What `use` makes of the packs, and what is wrong with others.

    Raises:
      StorageError: they can't be reached, or are made anew all the time.
    """
    for _ in range(_TRIES):
      with contextlib.suppress(FileNotFoundError):  # made anew meanwhile
        found, refused = [], []
        for name, listed in self._listed().items():
          try:
            with self.still(name, listed):
              found.append(use(self._opened(name, listed), listed))
          except StorageError:
            raise
          except InputError as error:
            refused.append(error)
        return found, refused
    raise StorageError(
      f"{self._place.path}/{FOLDER}",
      expected="packs that stay while they are read",
      got="others each time",
      fix="wait until nobody makes them anew",
    )

  def _listed(self) -> dict[str, Listed]:
    """The packs that there are; those that went are closed."""
    try:
      files = self._place.files(FOLDER)
    except FileNotFoundError:
      files = {}
    listed = {
      f"{FOLDER}/{name}": each
      for name, each in sorted(files.items())
      if name.endswith(SUFFIX)
    }
    with self._lock:
      for name, (before, _) in list(self._open.items()):
        if listed.get(name) != before:
          del self._open[name]
    return listed

  def _opened(self, name: str, listed: Listed) -> Pack:
    with self._lock:
      if name in self._open:
        return self._open[name][1]
    found = Pack(self._place, name)
    with self._lock:
      return self._open.setdefault(name, (listed, found))[1]

  @contextlib.contextmanager
  def still(self, name: str, listed: Listed) -> Iterator[None]:
    """Takes a pack that was made anew meanwhile for one that is gone."""
    try:
      yield
    except StorageError:
      raise
    except InputError:
      if self._place.look(name) != listed:
        raise FileNotFoundError(name) from None
      raise


class _ChangedError(Exception):
  """A loose file is not what it was when it was looked at."""

  def __init__(self, name: str):
    super().__init__(name)
    self.name = name


class _Member(NamedTuple):
  """A row that is to be in a pack."""

  key: str
  row: Row
  shapes: Shapes
  home: str
  """The pack that it is in; empty where it is loose."""


class _LooseFile(NamedTuple):
  name: str
  stamp: object
  member: _Member


def _tensors(source: Loose, fingerprint: str) -> Mapping[str, np.ndarray]:
  try:
    found = source.content()
  except StorageError:
    raise
  except (InputError, FileNotFoundError):
    raise _ChangedError(source.name) from None
  if found.told.fingerprint != fingerprint:
    raise _ChangedError(source.name)
  return found.tensors


def _current_rows(packs: list[Pack], *, hidden: set[str]) -> list[_Member]:
  """Of each task that has no loose file the latest row."""
  latest: dict[str, tuple[int, Pack, int]] = {}
  for each in packs:
    for place, entry in enumerate(each.entries):
      before = latest.get(entry.task)
      if file_name(entry.task) not in hidden and (
        before is None or before[0] < entry.version
      ):
        latest[entry.task] = (entry.version, each, place)
  return [
    _Member(each.key, _row_of(each, place), each.shapes, each.name)
    for _, each, place in latest.values()
  ]


def _row_of(near: Pack, place: int) -> Row:
  """A row as it stands, damaged or not."""
  return Row(near.fields(place), functools.partial(near.tensors, place))


def _name_of(key: str) -> str:
  return f"{FOLDER}/{key}{SUFFIX}"


def check_name(task: str, name: str, place: Place) -> None:
  """Whether a file stands under the name of its task.

  Raises:
    OtherTask: it doesn't.
  """
  if file_name(task) != name:
    raise OtherTask(
      f"{place.path}/{name}",
      expected=f"the name {file_name(task)}",
      got=name,
      fix="a file keeps the name that it was written under",
    )
