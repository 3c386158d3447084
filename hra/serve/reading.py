"""What a store says of one Submodel: a row for a slot, or why there is none."""

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from hra.adapters.interface import Tree
from hra.errors import InputError, StorageError
from hra.serve import faults
from hra.serve.interface import BadSubmodel, StoreGone, UnknownSpeaker
from hra.serve.kinds import Kind
from hra.submodels import Submodel


@dataclasses.dataclass(eq=False)
class Row:
  """A Submodel's, ready to be written to a slot."""

  task: str
  version: int
  fingerprint: str
  not_better: bool
  """Than the bare backbone on its dev recordings."""
  kind: Kind | None
  """None where it adds nothing."""
  numbers: Tree
  stamp: Hashable
  """Of the store's current version when it was read."""
  checked: float
  """When the store last said that it is current."""
  looked: float
  """When that was last tried."""
  outdated: bool = False
  """Whether the store has a newer one, which is on its way."""
  slot: int = 0
  """Of the table of its kind; 0 is none."""
  used: float = 0.0
  """When it was last wanted on the device."""


class Shelf(Protocol):
  """What the engine asks of a store (`hra.submodels.Store`)."""

  def __getitem__(self, task: str, /) -> Submodel: ...

  def stamp(self, task: str, /) -> Hashable: ...

  def listing(self) -> tuple[Iterable[Any], Iterable[InputError]]:
    """What it holds, and what is wrong with other files."""
    ...


class Refusal(NamedTuple):
  """A Submodel that can't be used."""

  stamp: Hashable
  error: BadSubmodel
  seen: float


class Refusals:
  """Those of the last seconds, so that one is not read for each request."""

  def __init__(self, most: int, *, seconds: float):
    self._most, self._seconds = most, seconds
    self._known: collections.OrderedDict[str, Refusal] = (
      collections.OrderedDict()
    )

  def add(self, task: str, refusal: Refusal) -> None:
    self._known[task] = refusal
    if len(self._known) > self._most:
      self._known.popitem(last=False)

  def of(self, task: str, now: float) -> Refusal | None:
    found = self._known.get(task)
    if found is not None and now - found.seen >= self._seconds:
      del self._known[task]
      return None
    return found


def stamped(store: Shelf, task: str) -> Hashable:
  """Of its current version.

  Raises:
    UnknownSpeaker, StoreGone, BadSubmodel: there is none.
  """
  with _told(task):
    return store.stamp(task)


def opened(
  store: Shelf,
  task: str,
  kind_of: Callable[[Submodel], Kind | None],
  *,
  stamp: Hashable,
  now: float,
) -> Row:
  """Its current version.

  Raises:
    UnknownSpeaker, StoreGone, BadSubmodel: there is none.
  """
  with _told(task):
    submodel = store[task]
  try:
    kind = kind_of(submodel)
  except InputError as error:
    raise faults.bad(f"Submodel of task {task!r}", error) from error
  return Row(
    task=task,
    version=submodel.version,
    fingerprint=submodel.fingerprint,
    not_better=submodel.worse_than_backbone,
    kind=kind,
    numbers={} if kind is None else kind.cast(submodel.row),
    stamp=stamp,
    checked=now,
    looked=now,
  )


def late(task: str) -> StoreGone:
  return StoreGone(
    f"Submodel of task {task!r}",
    expected="a store that answers in time",
    got="no answer yet",
    fix="try later",
  )


@contextlib.contextmanager
def _told(task: str) -> Iterator[None]:
  """What a store raises -> why there is no Submodel."""
  where = f"Submodel of task {task!r}"
  try:
    yield
  except KeyError as error:
    raise UnknownSpeaker(
      where, expected="one that the store has", got="no such Submodel"
    ) from error
  except (StorageError, OSError) as error:
    raise faults.gone(where, error) from error
  except InputError as error:
    raise faults.bad(where, error) from error
