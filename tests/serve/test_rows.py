"""Rows by themselves: who waits for what, and what a loader does next."""

import gc
import threading
import time
import types
import weakref

import pytest
import serve_stores as stores

from hra.config import EngineConfig
from hra.errors import InputError
from hra.serve.interface import BadSubmodel, StoreGone, UnknownSpeaker
from hra.serve.rows import Rows


class _Kind:
  def cast(self, row):
    return row


class _Programmed:
  """`A` has programs from the start."""

  def __init__(self):
    self.ready, self.pending, self.asked = {A}, {}, 0
    self.failing = False

  def serves(self, kind):
    return kind is None or kind in self.ready

  def wait_for(self, owner, kind, go_on, fail):
    self.asked += 1
    if self.failing:
      fail(BadSubmodel("a kind", expected="room", got="none"))
    else:
      self.pending[owner] = kind, go_on

  def leave(self, owner):
    self.pending.pop(owner, None)

  def adopt(self, kind):
    self.ready.add(kind)
    for owner, (own, go_on) in list(self.pending.items()):
      if own is kind:
        del self.pending[owner]
        go_on()


A, B = _Kind(), _Kind()


def _made(task, version=1, kind=A):
  return types.SimpleNamespace(
    task=task,
    version=version,
    fingerprint=f"{task} {version}",
    worse_than_backbone=False,
    kind=kind,
    row={},
  )


class _Asker:
  """Rows, and what arrives of them."""

  def __init__(self, shelf, **changes):
    self.lock = threading.RLock()
    self.programmed = _Programmed()
    self.released = []
    config = {"loaders": 1, "refresh_seconds": 0.0, "check_seconds": 60.0}
    self.rows = Rows(
      shelf,
      lambda submodel: submodel.kind,
      EngineConfig(**config | changes),
      self.programmed,
      lock=self.lock,
      changed=lambda: None,
      released=self.released.append,
    )
    for thread in self.rows.threads:
      thread.start()

  def start(self, task, *, fresh=False, owner=None):
    """Asks; a list that gets what arrives."""
    found = []
    with self.lock:
      own = owner or found.append
      row = self.rows.want(task, found.append, owner=own, fresh=fresh)
      if row is not None:
        found.append(row)
    return found

  def ask(self, task, *, fresh=False):
    found = self.start(task, fresh=fresh)
    until(lambda: found)
    if isinstance(found[0], Exception):
      raise found[0]
    return found[0]

  def expire(self):
    with self.lock:
      return self.rows.expire(time.monotonic())

  def drop(self, task):
    with self.lock:
      return self.rows.drop(task)

  def idle(self):
    return not (self.rows._read or self.rows._asked)

  def close(self):
    with self.lock:
      self.rows.close()
    for thread in self.rows.threads:
      thread.join(stores.TIMEOUT)
      assert not thread.is_alive()


def until(holds):
  end = time.monotonic() + 20
  while not holds():
    assert time.monotonic() < end
    time.sleep(0.001)


@pytest.fixture
def asker_of():
  made = []

  def make(shelf, **changes):
    made.append((_Asker(shelf, **changes), shelf))
    return made[-1][0]

  yield make
  for asker, shelf in made:
    shelf.slow.clear()
    shelf.reading.clear()
    asker.close()


@pytest.mark.parametrize("many", ["looks", "reads"])
def test_looks_and_reads_take_turns(many, asker_of):
  """Those of one sort are asked for anew without end."""
  shelf = stores.Shelf(*(_made(f"p{i}") for i in range(9)))
  asker = asker_of(shelf)
  asker.ask("p8")
  if many == "looks":
    for i in range(8):
      asker.ask(f"p{i}")
    asker.drop("p8")
  going = True

  def again(task):
    def arrived(found):
      if going:
        want(task)

    return arrived

  def want(task):
    asker.rows.want(task, again(task), owner=object(), fresh=many == "reads")

  shelf.slow.set()
  with asker.lock:
    for i in range(8):
      want(f"p{i}")
  until(lambda: asker.rows._read)
  found = asker.start("p8")
  before = len(shelf.looks)
  shelf.slow.clear()
  until(lambda: found)
  going = False
  after = shelf.looks[before:]
  assert after.index("p8") < 3
  assert found[0].task == "p8"


def test_nothing_is_kept_of_who_leaves(asker_of):
  shelf = stores.Shelf(_made("p0"))
  asker = asker_of(shelf)
  shelf.slow.set()

  class Owner:
    def arrived(self, found):
      raise AssertionError

  gc.disable()
  try:
    for fresh in (False, True):
      owner = Owner()
      gone = weakref.ref(owner)
      with asker.lock:
        asker.rows.want("p0", owner.arrived, owner=owner, fresh=fresh)
      until(lambda: asker.rows._read)
      with asker.lock:
        asker.rows.leave("p0", owner)
      del owner
      assert gone() is None
  finally:
    gc.enable()
  shelf.slow.clear()
  until(asker.idle)


def test_names_that_nobody_waits_for_are_not_asked_for(asker_of):
  shelf = stores.Shelf(_made("p0"))
  asker = asker_of(shelf, load_seconds=0.01)
  shelf.slow.set()
  late = [asker.start(f"x{i}") for i in range(50)]
  until(lambda: asker.expire() and all(late))
  assert all(isinstance(found, StoreGone) for (found,) in late)
  assert not asker.rows._waiting
  assert not asker.rows._asked
  owner = object()
  asker.start("left", owner=owner)
  with asker.lock:
    asker.rows.leave("left", owner)
  shelf.slow.clear()
  assert asker.ask("p0").version == 1
  assert set(shelf.looks) == {"x0", "p0"}


@pytest.mark.parametrize("waited", [False, True])
def test_one_that_is_unloaded_during_a_look_stays_away(waited, asker_of):
  shelf = stores.Shelf(_made("p0"))
  asker = asker_of(shelf, check_seconds=0.01)
  row = asker.ask("p0")
  shelf.slow.set()
  found = asker.start("p0")
  until(lambda: asker.expire() and found)
  assert found == [row]
  assert asker.drop("p0") is row
  again = asker.start("p0") if waited else []
  shelf.slow.clear()
  until(asker.idle)
  assert len(asker.rows) == waited
  assert len(again) == waited


def test_one_that_is_unloaded_before_a_look_stays_away(asker_of):
  shelf = stores.Shelf(_made("p0"), _made("p1"))
  asker = asker_of(shelf, check_seconds=0.01)
  asker.ask("p0")
  shelf.slow.set()
  asker.start("p1")
  until(lambda: asker.rows._read)  # the one loader is busy
  found = asker.start("p0")
  until(lambda: asker.expire() and found)
  asker.drop("p0")
  shelf.slow.clear()
  until(lambda: asker.idle() and len(asker.rows))
  assert shelf.looks == ["p0", "p1"]


def test_no_sweep_is_no_look(asker_of):
  shelf = stores.Shelf(_made("p0"))
  asker = asker_of(shelf, sweep_seconds=0)
  asker.ask("p0")
  time.sleep(0.05)
  assert len(shelf.looks) == 1


def test_a_damaged_one_is_read_once_in_a_while(asker_of):
  shelf = stores.Shelf(_made("p0"))
  shelf.bad["p0"] = InputError("p0", expected="a whole file", got="a part")
  asker = asker_of(shelf, refresh_seconds=0.3)
  begun = time.monotonic()
  for _ in range(5):
    with pytest.raises(BadSubmodel, match="a whole file"):
      asker.ask("p0")
  assert len(shelf.reads) == 1 or time.monotonic() - begun > 0.3
  with pytest.raises(BadSubmodel):
    asker.ask("p0", fresh=True)
  assert len(shelf.reads) == 2 or time.monotonic() - begun > 0.3
  reads = len(shelf.reads)
  time.sleep(0.3)
  with pytest.raises(BadSubmodel):
    asker.ask("p0")
  assert len(shelf.reads) == reads + 1
  shelf.bad.clear()
  shelf.put(_made("p0", 2))  # at once
  assert asker.ask("p0").version == 2


def test_refusals_are_bounded(asker_of):
  shelf = stores.Shelf(*(_made(f"p{i}") for i in range(3)))
  for i in range(3):
    shelf.bad[f"p{i}"] = InputError("p", expected="a whole file", got="a part")
  asker = asker_of(shelf, refresh_seconds=60, host_rows=2)
  for task in ("p0", "p1", "p2", "p2", "p1", "p0"):
    with pytest.raises(BadSubmodel):
      asker.ask(task)
  assert shelf.reads == ["p0", "p1", "p2", "p0"]


def test_who_was_asked_for_last_is_held_longest(asker_of):
  shelf = stores.Shelf(*(_made(f"p{i}") for i in range(3)))
  asker = asker_of(shelf, host_rows=2, refresh_seconds=60)
  for task in ("p0", "p1", "p0", "p2", "p0"):
    asker.ask(task)
  assert shelf.reads == ["p0", "p1", "p2"]


def test_a_load_that_is_late_is_not_told_of_what_is_held(asker_of):
  shelf = stores.Shelf(_made("p0"))
  asker = asker_of(shelf, load_seconds=0.01)
  asker.ask("p0")
  shelf.slow.set()
  found = asker.start("p0", fresh=True)
  until(lambda: asker.expire() and found)
  assert isinstance(found[0], StoreGone)


def test_the_held_one_answers_until_a_new_kind_has_programs(asker_of):
  shelf = stores.Shelf(_made("p0"))
  asker = asker_of(shelf)
  first = asker.ask("p0")
  shelf.put(_made("p0", 2, B))
  for _ in range(3):
    assert asker.ask("p0") is first
  assert len(shelf.reads) == 2  # each once
  assert asker.rows.kinds() == {A, B}
  newest = asker.ask("p0", fresh=True)
  assert newest.version == 2
  assert not asker.rows.current(newest)
  assert not asker.released
  with asker.lock:
    asker.programmed.adopt(B)
  assert asker.released == [first]
  assert asker.ask("p0") is newest
  assert asker.rows.kinds() == {B}


def test_what_is_to_come_is_looked_at_once_in_a_while(asker_of):
  shelf = stores.Shelf(_made("p0"))
  asker = asker_of(shelf, refresh_seconds=60)
  first = asker.ask("p0")
  shelf.put(_made("p0", 2, B))
  first.checked -= 100
  assert asker.ask("p0") is first
  shelf.slow.set()
  assert asker.start("p0") == [first]
  assert len(shelf.looks) == 2


def test_a_kind_that_fails_is_asked_for_again_at_the_next_look(asker_of):
  shelf = stores.Shelf(_made("p0"))
  asker = asker_of(shelf)
  first = asker.ask("p0")
  asker.programmed.failing = True
  shelf.put(_made("p0", 2, B))
  for _ in range(3):
    assert asker.ask("p0") is first
  assert asker.programmed.asked == 3
  assert len(shelf.reads) == 2
  asker.programmed.failing = False
  assert asker.ask("p0") is first
  with asker.lock:
    asker.programmed.adopt(B)
  assert asker.ask("p0").version == 2


def test_what_is_to_come_goes_with_who_leaves_and_by_newer_ones(asker_of):
  shelf = stores.Shelf(_made("p0"), _made("p1"))
  asker = asker_of(shelf)
  for task in ("p0", "p1"):
    asker.ask(task)
    shelf.put(_made(task, 2, B))
    asker.ask(task)
  assert len(asker.programmed.pending) == 2
  shelf.put(_made("p0", 3))
  assert asker.ask("p0").version == 3
  shelf.delete("p1")
  with pytest.raises(UnknownSpeaker):
    asker.ask("p1")
  assert not asker.programmed.pending
  with asker.lock:
    asker.programmed.adopt(B)
  assert asker.ask("p0").version == 3
  assert asker.rows.kinds() == {A}
