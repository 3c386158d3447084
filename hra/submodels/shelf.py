"""One task's files in a store: its current version, and those that it had before.

Numbers only grow. The current version is kept before another takes its place, so
that a task that was published once has one file.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

from hra.errors import InputError, StorageError
from hra.submodels.file import Content, Entry, Told, decode, read_told
from hra.submodels.names import SUFFIX, stem
from hra.submodels.place import Place

VERSIONS = "versions"
_TRIES = 5
Found = TypeVar("Found")


class OtherTask(InputError):
  """A file stands under the name of another task."""


class Source(Protocol):
  """Where a version is; FileNotFoundError where it is no more."""

  def told(self) -> tuple[Told, int]:
    """Its metadata, and its bytes."""
    ...

  def content(self) -> Content:
    """All of it, checked."""
    ...

  def stamp(self) -> object:
    """What differs when something else stands there."""
    ...


class Loose(NamedTuple):
  """A file of its own."""

  place: Place
  name: str
  task: str
  """Whose it has to be; empty is anybody's."""

  def told(self) -> tuple[Told, int]:
    return self._steady(self._told)

  def content(self) -> Content:
    found = decode(self.place.read(self.name), where=self._where)
    self._check(found.told)
    return found

  def stamp(self) -> object:
    return self.place.look(self.name)

  def _told(self) -> tuple[Told, int]:
    size = self.place.look(self.name).size

    def part(start: int, stop: int) -> bytes:
      return self.place.part(self.name, start, stop)

    told, _ = read_told(part, size, where=self._where)
    self._check(told)
    return told, size

  def _steady(self, read: Callable[[], Found]) -> Found:
    """Reads again where the file was replaced between two looks at it."""
    for _ in range(_TRIES):
      before = self.stamp()
      try:
        return read()
      except StorageError:
        raise
      except InputError:
        if self.stamp() == before:
          raise
    return read()

  def _check(self, told: Told) -> None:
    if self.task and told.task != self.task:
      raise OtherTask(
        self._where,
        expected=f"the Submodel of task {self.task!r}",
        got=f"that of {told.task!r}",
        fix="a file keeps the name that it was written under, in its own case",
      )

  @property
  def _where(self) -> str:
    return f"{self.place.path}/{self.name}"


class Rows(Protocol):
  """Versions that are in no file of their own (`hra.submodels.packs`)."""

  def rows(self, task: str) -> Sequence[Source]:
    """Those of a task that can be read, the latest first."""
    ...

  def drop(self, task: str) -> None:
    """Removes them."""
    ...


class _Kept(NamedTuple):
  """A version whose metadata can be read."""

  told: Told
  size: int
  source: Source
  current: bool
  archived: bool


class Shelf:
  """Of one task; to change it, the folder has to be the caller's alone."""

  def __init__(self, place: Place, packs: Rows, task: str):
    self._place, self._packs, self._task = place, packs, task
    self._stem = stem(task)
    self.name = f"{self._stem}{SUFFIX}"
    self._loose = Loose(place, self.name, task)

  def current(self, use: Callable[[Source], Found]) -> Found:
    """What `use` makes of the current version.

    Raises:
      FileNotFoundError: there is none.
    """
    for _ in range(_TRIES):
      try:
        return use(self._loose)
      except FileNotFoundError:
        rows = self._packs.rows(self._task)
      if not rows:
        break
      try:
        return use(rows[0])
      except FileNotFoundError:
        continue  # the pack was made anew meanwhile
    raise FileNotFoundError(self.name)

  def versions(self) -> list[Entry]:
    """Those that are kept, by number.

    Raises:
      FileNotFoundError: none is.
    """
    found = {each.told.version: each for each in reversed(self._kept())}
    if not found:
      raise FileNotFoundError(self.name)
    return [
      found[number].told.entry(found[number].size) for number in sorted(found)
    ]

  def version(self, number: int) -> Content:
    """A version that is kept.

    Raises:
      FileNotFoundError: it isn't.
      InputError: it is damaged.
    """
    return self._numbered(self._kept(), number).source.content()

  def put(self, made: Content, *, above: int) -> Told:
    """Makes content the current version, under the number that it has or gets.

    Args:
      above: a number that is taken, whatever the files say.
    """
    kept = self._kept()
    same = next((each for each in kept if made.is_same(each.told)), None)
    if same is not None and same.current and _content(same.source):
      return same.told
    if same is not None:
      self._replace(made.numbered(same.told.version), kept, above=above)
      return made.numbered(same.told.version).told
    taken = self._archive(kept, above=above)
    made = made.numbered(taken + 1)
    self._place.write(self.name, made.encode())
    return made.told

  def keep_hidden(self) -> None:
    """Keeps rows of packs that are not current, as if they had been replaced."""
    kept = self._kept()
    above = max((each.told.version for each in kept), default=0)
    current = {each.told.fingerprint for each in kept if each.current}
    hidden = [each for each in kept if each.told.fingerprint not in current]
    self._archive(hidden, above=above)

  def back(self, number: int) -> Told:
    """Makes a version that is kept the current one.

    Raises:
      FileNotFoundError, InputError: as `version`.
    """
    kept = self._kept()
    wanted = self._numbered(kept, number)
    found = wanted.source.content()
    if not wanted.current:
      self._replace(found, kept, above=0)
    return found.told

  def clear(self) -> bool:
    """Removes all of the task, the current version last; whether there was any."""
    archived = list(self._archived())
    for name in archived:
      self._place.remove(name)
    packed = bool(self._packs.rows(self._task))
    self._packs.drop(self._task)
    try:
      self._place.look(self.name)
    except FileNotFoundError:
      return packed or bool(archived)
    self._place.remove(self.name)
    return True

  def shared(self) -> set[str]:
    """Fingerprints of the shared parameters that its versions were made for."""
    return {each.told.kind.shared_fingerprint for each in self._kept()}

  def _replace(self, made: Content, kept: list[_Kept], *, above: int) -> None:
    self._archive(kept, above=above)
    self._place.write(self.name, made.encode())

  def _archive(self, kept: list[_Kept], *, above: int) -> int:
    """Keeps beside the others what is not there yet; the highest number taken.

    A file that somebody copied in may have a number that another has had; it is
    kept under one of its own.
    """
    numbers = {
      each.told.version: each.told.fingerprint for each in kept if each.archived
    }
    taken = max([above, *(each.told.version for each in kept)])
    for each in kept:
      number = each.told.version
      if each.archived or numbers.get(number) == each.told.fingerprint:
        continue
      if number not in numbers and isinstance(each.source, Loose):
        self._place.keep(self.name, self._archive_name(number))
      elif (found := _content(each.source)) is not None:
        if number in numbers:
          number = taken = taken + 1
        made = found.numbered(number)
        self._place.write(self._archive_name(number), made.encode())
      numbers[number] = each.told.fingerprint
    return taken

  def _numbered(self, kept: list[_Kept], number: int) -> _Kept:
    for each in kept:
      if each.told.version == number:
        return each
    raise FileNotFoundError(self._archive_name(number))

  def _kept(self) -> list[_Kept]:
    """The current version, if it can be read, then all others."""
    found = []
    loose = self._read(self._loose)
    if loose is not None:
      found.append(_Kept(*loose, self._loose, current=True, archived=False))
    hidden = loose is not None or self._has_loose()
    for row in self._packs.rows(self._task):
      packed = self._read(row)
      if packed is not None:
        found.append(_Kept(*packed, row, current=not hidden, archived=False))
        hidden = True
    for name in self._archived():
      source = Loose(self._place, name, self._task)
      archived = self._read(source)
      if archived is not None:
        found.append(_Kept(*archived, source, current=False, archived=True))
    return found

  def _read(self, source: Source) -> tuple[Told, int] | None:
    """Metadata; None of what is damaged or not there."""
    try:
      return source.told()
    except (StorageError, OtherTask):
      raise
    except (InputError, FileNotFoundError):
      return None

  def _has_loose(self) -> bool:
    try:
      self._place.look(self.name)
    except FileNotFoundError:
      return False
    return True

  def _archived(self) -> Iterator[str]:
    folder = f"{VERSIONS}/{self._stem}"
    try:
      names = self._place.files(folder)
    except FileNotFoundError:
      return
    for name in sorted(names):
      if name.endswith(SUFFIX):
        yield f"{folder}/{name}"

  def _archive_name(self, number: int) -> str:
    return f"{VERSIONS}/{self._stem}/{number}{SUFFIX}"


def _content(source: Source) -> Content | None:
  """All of it; None of what is damaged or not there."""
  try:
    return source.content()
  except StorageError:
    raise
  except (InputError, FileNotFoundError):
    return None
