"""The thread that compiles: at start-up, and when a new kind of Submodel appears.

What is served goes on meanwhile by the programs that there are. Kinds that nobody
needs are left out of the next ones: no row that is held, no request, and nothing in
the store. From when that is decided on, nobody is served by them.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Hashable
from typing import NamedTuple, Protocol, TypeVar

from tqdm import tqdm

from hra.config import EngineConfig
from hra.serve.device import Device
from hra.serve.endings import bad
from hra.serve.interface import BadSubmodel
from hra.serve.kinds import Kind
from hra.serve.programs import Programs, Sizes, Spoken
from hra.serve.tables import Made, made

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)


class Listed(Protocol):
  """What a store holds (`hra.serve.listing`)."""

  def hints(self) -> set[str] | None: ...

  def kinds(self, *, most: int) -> list[Kind]: ...


class _Pending(NamedTuple):
  """Somebody who waits for a kind: how they go on, or fail."""

  kind: Kind
  go_on: Callable[[], None]
  fail: Callable[[Exception], None]


class _Failure(NamedTuple):
  error: BadSubmodel
  until: float
  """When it may be tried again."""


class Compiler:
  """Its state changes under the engine's lock, which callers hold."""

  def __init__(
    self,
    spoken: Spoken,
    sizes: Sizes,
    config: EngineConfig,
    listed: Listed,
    device: Device,
    *,
    needed: Callable[[], set[Kind | None]],
    lock: threading.RLock,
    changed: Callable[[], None],
  ):
    """
    Args:
      needed: kinds that can't be left out, whatever the store holds; the lock is
        held.
      changed: called when there is something new.
    """
    self.made: Made | None = None
    """The newest."""
    self.error: Exception | None = None
    """Why there is nothing."""
    self.thread = threading.Thread(
      target=self._work, name="compiler", daemon=True
    )
    self._spoken, self._sizes, self._config = spoken, sizes, config
    self._listed, self._device, self._needed = listed, device, needed
    self._lock, self._wanted = lock, threading.Condition(lock)
    self._changed = changed
    self._pending: dict[Hashable, _Pending] = {}
    self._wished: list[Kind] = []
    """Of start-up, that didn't compile together."""
    self._staying: frozenset[Kind] = frozenset()
    """Those of the newest that the next ones have, too."""
    self._failed: dict[Kind, _Failure] = {}
    self._closed = False

  def serves(self, kind: Kind | None) -> bool:
    """Whether the device may hear it now, and goes on to."""
    return kind is None or (
      kind in self._staying and kind in self._device.kinds
    )

  def wait_for(
    self,
    owner: Hashable,
    kind: Kind,
    go_on: Callable[[], None],
    fail: Callable[[Exception], None],
  ) -> None:
    """Until `look_again` finds it compiled, which calls `go_on`, or it fails.

    Args:
      owner: who may `leave`, and waits once.
    """
    failure = self._failed.get(kind)
    if failure is not None and time.monotonic() < failure.until:
      fail(bad(failure.error))
      return
    self._pending[owner] = _Pending(kind, go_on, fail)
    self._wanted.notify()

  def leave(self, owner: Hashable) -> None:
    """Somebody waits no more, who may not have waited."""
    self._pending.pop(owner, None)

  def look_again(self) -> None:
    """Lets go on who waits for a kind that is served by now."""
    for owner, each in list(self._pending.items()):
      if self.serves(each.kind) and owner in self._pending:
        del self._pending[owner]
        each.go_on()

  def close(self) -> None:
    """What is being compiled is finished, and no more."""
    self._closed = True
    self._wanted.notify()

  def _work(self) -> None:
    try:
      newest: Made | None = self._start()
    except _Stopped:
      return
    # Whatever it is, `ready` and requests say it.
    except Exception as error:
      with self._lock:
        self.error = error
        self._changed()
      return
    while newest is not None:
      with self._lock:
        self.made = newest
        self._staying = frozenset(newest.programs.kinds)
        self._changed()
      newest = self._next(newest)

  def _start(self) -> Made:
    """With the store's kinds; where they don't compile together, with none yet."""
    most = self._config.kinds
    kinds = self._asked(lambda: self._listed.kinds(most=most)) or []
    try:
      return self._compiled(kinds, None)
    except _Stopped:
      raise
    # The backbone alone may do; one kind after the other is tried then.
    except Exception as error:
      if not kinds:
        raise
      _LOG.warning("%d kinds don't compile together: %r", len(kinds), error)
    with self._lock:
      self._wished = kinds
    return self._compiled([], None)

  def _next(self, newest: Made) -> Made | None:
    """With a kind more that is wanted; None where no more is to come."""
    while True:
      with self._lock:
        while (kind := self._missing(newest)) is None and not self._closed:
          self._wanted.wait()
        if self._closed or kind is None:
          return None
      try:
        return self._compiled([*self._kept(newest, kind), kind], newest)
      except _Stopped:
        return None
      # Those who wait for this kind hear of it; the others are served.
      except Exception as error:
        with self._lock:
          self._staying = frozenset(newest.programs.kinds)
          self._fail(kind, error)

  def _missing(self, newest: Made) -> Kind | None:
    """One that somebody waits for, else one of start-up."""
    wanted = [each.kind for each in self._pending.values()]
    have = newest.programs.kinds
    self._wished = [kind for kind in self._wished if kind not in have]
    for kind in (*wanted, *self._wished):
      if kind not in have:
        return kind
    return None

  def _kept(self, newest: Made, kind: Kind) -> list[Kind]:
    """Kinds that stay, so that one more may come.

    Those that are held and that the store has no more, as after another training,
    are beyond what there may be, up to as many again. Where the store doesn't say
    what it holds, no more go than have to: those that were used longest ago.

    Raises:
      BadSubmodel: there is no room.
    """
    hints, most = self._asked(self._listed.hints), self._config.kinds
    with self._lock:
      have = newest.programs.kinds
      needed = self._needed() | {each.kind for each in self._pending.values()}
      idle = [each for each in have if each not in needed]
      idle.sort(key=lambda each: newest.tables[each].used)
      if hints is None:
        gone = idle[: max(len(have) + 1 - most, 0)]
      else:
        gone = [each for each in idle if each.hint not in hints]
      kept = [each for each in have if each not in gone]
      known = {each.hint for each in kept} if hints is None else hints
      replaced = sum(each.hint not in known for each in kept)
      if len(kept) - min(replaced, most) >= most:
        raise BadSubmodel(
          "Submodel",
          expected=f"one of {most} adapters and sets of shared parameters",
          got="another",
          fix="let an engine of its own serve it, or allow more kinds",
        )
      self._staying = frozenset(kept)
      return kept

  def _fail(self, kind: Kind, error: Exception) -> None:
    """Tells those who wait for a kind, and whoever asks for it soon."""
    _LOG.warning("a kind of Submodels can't be served: %r", error)
    now = time.monotonic()
    told = error if isinstance(error, BadSubmodel) else _not_compiled(error)
    lasting = {k: each for k, each in self._failed.items() if now < each.until}
    failure = _Failure(bad(told), now + self._config.retry_seconds)
    self._failed = lasting | {kind: failure}
    self._wished = [each for each in self._wished if each is not kind]
    for owner, each in list(self._pending.items()):
      if each.kind is kind and owner in self._pending:
        del self._pending[owner]
        each.fail(bad(told))
    self._changed()

  def _compiled(self, kinds: list[Kind], before: Made | None) -> Made:
    total = Programs.count(len(kinds), self._sizes)
    bar = tqdm(
      total=total,
      desc="compiling",
      unit="program",
      file=sys.stderr,
      leave=False,
    )

    def tick() -> None:
      bar.update()
      if self._closed:
        raise _Stopped

    with bar:
      programs = Programs(self._spoken, kinds, self._sizes, tick=tick)
    return made(programs, before)

  def _asked(self, ask: Callable[[], _T]) -> _T | None:
    """What the store says; None where it says nothing in time.

    Raises:
      _Stopped: the engine is closed meanwhile.
    """
    said: list[_T | None] = []

    def run() -> None:
      try:
        found: _T | None = ask()
      # The store's own trouble; who asks for its Submodels hears of it.
      except Exception as error:
        _LOG.warning("the store can't be listed: %r", error)
        found = None
      with self._lock:
        said.append(found)
        self._wanted.notify()

    threading.Thread(target=run, name="listing", daemon=True).start()
    with self._lock:
      self._wanted.wait_for(
        lambda: said or self._closed, self._config.listing_seconds
      )
      if self._closed:
        raise _Stopped
      return said[0] if said else None


def _not_compiled(error: Exception) -> BadSubmodel:
  return BadSubmodel(
    "Submodel",
    expected="a kind that compiles beside the others",
    got=f"{type(error).__name__}: {error}",
  )


class _Stopped(Exception):
  """The engine is closed: nobody needs what is being compiled."""
