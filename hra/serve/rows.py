"""Submodels in the host's memory, and the threads that bring them from the store.

In: names of tasks. Out: rows as the store has them, or why there is none. A row that is
held is used for `refresh_seconds` without a look at the store. Then a loader looks, for
which nobody waits longer than `check_seconds`, and nobody at all while the store doesn't
answer. What nobody asks for is looked at too, so that what was deleted is not kept.
A version whose kind has no programs yet comes when it has them; until then the one
that is held answers.
"""

import collections
import dataclasses
import functools
import math
import threading
import time
from collections.abc import Callable, Hashable
from typing import Protocol

from hra.config import EngineConfig
from hra.serve.asked import Asked
from hra.serve.endings import bad
from hra.serve.interface import BadSubmodel, StoreGone, UnknownSpeaker
from hra.serve.kinds import Kind
from hra.serve.reading import (
  Refusal,
  Refusals,
  Row,
  Shelf,
  late,
  opened,
  stamped,
)
from hra.submodels import Submodel

Arrived = Callable[[Row | Exception], None]
"""What is told that a row is there, or why it isn't; the lock is held."""


@dataclasses.dataclass(eq=False)
class _Waiting:
  arrived: Arrived
  deadline: float
  """After which the row that is held has to do; there is none, if there is none."""
  fresh: bool
  """Whether no row does that the store doesn't vouch for."""


_Groups = dict[str, dict[Hashable, _Waiting]]
"""Of each task, those who wait, by themselves; none is empty."""


class Programmed(Protocol):
  """What has programs of kinds, or is going to (`hra.serve.compiler`)."""

  def serves(self, kind: Kind | None) -> bool: ...

  def wait_for(
    self,
    owner: Hashable,
    kind: Kind,
    go_on: Callable[[], None],
    fail: Callable[[Exception], None],
  ) -> None: ...

  def leave(self, owner: Hashable) -> None: ...


class Rows:
  """All of its state changes under the engine's lock, which callers hold."""

  def __init__(
    self,
    store: Shelf,
    kind_of: Callable[[Submodel], Kind | None],
    config: EngineConfig,
    programmed: Programmed,
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
    self._programmed = programmed
    self._lock, self._asked_for = lock, threading.Condition(lock)
    self._changed, self._released = changed, released
    self._held: collections.OrderedDict[str, Row] = collections.OrderedDict()
    self._coming: dict[str, Row] = {}
    """Newer ones than those held, whose kinds have no programs yet."""
    self._refusals = Refusals(config.host_rows, seconds=config.refresh_seconds)
    self._waiting: _Groups = {}
    self._later: _Groups = {}
    """Those who want what the store has now, while it is being read."""
    self._asked = Asked()
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

  def kinds(self) -> set[Kind | None]:
    """Of all that is held, and of what is to come."""
    return {
      row.kind for rows in (self._held, self._coming) for row in rows.values()
    }

  def want(
    self,
    task: str,
    arrived: Arrived,
    *,
    owner: Hashable,
    fresh: bool = False,
  ) -> Row | None:
    """The row where there is one; else `arrived` is told later.

    Args:
      owner: who may `leave`.
      fresh: asks the store whatever is held.
    """
    now, row = time.monotonic(), None if fresh else self._held.get(task)
    patience = self._config.load_seconds
    if row is not None:
      self._held.move_to_end(task)
      latest = self._coming.get(task, row)
      if not latest.outdated:
        if now - latest.checked <= self._config.refresh_seconds:
          return row
        patience = self._config.check_seconds
    waiting = _Waiting(arrived, now + patience, fresh)
    if fresh and task in self._read:
      self._later.setdefault(task, {})[owner] = waiting
    else:
      self._ask(task, look=row is not None)
      if row is not None and not self.answering:
        return row
      self._waiting.setdefault(task, {})[owner] = waiting
    self._changed()  # there may be an earlier deadline
    return None

  def leave(self, task: str, owner: Hashable) -> None:
    """Somebody waits for it no more, who may not have waited."""
    for groups in (self._waiting, self._later):
      waiting = groups.get(task, {})
      if waiting.pop(owner, None) is not None and not waiting:
        del groups[task]
    if not (task in self._waiting or task in self._held):
      self._asked.discard(task)

  def expire(self, now: float) -> float:
    """Lets go on who has waited long enough; when the next one has."""
    following = math.inf
    over: list[tuple[str, Hashable, _Waiting]] = []
    for groups in (self._waiting, self._later):
      for task, waiting in groups.items():
        for owner, each in waiting.items():
          if each.deadline <= now:
            over.append((task, owner, each))
          else:
            following = min(following, each.deadline)
    for task, owner, each in over:
      self.answering = False
      self.leave(task, owner)
      row = None if each.fresh else self._held.get(task)
      each.arrived(row or late(task))
    return following

  def drop(self, task: str) -> Row | None:
    """Forgets what is held of a task."""
    coming = self._coming.pop(task, None)
    if coming is not None:
      self._programmed.leave(coming)
    row = self._held.pop(task, None)
    if row is not None:
      self._released(row)
      if task not in self._waiting:
        self._asked.discard(task)
    return row

  def _ask(self, task: str, *, look: bool) -> None:
    if task not in self._asked and task not in self._read:
      self._asked.add(task, look=look)
      self._asked_for.notify()

  def _load(self) -> None:
    """A loader's thread."""
    while True:
      with self._lock:
        while not self._asked and not self._closed:
          self._asked_for.wait(self._idle(time.monotonic()))
        if self._closed:
          return
        task, begun = self._asked.take(), time.monotonic()
        self._read.add(task)
        held = self._held.get(task)
        if held is not None:
          held.looked = begun
        known = self._coming.get(task, held)
        anew = any(each.fresh for each in self._waiting.get(task, {}).values())
        refused = None if anew else self._refusals.of(task, begun)
      found: Row | Exception
      try:
        found = self._brought(task, known, refused, begun)
      # Whatever it is, it belongs to those who wait for this task.
      except Exception as error:
        found = error
      with self._lock:
        seconds = time.monotonic() - begun
        self._deliver(task, found, known, seconds=seconds)
        self._changed()

  def _idle(self, now: float) -> float | None:
    """Asks for the row at which nobody looked for longest, if that is long enough.

    Returns:
      seconds until the next one is due.
    """
    others = [row for row in self._held.values() if row.task not in self._read]
    if not others or not self._config.sweep_seconds:
      return None
    oldest = min(others, key=lambda row: row.looked)
    rest = oldest.looked + self._config.sweep_seconds - now
    if rest <= 0:
      self._asked.add(oldest.task, look=True)
    return max(rest, 0.0)

  def _brought(
    self, task: str, known: Row | None, refused: Refusal | None, begun: float
  ) -> Row:
    stamp = stamped(self._store, task)
    if known is not None and known.stamp == stamp:
      known.checked, known.outdated = begun, False
      return known
    if refused is not None and refused.stamp == stamp:
      raise bad(refused.error)
    self._outdate(task, known)
    try:
      return opened(self._store, task, self._kind_of, stamp=stamp, now=begun)
    except BadSubmodel as error:
      with self._lock:
        self._refusals.add(task, Refusal(stamp, bad(error), begun))
      raise

  def _outdate(self, task: str, known: Row | None) -> None:
    """There is a newer one: who waits for a look waits for that."""
    with self._lock:
      if known is not None:
        known.outdated = True
      latest = time.monotonic() + self._config.load_seconds
      for each in self._waiting.get(task, {}).values():
        each.deadline = latest

  def _deliver(
    self,
    task: str,
    found: Row | Exception,
    known: Row | None,
    *,
    seconds: float,
  ) -> None:
    self._read.discard(task)
    answers: Row | Exception | None = found
    self.answering = not isinstance(found, StoreGone)
    if isinstance(found, UnknownSpeaker):
      self.drop(task)
    elif isinstance(found, StoreGone):
      answers = self._held.get(task)
    elif isinstance(found, Row):
      if found is not known:
        self.loads += 1
        self.load_seconds += seconds
      answers = self._kept(found, known)
    for each in self._waiting.pop(task, {}).values():
      each.arrived(found if each.fresh else answers or found)
    if task in self._later:
      self._waiting.setdefault(task, {}).update(self._later.pop(task))
      self._ask(task, look=False)

  def _kept(self, found: Row, known: Row | None) -> Row:
    """What answers now: the row that the store has, or the one before it."""
    task, serves = found.task, self._programmed.serves
    held = self._held.get(task)
    if known is not None and held is None and task not in self._waiting:
      return found  # it was unloaded meanwhile
    if held is None or serves(found.kind) or not serves(held.kind):
      if found is not held:
        self._hold(found)
      return found
    if found is not held:
      self._expect(found)
    return held

  def _expect(self, row: Row) -> None:
    """Until its kind has programs the one that is held answers."""
    task, kind = row.task, row.kind
    assert kind is not None
    before = self._coming.get(task)
    if before is not None and before is not row:
      self._programmed.leave(before)
    self._coming[task] = row
    come = functools.partial(self._come, row)
    self._programmed.wait_for(row, kind, come, _still_held)

  def _come(self, row: Row) -> None:
    if self._coming.get(row.task) is row:
      self._hold(row)

  def _hold(self, row: Row) -> None:
    self.drop(row.task)
    self._held[row.task] = row
    over = len(self._held) - self._config.host_rows
    if over > 0:  # those on the device stay
      others = (task for task, each in self._held.items() if not each.slot)
      for task in [task for task in others if task != row.task][:over]:
        self.drop(task)


def _still_held(error: Exception) -> None:
  """The next look at the store asks for programs again."""
