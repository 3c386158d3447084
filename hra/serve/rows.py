"""Submodels in the host's memory, and the threads that bring them from the store.

In: names of tasks. Out: rows that are as the store has them, or why there is none. A
row that is held is used for `refresh_seconds` without a look at the store; then a
loader looks, for which nobody waits longer than `check_seconds`, and nobody at all
while the store doesn't answer.
"""

import collections
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, Protocol

from hra.adapters.interface import Tree
from hra.config import EngineConfig
from hra.errors import InputError, StorageError
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
  slot: int = 0
  """Of the table of its kind; 0 is none."""
  used: float = 0.0
  """When it was last wanted on the device."""


class Shelf(Protocol):
  """What the engine asks of a store (`hra.submodels.Store`)."""

  def __getitem__(self, task: str, /) -> Submodel: ...

  def stamp(self, task: str, /) -> Hashable: ...

  def entries(self) -> Any: ...


Arrived = Callable[[Row | Exception], None]
"""What is told that a row is there, or why it isn't; the lock is held."""


@dataclasses.dataclass(eq=False)
class _Waiting:
  arrived: Arrived
  deadline: float
  """After which the row that is held has to do."""
  fresh: bool
  """Whether no row does that the store doesn't vouch for."""


class Rows:
  """Safe from any thread; all of its state changes under the engine's lock."""

  def __init__(
    self,
    store: Shelf,
    kind_of: Callable[[Submodel], Kind | None],
    config: EngineConfig,
    *,
    changed: threading.Condition,
    released: Callable[[Row], None],
  ):
    """
    Args:
      changed: the engine's lock, notified of what arrives.
      released: told of each row that is current no more.
    """
    self.answering = True
    """Whether the store answered when it was last asked."""
    self.loads, self.load_seconds = 0, 0.0
    self._store, self._kind_of, self._config = store, kind_of, config
    self._changed, self._released = changed, released
    self._held: collections.OrderedDict[str, Row] = collections.OrderedDict()
    self._waiting: dict[str, list[_Waiting]] = {}
    self._asked: collections.deque[str] = collections.deque()
    self._busy: set[str] = set()
    self._closed = False
    self.threads = [
      threading.Thread(target=self._load, name=f"loader {number}", daemon=True)
      for number in range(config.loaders)
    ]

  def __len__(self) -> int:
    return len(self._held)

  def start(self) -> None:
    for thread in self.threads:
      thread.start()

  def close(self) -> None:
    """The lock is held."""
    self._closed = True
    self._changed.notify_all()

  def current(self, row: Row) -> bool:
    return self._held.get(row.task) is row

  def want(
    self, task: str, arrived: Arrived, *, fresh: bool = False
  ) -> Row | None:
    """The row where there is one; else `arrived` is told later. The lock is held.

    Args:
      fresh: asks the store whatever is held.
    """
    row, now = self._held.get(task), time.monotonic()
    if row is not None and not fresh:
      self._held.move_to_end(task)
      if now - row.checked <= self._config.refresh_seconds:
        return row
    asked = task in self._busy
    if not asked:
      self._busy.add(task)
      # A look at the store is short: it goes before what has to be read.
      (self._asked.append if row is None else self._asked.appendleft)(task)
      self._changed.notify_all()
    deadline = math.inf
    if row is not None and not fresh:
      if not self.answering:
        return row
      deadline = now + self._config.check_seconds
    waiting = _Waiting(arrived, deadline, fresh)
    self._waiting.setdefault(task, []).append(waiting)
    return None

  def expire(self, now: float) -> float:
    """Lets go on who has waited long enough; when the next one has. Under the lock."""
    following = math.inf
    for task, waiting in list(self._waiting.items()):
      row = self._held.get(task)
      if row is None:
        continue
      for each in list(waiting):
        if each.deadline <= now:
          self.answering = False
          waiting.remove(each)
          each.arrived(row)
        else:
          following = min(following, each.deadline)
    return following

  def drop(self, task: str) -> Row | None:
    """Forgets what is held of a task. The lock is held."""
    row = self._held.pop(task, None)
    if row is not None:
      self._released(row)
    return row

  def _load(self) -> None:
    while True:
      with self._changed:
        while not self._asked and not self._closed:
          self._changed.wait()
        if self._closed:
          return
        task = self._asked.popleft()
        known = self._held.get(task)
      begun = time.monotonic()
      found: Row | Exception
      try:
        found = self._read(task, known)
      # Whatever it is, it belongs to those who wait for this task.
      except Exception as error:
        found = error
      with self._changed:
        self._deliver(task, found, seconds=time.monotonic() - begun)
        self._changed.notify_all()

  def _read(self, task: str, known: Row | None) -> Row:
    begun = time.monotonic()
    stamp = self._store.stamp(task)
    if known is not None and known.stamp == stamp:
      known.checked = begun
      return known
    submodel = self._store[task]
    kind = self._kind_of(submodel)
    return Row(
      task=task,
      version=submodel.version,
      fingerprint=submodel.fingerprint,
      not_better=submodel.worse_than_backbone,
      kind=kind,
      numbers={} if kind is None else kind.cast(submodel.row),
      stamp=stamp,
      checked=begun,
    )

  def _deliver(
    self, task: str, found: Row | Exception, *, seconds: float
  ) -> None:
    self._busy.discard(task)
    held = self._held.get(task)
    gone = isinstance(found, StorageError | OSError)
    self.answering = not gone
    if isinstance(found, KeyError):
      self.drop(task)
    elif isinstance(found, Row) and found is not held:
      self.loads, self.load_seconds = (
        self.loads + 1,
        self.load_seconds + seconds,
      )
      self._hold(found)
    said = _named(task, found) if isinstance(found, Exception) else found
    for each in self._waiting.pop(task, ()):
      if gone and held is not None and not each.fresh:
        each.arrived(held)
      else:
        each.arrived(said)

  def _hold(self, row: Row) -> None:
    self.drop(row.task)
    self._held[row.task] = row
    over = len(self._held) - self._config.host_rows
    if over > 0:  # those on the device stay
      others = (task for task, each in self._held.items() if not each.slot)
      for task in list(others)[:over]:
        if task != row.task:
          del self._held[task]


def _named(task: str, error: Exception) -> Exception:
  """An error of a store as one of the engine's."""
  where = f"Submodel of task {task!r}"
  if isinstance(error, KeyError):
    return UnknownSpeaker(
      where, expected="one that the store has", got="no such Submodel"
    )
  if isinstance(error, StorageError | OSError):
    return StoreGone(
      where, expected="a store that answers", got=str(error), fix="try later"
    )
  if isinstance(error, InputError):
    return BadSubmodel(
      error.where, expected=error.expected, got=error.got, fix=error.fix
    )
  return error
