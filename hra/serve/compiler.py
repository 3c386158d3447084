"""The thread that compiles: at start-up, and when a new kind of Submodel appears.

What is served goes on meanwhile by the programs that there are.
"""

import itertools
import sys
import threading
from collections.abc import Iterable, Iterator

from tqdm import tqdm

from hra.errors import InputError
from hra.evaluate.groups import Grouping
from hra.serve.kinds import Kind, Kinds
from hra.serve.programs import Programs, Sizes, Spoken
from hra.serve.rows import Shelf

_TRIES = 4
"""Submodels that are opened to know one kind: some may be damaged."""


class Compiler:
  """Its state changes under the engine's lock."""

  def __init__(
    self,
    spoken: Spoken,
    sizes: Sizes,
    *,
    first: Iterable[Kind],
    changed: threading.Condition,
  ):
    """
    Args:
      first: kinds of start-up, found in the thread itself.
    """
    self.made: Programs | None = None
    """The newest."""
    self.failed: dict[Kind, Exception] = {}
    self.error: Exception | None = None
    """Why there are none."""
    self.thread = threading.Thread(
      target=self._work, name="compiler", daemon=True
    )
    self._spoken, self._sizes, self._first = spoken, sizes, first
    self._changed = changed
    self._wanted: list[Kind] = []
    self._closed = False

  def want(self, kind: Kind) -> None:
    """The lock is held."""
    if kind not in self._wanted:
      self._wanted.append(kind)
      self._changed.notify_all()

  def close(self) -> None:
    """The lock is held; what is being compiled is finished and no more."""
    self._closed = True
    self._changed.notify_all()

  def _work(self) -> None:
    try:
      kinds = list(self._first)
      made: Programs | None = self._compiled(kinds)
    except _Stopped:
      return
    # Whatever it is, `ready` and requests say it.
    except Exception as error:
      with self._changed:
        self.error = error
        self._changed.notify_all()
      return
    while made is not None:
      with self._changed:
        self.made = made
        self._changed.notify_all()
      made = self._next(made)

  def _next(self, made: Programs) -> Programs | None:
    """With what is wanted on top; None where no more is to come."""
    while True:
      with self._changed:
        while not self._closed and not self._new(made):
          self._changed.wait()
        if self._closed:
          return None
        kind = self._new(made)[0]
      try:
        return self._compiled([*made.kinds, kind])
      except _Stopped:
        return None
      except Exception as error:  # those who wait for this kind hear of it
        with self._changed:
          self.failed[kind] = error
          self._changed.notify_all()

  def _new(self, made: Programs) -> list[Kind]:
    known = {*made.kinds, *self.failed}
    return [kind for kind in self._wanted if kind not in known]

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


class _Stopped(Exception):
  """The engine is closed: nobody needs what is being compiled."""


def kinds_in(
  store: Shelf, grouping: Grouping, kinds: Kinds, *, most: int
) -> Iterator[Kind]:
  """The most frequent kinds of a store, by its index and one Submodel of each."""
  try:
    entries = list(store.entries())
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
