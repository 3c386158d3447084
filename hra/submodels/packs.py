"""The packs of a store: looked up, and made anew of what is current.

Enters: the files in `packs/`, and loose files. Leaves: rows by task; after `build`,
one pack for each kind of Submodels, with what was loose before.
"""

import contextlib
import functools
import pathlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from hra.errors import InputError, StorageError
from hra.submodels import pack
from hra.submodels.file import Content, Entry, Told
from hra.submodels.names import SUFFIX, file_name
from hra.submodels.pack import Pack, Row, Shapes
from hra.submodels.place import Listed, Place
from hra.submodels.shelf import Loose, OtherTask, Source

FOLDER = "packs"


class PackedRow(NamedTuple):
  """One of a pack's."""

  pack: Pack
  place: int
  packs: "Packs"

  def told(self) -> tuple[Told, int]:
    with self.packs.still(self.pack):
      return self.pack.told(self.place)

  def content(self) -> Content:
    with self.packs.still(self.pack):
      return self.pack.content(self.place)

  def stamp(self) -> object:
    """Others' rows don't change it."""
    told, _ = self.told()
    return "packed", told.version, told.fingerprint


class Packs:
  """Of one folder; safe to use from several threads."""

  def __init__(self, place: Place):
    self._place = place
    self._open: dict[str, tuple[Listed, Pack]] = {}
    self._lock = threading.Lock()

  def rows(self, task: str) -> list[Source]:
    """Those of a task, the latest first.

    Raises:
      InputError: a pack is damaged, and may have it.
    """
    found = []
    for each in self._all():
      for place in each.places(task):
        told, _ = each.told(place)
        found.append((told.version, PackedRow(each, place, self)))
    found.sort(key=lambda row: row[0], reverse=True)
    return [row for _, row in found]

  def entries(self) -> tuple[dict[str, Entry], list[InputError]]:
    """The latest of each task, and which packs can't be read."""
    found: dict[str, Entry] = {}
    refused = []
    for name in self._listed():
      try:
        entries = self._opened(name).entries
      except StorageError:
        raise
      except InputError as error:
        refused.append(error)
        continue
      for entry in entries:
        before = found.get(entry.task)
        if before is None or before.version < entry.version:
          found[entry.task] = entry
    return found, refused

  def shared(self) -> set[str]:
    """Fingerprints of the shared parameters that any row was made for."""
    return {each.common["shared"] for each in self._all()}

  def drop(self, task: str) -> None:
    """Makes packs anew without a task; the others' rows stay as they are."""
    for each in self._all():
      gone = set(each.places(task))
      if gone:
        left = [place for place in range(len(each)) if place not in gone]
        with self._place.workplace() as work:
          near = self._near(each, work)
          rows = [_row_of(near, place) for place in left]
          self._replace(each.name, rows, each.shapes, work)

  def build(self, names: Iterable[str]) -> tuple[int, list[InputError]]:
    """Packs loose files, and anew what is current in packs.

    Files that are packed are removed at last, but for those that somebody wrote
    anew meanwhile.

    Args:
      names: of loose files, in the store's folder.

    Returns:
      How many were packed, and what is damaged and stays where it is.
    """
    loose, refused = self._read_loose(names)
    with self._place.workplace() as work:
      packs = self._all()
      members = [each.member for each in loose]
      hidden = {each.name for each in loose}
      members += self._current_rows(packs, hidden=hidden, work=work)
      groups: dict[str, list[_Member]] = {}
      for member in members:
        groups.setdefault(member.key, []).append(member)
      made = {_name_of(key): group for key, group in groups.items()}
      for name, group in made.items():
        rows = [each.row for each in group]
        if any(each.home != name for each in group) or self._lost(name, rows):
          self._replace(name, rows, group[0].shapes, work)
      for each in packs:
        if each.name not in made:
          self._place.remove(each.name)
    for file in loose:
      if self._place.stamp(file.name) == file.stamp:
        self._place.remove(file.name)
    return len(loose), refused

  def _read_loose(
    self, names: Iterable[str]
  ) -> tuple[list["_LooseFile"], list[InputError]]:
    """Files that are whole, each read once to see it."""
    found, refused = [], []
    for name in sorted(names):
      source = Loose(self._place, name, "")
      stamp = source.stamp()
      try:
        content = source.content()
        check_name(content.told.task, name, self._place)
      except StorageError:
        raise
      except InputError as error:
        refused.append(error)
        continue
      shapes = {
        path: (leaf.dtype, leaf.shape) for path, leaf in content.tensors.items()
      }
      fields = content.told.fields
      row = Row(fields, functools.partial(_tensors, source))
      key = pack.key_of(fields, shapes)
      found.append(_LooseFile(name, stamp, _Member(key, row, shapes, "")))
    return found, refused

  def _current_rows(
    self, packs: list[Pack], *, hidden: set[str], work: pathlib.Path
  ) -> list["_Member"]:
    """Of each task that has no loose file the latest row."""
    latest: dict[str, tuple[int, Pack, int]] = {}
    for each in packs:
      near = self._near(each, work)
      for place, entry in enumerate(near.entries):
        before = latest.get(entry.task)
        if file_name(entry.task) not in hidden and (
          before is None or before[0] < entry.version
        ):
          latest[entry.task] = (entry.version, near, place)
    return [
      _Member(near.key, _row_of(near, place), near.shapes, near.name)
      for _, near, place in latest.values()
    ]

  def _lost(self, name: str, rows: list[Row]) -> bool:
    """Whether a pack has rows that are not to stay."""
    return len(self._opened(name)) != len(rows)

  def _replace(
    self, name: str, rows: list[Row], shapes: Shapes, work: pathlib.Path
  ) -> None:
    if not rows:
      self._place.remove(name)
      return
    made = work / "made"
    pack.write(made, rows, shapes)
    self._place.send(made, name)

  def _near(self, far: Pack, work: pathlib.Path) -> Pack:
    """A pack whose rows can be read one by one without a question to a bucket."""
    place = self._place.fetched(far.name, work)
    return far if place is self._place else Pack(place, far.name)

  def _all(self) -> list[Pack]:
    return [self._opened(name) for name in self._listed()]

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
      for name in self._open.keys() - listed.keys():
        del self._open[name]
      for name, (before, _) in list(self._open.items()):
        if listed[name] != before:
          del self._open[name]
    return listed

  def _opened(self, name: str) -> Pack:
    with self._lock:
      if name in self._open:
        return self._open[name][1]
    listed = self._place.look(name)
    found = Pack(self._place, name)
    with self._lock:
      return self._open.setdefault(name, (listed, found))[1]

  @contextlib.contextmanager
  def still(self, opened: Pack) -> Iterator[None]:
    """Takes a pack that was made anew meanwhile for one that is gone."""
    try:
      yield
    except StorageError:
      raise
    except InputError:
      before = self._open.get(opened.name)
      if before is None or self._place.look(opened.name) != before[0]:
        raise FileNotFoundError(opened.name) from None
      raise


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


def _tensors(source: Loose) -> Mapping[str, np.ndarray]:
  return source.content().tensors


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
