"""Submodels in the host's memory, and the threads that bring them from the store.

In: names of tasks. Out: rows as the store has them, or why there is none. A row that is
held is used for `refresh_seconds` without a look at the store. Then a loader looks, for
which nobody waits longer than `check_seconds`, and nobody at all while the store doesn't
answer. What nobody asks for is looked at too, so that what was deleted is not kept.
"""

import collections
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Protocol

from hra.adapters.interface import Tree
from hra.config import EngineConfig
from hra.errors import InputError, StorageError
from hra.serve import faults
from hra.serve.interface import StoreGone, UnknownSpeaker
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


Arrived = Callable[[Row | Exception], None]
"""What is told that a row is there, or why it isn't; the lock is held."""


@dataclasses.dataclass(eq=False)
class _Waiting:
  arrived: Arrived
  deadline: float
  """After which the row that is held has to do; there is none, if there is none."""
  fresh: bool
  """Whether no row does that the store doesn't vouch for."""


class Rows:
  """All of its state changes under the engine's lock, which callers hold."""

  def __init__(
    self,
    store: Shelf,
    kind_of: Callable[[Submodel], Kind | None],
    config: EngineConfig,
    *,
    lock: threading.RLock,
    changed: Callable[[], None],
    released: Callable[[Row], None],
  ):
    """
    Args:
      kind_of: refuses what is none of the backbone (`Kinds.of`).
      changed: called when something arrives, or may be late.
      released: called for each row that is current no more.
    """
    self.answering = True
    """Whether the store answered when it was last asked, and in time."""
    self.loads, self.load_seconds = 0, 0.0
    self._store, self._kind_of, self._config = store, kind_of, config
    self._lock, self._asked_for = lock, threading.Condition(lock)
    self._changed, self._released = changed, released
    self._held: collections.OrderedDict[str, Row] = collections.OrderedDict()
    self._waiting: dict[str, list[_Waiting]] = {}
    self._later: dict[str, list[_Waiting]] = {}
    """Those who want what the store has now, while it is being read."""
    self._asked: collections.deque[str] = collections.deque()
    self._read: set[str] = set()
    """Tasks whose Submodels are being read."""
    self._closed = False
    self.threads = [
      threading.Thread(target=self._load, name=f"loader {number}", daemon=True)
      for number in range(config.loaders)
    ]

  def __len__(self) -> int:
    return len(self._held)

  def close(self) -> None:
    self._closed = True
    self._asked_for.notify_all()

  def current(self, row: Row) -> bool:
    return self._held.get(row.task) is row

  def want(
    self, task: str, arrived: Arrived, *, fresh: bool = False
  ) -> Row | None:
    """The row where there is one; else `arrived` is told later.

    Args:
      fresh: asks the store whatever is held.
    """
    now, row = time.monotonic(), None if fresh else self._held.get(task)
    patience = self._config.load_seconds
    if row is not None:
      self._held.move_to_end(task)
      if not row.outdated:
        if now - row.checked <= self._config.refresh_seconds:
          return row
        patience = self._config.check_seconds
    waiting = _Waiting(arrived, now + patience, fresh)
    if fresh and task in self._read:
      self._later.setdefault(task, []).append(waiting)
    else:
      self._ask(task, first=row is not None)
      if row is not None and not self.answering:
        return row
      self._waiting.setdefault(task, []).append(waiting)
    self._changed()  # there may be an earlier deadline
    return None

  def expire(self, now: float) -> float:
    """Lets go on who has waited long enough; when the next one has."""
    following = math.inf
    for groups in (self._waiting, self._later):
      for task, waiting in groups.items():
        for each in list(waiting):
          if each.deadline <= now:
            self.answering = False
            waiting.remove(each)
            row = None if each.fresh else self._held.get(task)
            each.arrived(row or _late(task))
          else:
            following = min(following, each.deadline)
    return following

  def drop(self, task: str) -> Row | None:
    """Forgets what is held of a task."""
    row = self._held.pop(task, None)
    if row is not None:
      self._released(row)
    return row

  def _ask(self, task: str, *, first: bool) -> None:
    if task not in self._asked and task not in self._read:
      # A look at the store is short: it goes before what has to be read.
      (self._asked.appendleft if first else self._asked.append)(task)
      self._asked_for.notify()

  def _load(self) -> None:
    """A loader's thread."""
    while True:
      with self._lock:
        while not self._asked and not self._closed:
          self._asked_for.wait(self._idle(time.monotonic()))
        if self._closed:
          return
        task = self._asked.popleft()
        self._read.add(task)
        known, begun = self._held.get(task), time.monotonic()
        if known is not None:
          known.looked = begun
      found: Row | Exception
      try:
        found = self._brought(task, known, begun)
      # Whatever it is, it belongs to those who wait for this task.
      except Exception as error:
        found = error
      with self._lock:
        self._deliver(task, found, seconds=time.monotonic() - begun)
        self._changed()

  def _idle(self, now: float) -> float | None:
    """Asks for the row at which nobody looked for longest, if that is long enough.

    Returns:
      seconds until the next one is due.
    """
    busy = {*self._asked, *self._read}
    others = [row for row in self._held.values() if row.task not in busy]
    if not others:
      return None
    oldest = min(others, key=lambda row: row.looked)
    rest = oldest.looked + self._config.sweep_seconds - now
    if rest <= 0:
      self._asked.append(oldest.task)
    return max(rest, 0.0)

  def _brought(self, task: str, known: Row | None, begun: float) -> Row:
    where = f"Submodel of task {task!r}"
    try:
      stamp = self._store.stamp(task)
      if known is not None and known.stamp == stamp:
        known.checked, known.outdated = begun, False
        return known
      self._outdate(task, known)
      submodel = self._store[task]
    except KeyError as error:
      raise UnknownSpeaker(
        where, expected="one that the store has", got="no such Submodel"
      ) from error
    except (StorageError, OSError) as error:
      raise faults.gone(where, error) from error
    except InputError as error:
      raise faults.bad(where, error) from error
    try:
      kind = self._kind_of(submodel)
    except InputError as error:
      raise faults.bad(where, error) from error
    return Row(
      task=task,
      version=submodel.version,
      fingerprint=submodel.fingerprint,
      not_better=submodel.worse_than_backbone,
      kind=kind,
      numbers={} if kind is None else kind.cast(submodel.row),
      stamp=stamp,
      checked=begun,
      looked=begun,
    )

  def _outdate(self, task: str, known: Row | None) -> None:
    """There is a newer one: who waits for a look waits for that."""
    with self._lock:
      if known is not None:
        known.outdated = True
      latest = time.monotonic() + self._config.load_seconds
      for each in self._waiting.get(task, ()):
        each.deadline = latest

  def _deliver(
    self, task: str, found: Row | Exception, *, seconds: float
  ) -> None:
    self._read.discard(task)
    held = self._held.get(task)
    gone = isinstance(found, StoreGone)
    self.answering = not gone
    if isinstance(found, UnknownSpeaker):
      self.drop(task)
    elif isinstance(found, Row) and found is not held:
      self.loads += 1
      self.load_seconds += seconds
      self._hold(found)
    for each in self._waiting.pop(task, ()):
      if gone and held is not None and not each.fresh:
        each.arrived(held)
      else:
        each.arrived(found)
    if task in self._later:
      self._waiting[task] = self._later.pop(task)
      self._ask(task, first=False)

  def _hold(self, row: Row) -> None:
    self.drop(row.task)
    self._held[row.task] = row
    over = len(self._held) - self._config.host_rows
    if over > 0:  # those on the device stay
      others = (task for task, each in self._held.items() if not each.slot)
      for task in [task for task in others if task != row.task][:over]:
        del self._held[task]


def _late(task: str) -> StoreGone:
  return StoreGone(
    f"Submodel of task {task!r}",
    expected="a store that answers in time",
    got="no answer yet",
    fix="try later",
  )
