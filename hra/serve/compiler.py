"""The thread that compiles: at start-up, and when a new kind of Submodel appears.

What is served goes on meanwhile by the programs that there are.
"""

import itertools
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator

from tqdm import tqdm

from hra.errors import InputError
from hra.evaluate.groups import Grouping
from hra.serve.interface import BadSubmodel
from hra.serve.kinds import Kind, Kinds
from hra.serve.programs import Programs, Sizes, Spoken
from hra.serve.rows import Shelf

_TRIES = 4
"""Submodels that are opened to know one kind: some may be damaged."""


_Pending = tuple[Kind, Callable[[], None], Callable[[Exception], None]]
"""A kind that somebody waits for: how they go on, or fail."""


class Compiler:
  """Its state changes under the engine's lock, which callers hold."""

  def __init__(
    self,
    spoken: Spoken,
    sizes: Sizes,
    *,
    first: Iterable[Kind],
    lock: threading.RLock,
    changed: Callable[[], None],
  ):
    """
    Args:
      first: kinds of start-up, found in the thread itself.
      changed: called when there is something new.
    """
    self.made: Programs | None = None
    """The newest."""
    self.error: Exception | None = None
    """Why there are none."""
    self.thread = threading.Thread(
      target=self._work, name="compiler", daemon=True
    )
    self._spoken, self._sizes, self._first = spoken, sizes, first
    self._lock, self._wanted = lock, threading.Condition(lock)
    self._changed = changed
    self._pending: list[_Pending] = []
    self._failed: dict[Kind, Exception] = {}
    self._closed = False

  def wait_for(
    self,
    kind: Kind,
    go_on: Callable[[], None],
    fail: Callable[[Exception], None],
  ) -> None:
    """Until `look_again` finds it compiled, which calls `go_on`, or not."""
    self._pending.append((kind, go_on, fail))
    self._wanted.notify()
    self._changed()

  def look_again(self, kinds: Collection[Kind]) -> None:
    """Lets go on who waits for one of these kinds, or for one that failed."""
    pending, self._pending = self._pending, []
    for kind, go_on, fail in pending:
      if kind in self._failed:
        fail(_not_compiled(self._failed[kind]))
      elif kind in kinds:
        go_on()
      else:
        self._pending.append((kind, go_on, fail))

  def close(self) -> None:
    """What is being compiled is finished, and no more."""
    self._closed = True
    self._wanted.notify()

  def _work(self) -> None:
    try:
      made: Programs | None = self._compiled(list(self._first))
    except _Stopped:
      return
    # Whatever it is, `ready` and requests say it.
    except Exception as error:
      with self._lock:
        self.error = error
        self._changed()
      return
    while made is not None:
      with self._lock:
        self.made = made
        self._changed()
      made = self._next(made)

  def _next(self, made: Programs) -> Programs | None:
    """With a kind more that is wanted; None where no more is to come."""
    while True:
      with self._lock:
        while not self._closed and not self._missing(made):
          self._wanted.wait()
        if self._closed:
          return None
        kind = self._missing(made)[0]
      try:
        return self._compiled([*made.kinds, kind])
      except _Stopped:
        return None
      # Those who wait for this kind hear of it; the others are served.
      except Exception as error:
        with self._lock:
          self._failed[kind] = error
          self._changed()

  def _missing(self, made: Programs) -> list[Kind]:
    known = {*made.kinds, *self._failed}
    return [kind for kind, *_ in self._pending if kind not in known]

  def _compiled(self, kinds: list[Kind]) -> Programs:
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
      return Programs(self._spoken, kinds, self._sizes, tick=tick)


def _not_compiled(error: Exception) -> BadSubmodel:
  return BadSubmodel(
    "Submodel",
    expected="a kind that compiles beside the others",
    got=f"{type(error).__name__}: {error}",
  )


class _Stopped(Exception):
  """The engine is closed: nobody needs what is being compiled."""


def kinds_in(
  store: Shelf, grouping: Grouping, kinds: Kinds, *, most: int
) -> Iterator[Kind]:
  """The most frequent kinds of a store, by its index and one Submodel of each."""
  try:
    entries, _ = store.listing()
  except (InputError, OSError):  # it may come later, and so do its kinds
    return
  own = grouping.stored.fingerprint
  members: dict[str, list[str]] = {}
  for entry in entries:
    made_for, family = (
      entry.kind.backbone_fingerprint,
      entry.kind.adapter.family,
    )
    if made_for == own and family not in _WITHOUT:
      members.setdefault(repr(entry.kind), []).append(entry.task)
  often = sorted(members.values(), key=len, reverse=True)
  found: list[Kind] = []
  for tasks in itertools.islice(often, most):
    for task in tasks[:_TRIES]:
      try:
        kind_of = kinds.of(store[task])
      except (InputError, OSError, KeyError):
        continue
      if kind_of is not None and kind_of not in found:
        found.append(kind_of)
        yield kind_of
      break


_WITHOUT = ("none", "full")
"""Families that have no slots."""
