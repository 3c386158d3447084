"""A folder of Submodels, local or a URL: read, published, rolled back, deleted.

    NAME.safetensors              a task's current version; anyone may copy one in
    versions/NAME/2.safetensors   what it was before, or will be again
    shared-HASH.safetensors       shared parameters, once for all rows made for them
    packs/KIND.safetensors        many rows in one file (`hra.submodels.pack`)
    index.json                    what their headers say (`hra.submodels.index`)
    ledger.json                   what no file says (`hra.submodels.ledger`)

A file that is published takes its name by one renaming (in a bucket by one upload),
after the former version was kept: whoever dies meanwhile leaves the former version or
the new one. A loose file wins over a pack's row.
"""

import contextlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from absl import logging
from etils import epath

from hra.errors import InputError, StorageError
from hra.submodels.file import Content, Entry, Submodel, content
from hra.submodels.index import Index
from hra.submodels.ledger import Ledger
from hra.submodels.names import SUFFIX, file_name
from hra.submodels.packs import Packs, check_name
from hra.submodels.place import Listed, Place, place_of
from hra.submodels.shared import Shared, is_shared
from hra.submodels.shelf import VERSIONS, Loose, Shelf, Source

Found = TypeVar("Found")


class Listing(NamedTuple):
  """All that a store holds."""

  entries: list[Entry]
  """By task."""
  refused: list[InputError]
  """Files that are no whole Submodels."""


class Packed(NamedTuple):
  """What became of loose files."""

  packed: int
  """How many are in packs now."""
  refused: list[InputError]
  """What is wrong with those that aren't."""


class Store(Mapping[str, Submodel]):
  """A folder of Submodels; `store["alice"]` reads one file.

  Safe to use from several threads. Other processes may publish meanwhile.
  """

  def __init__(self, folder: epath.PathLike):
    self._place: Place = place_of(folder)
    if not self._place.is_there():
      raise InputError(
        folder, expected="a folder of Submodels", got="no such folder"
      )
    self._held = self._place.holds_anything()
    self._index = Index(self._place)
    self._shared = Shared(self._place)
    self._packs = Packs(self._place)

  @property
  def folder(self) -> epath.Path:
    return self._place.path

  def __getitem__(self, task: str) -> Submodel:
    """Reads a task's current version, every byte of it checked.

    Raises:
      KeyError: the store has none of the task.
      StorageError: the store can't be reached.
      InputError: it is damaged, or its shared parameters are.
    """
    return self._submodel(self._current(task, lambda each: each.content()))

  def __contains__(self, task: object) -> bool:
    try:
      return isinstance(task, str) and bool(self.stamp(task))
    except KeyError:
      return False

  def __iter__(self) -> Iterator[str]:
    return (entry.task for entry in self.entries())

  def __len__(self) -> int:
    return len(self.entries())

  def find(self, task: str) -> Entry:
    """What the store knows of a task; its row isn't read.

    Raises:
      KeyError, StorageError, InputError: as `store[task]`.
    """
    return self._current(task, _entry)

  def stamp(self, task: str) -> Hashable:
    """What differs as soon as a task has another current version.

    It costs one question to the file system or bucket; of a packed row two more,
    for the packs that there are and what its own says of it.

    Raises:
      KeyError: the store has none of the task.
      StorageError: the store can't be reached.
    """
    return self._current(task, lambda each: each.stamp())

  def entries(self) -> list[Entry]:
    """What the store knows of all tasks, by their names.

    Files that are no whole Submodels are left out with a warning.

    Raises:
      StorageError: the store can't be reached.
    """
    found, refused = self.listing()
    for error in refused:
      logging.warning("%s", error)
    return found

  def listing(self) -> Listing:
    """`entries`, and what is wrong with other files.

    One listing of the folder; headers are read of files that the index doesn't
    know.

    Raises:
      StorageError: the store can't be reached.
    """
    files = self._loose_files()
    packed, refused = self._packs.entries()
    if not files and not packed:
      self._check_there()
    found, spoilt = dict(packed), set[str]()
    for name, each in files.items():
      entry = self._index.get(name, each)
      if entry is None:
        try:
          entry = self._entry_of(name)
        except FileNotFoundError:  # deleted meanwhile
          continue
        except InputError as error:
          if isinstance(error, StorageError):
            self._check_there()  # is it the file, or all of the store?
          refused.append(error)
          spoilt.add(name)
          continue
        self._index.put(name, each, entry)
      found[entry.task] = entry
    self._index.keep(files)
    self._index.try_to_save(self._loose_files)
    if spoilt:  # a row that a damaged file hides is not what is current
      found = {
        task: entry
        for task, entry in found.items()
        if file_name(task) not in spoilt
      }
    return Listing([found[task] for task in sorted(found)], refused)

  def versions(self, task: str) -> list[Entry]:
    """The versions that are kept, by number.

    Raises:
      KeyError: the store has none of the task.
      StorageError: the store can't be reached.
    """
    return self._on_shelf(task, Shelf.versions)

  def get_version(self, task: str, version: int) -> Submodel:
    """Reads any version that is kept.

    Raises:
      KeyError: the store has no such task or version.
      StorageError, InputError: as `store[task]`.
    """
    return self._submodel(
      self._on_shelf(task, lambda shelf: shelf.version(version))
    )

  def publish(self, submodel: Submodel) -> Entry:
    """Makes a Submodel its task's current version, and keeps the former one.

    What the store has already keeps its number.

    Raises:
      StorageError: it can't be written; the former version stands.
      InputError: it can't be a file, or its shared parameters are not those that
        it says; another process doesn't leave the folder.
    """
    (entry,) = self.publish_all([submodel])
    return entry

  def publish_all(self, submodels: Iterable[Submodel]) -> list[Entry]:
    """`publish` one after the other, with the folder kept to itself."""
    with self._changing() as ledger:
      return [self._publish(each, ledger) for each in submodels]

  def rollback(self, task: str, version: int) -> Entry:
    """Makes a version that is kept the current one again, under its number.

    Raises:
      KeyError: the store has no such task or version.
      StorageError, InputError: as `store[task]`.
    """
    with self._changing() as ledger:
      self._on_shelf(task, lambda shelf: shelf.back(version))
      return self._remember(task, ledger)

  def delete(self, task: str) -> bool:
    """Removes all versions of a task; whether there was any.

    Shared parameters that nobody else was trained with go with the last of them.

    Raises:
      StorageError: something can't be removed; the same call goes on with it.
      InputError: a pack can't be searched for the task, which is nowhere else now.
    """
    with self._changing() as ledger:
      try:
        shelf = self._shelf(task)
      except InputError:
        return False
      doubted = ledger.doubt(shelf.shared())
      ledger.forget(shelf.name)
      ledger.save()
      found = shelf.clear()
      if self._remove_unused(doubted):
        ledger.settle()
    self._packs.check(task)
    return found

  def pack(self) -> Packed:
    """Puts what is current into packs, one for each kind; loose files go.

    Former versions stay where they are, and so does what is damaged.

    Raises:
      StorageError: it can't be written; all is where it was.
    """
    with self._changing():
      files = self._loose_files()
      for task in self._packs.hidden(files):
        self._shelf(task).keep_hidden()
      return Packed(*self._packs.build(files))

  @contextlib.contextmanager
  def _changing(self) -> Iterator[Ledger]:
    """With the folder kept to itself."""
    with self._place.alone():
      ledger = Ledger(self._place)
      self._index.refresh()
      try:
        yield ledger
      finally:
        ledger.save()
        self._index.save(self._loose_files())

  def _publish(self, submodel: Submodel, ledger: Ledger) -> Entry:
    made = content(submodel)
    shelf = self._shelf(submodel.task)
    found = self._shared.save(submodel.shared)
    if found != submodel.shared_fingerprint:
      raise InputError(
        f"Submodel of task {submodel.task!r}",
        expected=f"shared parameters of hash {submodel.shared_fingerprint}",
        got=found,
      )
    shelf.put(made, above=ledger.highest(shelf.name))
    return self._remember(submodel.task, ledger)

  def _remember(self, task: str, ledger: Ledger) -> Entry:
    """Puts what is current into the index, and its number into the ledger."""
    shelf = self._shelf(task)
    try:
      listed = self._place.look(shelf.name)
    except FileNotFoundError:  # it is a pack's
      return shelf.current(_entry)
    entry = shelf.current(_entry)
    self._index.put(shelf.name, listed, entry)
    ledger.count(shelf.name, entry.version)
    self._held = True
    return entry

  def _remove_unused(self, shared: set[str]) -> bool:
    """Removes shared parameters that nobody needs; whether all could be asked.

    Headers are read of as many files as it takes; the index says where to begin.
    """
    files = self._loose_files()

    def unlikely(name: str) -> bool:
      entry = self._index.get(name, files[name])
      return entry is None or entry.shared_fingerprint not in shared

    names = [*sorted(files, key=unlikely), *self._archived()]
    try:
      unused = shared - self._packs.shared() if shared else shared
      for name in names:
        if not unused:
          break
        told, _ = Loose(self._place, name, "").told()
        unused.discard(told.kind.shared_fingerprint)
    except StorageError:
      raise
    except (InputError, FileNotFoundError):
      return False
    for each in unused:
      self._shared.remove(each)
    return True

  def _archived(self) -> Iterator[str]:
    """Former versions of all tasks."""
    for folder in self._place.folders(VERSIONS):
      for name in self._place.files(f"{VERSIONS}/{folder}"):
        if name.endswith(SUFFIX):
          yield f"{VERSIONS}/{folder}/{name}"

  def _current(self, task: str, use: Callable[[Source], Found]) -> Found:
    return self._on_shelf(task, lambda shelf: shelf.current(use))

  def _on_shelf(self, task: str, use: Callable[[Shelf], Found]) -> Found:
    """What `use` makes of a task's files; KeyError where they are not there."""
    try:
      shelf = self._shelf(task)
    except InputError as error:  # no name that a file could have
      raise KeyError(str(error)) from error
    try:
      found = use(shelf)
    except FileNotFoundError as error:
      self._check_there()
      self._packs.check(task)
      raise KeyError(
        f"{self.folder}: no Submodel of task {task!r} ({error})"
      ) from error
    self._held = True
    return found

  def _shelf(self, task: str) -> Shelf:
    return Shelf(self._place, self._packs, task)

  def _loose_files(self) -> dict[str, Listed]:
    """The files that may be Submodels."""
    try:
      listed = self._place.files()
    except FileNotFoundError:
      raise self._gone() from None
    return {
      name: each
      for name, each in listed.items()
      if name.endswith(SUFFIX) and name[0] != "." and not is_shared(name)
    }

  def _entry_of(self, name: str) -> Entry:
    """What a file's header says, which has to stand under its own name."""
    told, size = Loose(self._place, name, "").told()
    check_name(told.task, name, self._place)
    return told.entry(size)

  def _submodel(self, found: Content) -> Submodel:
    return found.submodel(self._shared.load(found.told.kind.shared_fingerprint))

  def _check_there(self) -> None:
    """Whether the folder is; one that was not empty can only have gone."""
    place = self._place
    if not (place.holds_anything() if self._held else place.is_there()):
      raise self._gone()

  def _gone(self) -> StorageError:
    return StorageError(
      self.folder,
      expected="a folder of Submodels",
      got="none any more",
      fix="it was moved, or what it is on is not mounted",
    )


def _entry(source: Source) -> Entry:
  told, size = source.told()
  return told.entry(size)
