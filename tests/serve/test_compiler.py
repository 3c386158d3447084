"""The compiler's thread by itself: which kinds are compiled, and which go."""

import contextlib
import itertools
import threading
import time
import types
from typing import ClassVar

import pytest
import serve_stores as stores

from hra.config import EngineConfig
from hra.serve.compiler import Compiler
from hra.serve.device import Device
from hra.serve.interface import BadSubmodel
from hra.serve.kinds import Kind
from hra.serve.programs import Sizes


def _kind(name):
  return Kind(hint=name, name=name, adapter=None, shared={}, outline={})


class _Programs:
  """In place of those that take a while."""

  bad: ClassVar[set[Kind]]
  """Kinds that don't compile, and `large` ones whose tables don't fit."""
  large: ClassVar[set[Kind]]
  gate = contextlib.nullcontext()

  def __init__(self, spoken, kinds, sizes, *, tick):
    with self.gate:
      self.kinds, self.sizes = tuple(kinds), sizes
    if self.bad & set(kinds):
      raise RuntimeError("no room for programs")
    tick()

  @staticmethod
  def count(kinds, sizes):
    return 1

  def empty(self, kind):
    if kind in self.large:
      raise RuntimeError("no room for a table")
    return {}


class _Store:
  """What `Listing` says."""

  def __init__(self, *kinds):
    self.of_kinds = list(kinds)
    self.answers = threading.Event()
    self.answers.set()
    self.gone = False

  def kinds(self, *, most):
    assert self.answers.wait(stores.TIMEOUT)
    return self.of_kinds[:most]

  def hints(self):
    assert self.answers.wait(stores.TIMEOUT)
    return None if self.gone else {kind.hint for kind in self.of_kinds}


class _Driven:
  """A compiler, and a device that adopts what it makes."""

  def __init__(self, store, **changes):
    self.lock = threading.RLock()
    self.needed = set()
    self.device = Device()
    self.compiler = Compiler(
      None,
      Sizes((1,), (1,), 2),
      EngineConfig(**changes),
      store,
      self.device,
      needed=lambda: self.needed,
      lock=self.lock,
      changed=lambda: None,
    )
    self.compiler.thread.start()

  def adopt(self):
    with self.lock:
      made = self.compiler.made
      if made is not None and made is not self.device.made:
        self.device.adopt(made)
      self.compiler.look_again()
    return made is not None

  def start(self, kind):
    """Waits for a kind; a list that gets True, or why not."""
    said = []
    with self.lock:
      self.compiler.wait_for(
        said.append, kind, lambda: said.append(True), said.append
      )
    return said

  def ask(self, kind):
    said = self.start(kind)
    until(lambda: self.adopt() and said)
    (found,) = said
    return found

  @property
  def kinds(self):
    return set(self.device.kinds)

  def close(self):
    with self.lock:
      self.compiler.close()
    self.compiler.thread.join(stores.TIMEOUT)
    assert not self.compiler.thread.is_alive()


def until(holds):
  end = time.monotonic() + 20
  while not holds():
    assert time.monotonic() < end
    time.sleep(0.001)


@pytest.fixture(autouse=True)
def programs(monkeypatch):
  made = type("Made", (_Programs,), {"bad": set(), "large": set()})
  monkeypatch.setattr("hra.serve.compiler.Programs", made)
  return made


@pytest.fixture
def driven_of():
  made = []

  def make(store, *, ready=True, **changes):
    driven = _Driven(store, **changes)
    made.append(driven)
    if ready:
      until(driven.adopt)
    return driven

  yield make
  for driven in made:
    driven.close()


def test_kinds_that_nobody_needs_go_when_the_next_is_compiled(driven_of):
  first, held, stored, new = map(_kind, "abcd")
  store = _Store(first, held, stored)
  driven = driven_of(store, kinds=3)
  assert driven.kinds == {first, held, stored}
  store.of_kinds = [stored, new]
  driven.needed = {held, None}
  tables = dict(driven.device.made.tables)
  assert driven.ask(new) is True
  assert driven.kinds == {held, stored, new}
  for kind in (held, stored):
    assert driven.device.made.tables[kind] is tables[kind]


def test_as_many_trainings_as_there_may_be(driven_of):
  """Each is republished in the place of the one before."""
  kinds = [_kind(str(number)) for number in range(9)]
  store = _Store(kinds[0])
  driven = driven_of(store, kinds=1)
  for before, kind in itertools.pairwise(kinds):
    store.of_kinds, driven.needed = [kind], {before}
    assert driven.ask(kind) is True
    assert driven.kinds == {before, kind}
  another = _kind("another")
  driven.needed = {before, kind}
  store.of_kinds = [another]
  assert isinstance(driven.ask(another), BadSubmodel)  # one by one


def test_one_kind_too_many_is_refused_until_there_is_room(driven_of):
  first, second, new = map(_kind, "abc")
  store = _Store(first, second)
  driven = driven_of(store, kinds=2, retry_seconds=0.2)
  store.of_kinds = [first, second, new]
  begun = time.monotonic()
  for _ in range(2):
    refusal = driven.ask(new)
    assert isinstance(refusal, BadSubmodel)
    assert "one of 2 adapters" in str(refusal)
  store.of_kinds = [first, new]
  assert isinstance(driven.ask(new), BadSubmodel) or (
    time.monotonic() - begun > 0.2
  )
  time.sleep(0.2)
  assert driven.ask(new) is True
  assert driven.kinds == {first, new}


def test_where_the_store_says_nothing_no_more_go_than_have_to(driven_of):
  kinds = [_kind(name) for name in "abc"]
  late, held, old = kinds
  store = _Store(*kinds)
  driven = driven_of(store, kinds=3)
  for place, kind in enumerate((held, old, late)):
    driven.device.made.tables[kind].used = float(place)
  store.gone = True
  driven.needed = {held}
  new, last = _kind("d"), _kind("e")
  assert driven.ask(new) is True
  assert driven.kinds == {held, late, new}
  driven.needed = {held, late, new}
  assert isinstance(driven.ask(last), BadSubmodel)


def test_a_kind_that_goes_is_not_served_from_then_on(
  driven_of, programs, monkeypatch
):
  old, new = map(_kind, "ab")
  driven = driven_of(_Store(old))
  assert driven.compiler.serves(old)
  driven.compiler._listed.of_kinds = []
  gate = threading.Semaphore(0)
  monkeypatch.setattr(programs, "gate", gate)
  programs.bad.add(new)
  failing = driven.start(new)
  until(lambda: not driven.compiler.serves(old))
  assert driven.kinds == {old}
  back = driven.start(old)
  gate.release()
  until(lambda: failing)
  driven.adopt()
  assert back == [True]  # what was to come in its place did not
  programs.bad.clear()
  other = _kind("c")
  coming = driven.start(other)
  until(lambda: not driven.compiler.serves(old))
  back = driven.start(old)
  gate.release()
  until(lambda: driven.compiler.made is not driven.device.made)
  assert not driven.compiler.serves(old)
  driven.adopt()
  assert (coming, back) == ([True], [])
  assert driven.kinds == {other}
  gate.release()
  until(lambda: driven.adopt() and back)
  assert back == [True]


def test_who_waits_for_a_kind_needs_it(driven_of, programs, monkeypatch):
  old, new = map(_kind, "ab")
  driven = driven_of(_Store())
  gate = threading.Semaphore(1)
  monkeypatch.setattr(programs, "gate", gate)
  waits = driven.start(old)
  until(lambda: driven.compiler.made is not driven.device.made)
  coming = driven.start(new)  # what there is by now isn't adopted yet
  gate.release()
  until(lambda: driven.compiler.made.programs.kinds == (old, new))
  driven.adopt()
  assert (waits, coming) == ([True], [True])


@pytest.mark.parametrize("way", ["bad", "large"])
def test_kinds_that_dont_fit_together_come_one_by_one(way, driven_of, programs):
  first, bad, last = map(_kind, "abc")
  getattr(programs, way).add(bad)
  driven = driven_of(_Store(first, bad, last), retry_seconds=0.2)
  until(lambda: driven.adopt() and driven.kinds == {first, last})
  begun = time.monotonic()
  said = driven.ask(bad)
  assert isinstance(said, BadSubmodel) or time.monotonic() - begun > 0.2
  assert "no room for" in str(said)
  assert driven.compiler.error is None
  getattr(programs, way).clear()
  time.sleep(0.2)
  assert driven.ask(bad) is True
  assert driven.kinds == {first, bad, last}


def test_no_programs_at_all_are_an_error(driven_of, monkeypatch):
  monkeypatch.setattr(_Programs, "count", staticmethod(lambda *_: 1 / 0))
  driven = driven_of(_Store(_kind("a")), ready=False)
  until(lambda: driven.compiler.error)
  assert isinstance(driven.compiler.error, ZeroDivisionError)
  assert driven.compiler.made is None


def test_a_store_that_hangs_or_fails_keeps_nobody_from_starting(
  driven_of, monkeypatch
):
  kind = _kind("a")
  store = _Store(kind)
  store.answers.clear()
  driven = driven_of(store, listing_seconds=0.01)
  assert driven.kinds == set()
  assert driven.ask(kind) is True
  store.answers.set()
  monkeypatch.setattr(store, "kinds", lambda **_: 1 / 0)
  assert driven_of(store).kinds == set()


def test_close_waits_for_no_store(driven_of):
  store = _Store(_kind("a"))
  store.answers.clear()
  begun = time.monotonic()
  driven_of(store, ready=False).close()
  assert time.monotonic() - begun < 10
  store.answers.set()


def test_who_leaves_is_kept_nowhere(driven_of):
  driven = driven_of(_Store())
  store = driven.compiler._listed
  store.answers.clear()
  owner = object()
  with driven.lock:
    driven.compiler.wait_for(owner, _kind("a"), None, None)
    driven.compiler.leave(owner)
    driven.compiler.leave(types.SimpleNamespace)
    assert not driven.compiler._pending
  store.answers.set()
