"""Requests that aren't answered: cancelled, refused, left behind, failed."""

import gc
import threading
import time
import weakref
from concurrent.futures import CancelledError, wait

import numpy as np
import pytest
import serve_stores as stores

from hra.errors import InputError
from hra.serve.interface import (
  Closed,
  Failed,
  Overloaded,
  Request,
  TooLong,
  UnknownSpeaker,
)


def _ask(engine, *request):
  return engine.submit(Request(*request)).result(stores.TIMEOUT)


@pytest.fixture
def held(engine_of, people, waves, monkeypatch):
  """An engine whose device is held in a batch, and that batch's request."""

  def make(**changes):
    engine = engine_of(stores.Shelf(*people), **changes)
    gate = stores.Gate(engine, monkeypatch)
    first = engine.submit(Request(waves[0], None))
    gate.arrive()
    return engine, gate, first

  return make


def test_who_cancels_is_never_heard(held, people, waves, offline):
  engine, gate, first = held()
  futures = [engine.submit(Request(waves[0], f"p{i % 3}")) for i in range(12)]
  gone = futures[::2]
  assert all(future.cancel() for future in gone)
  wait(gone, timeout=1)
  assert engine.figures()["requests_waiting"] == 6
  gate.open()
  for i, future in enumerate(futures):
    if i % 2:
      assert future.result(stores.TIMEOUT).text == offline(
        waves[0], people[i % 3]
      )
    else:
      with pytest.raises(CancelledError):
        future.result(0)
  heard = {item.job.future for items in gate.heard for item in items}
  assert not heard & set(gone)
  assert first.result().receipt.reason == "asked"


def test_who_cancels_in_a_batch_or_between_pieces_disturbs_nobody(
  held, people, waves, offline
):
  engine, gate, first = held()
  long = engine.submit(Request(stores.wave(40, 3), "p1"))
  other = engine.submit(Request(waves[1], "p2"))
  assert first.cancel()
  gate.open()
  while len(gate.heard) < 3:
    time.sleep(0.001)
  assert long.cancel()
  assert other.result(stores.TIMEOUT).text == offline(waves[1], people[2])
  assert _ask(engine, waves[0], "p1").text == offline(waves[0], people[1])
  heard = [item for items in gate.heard for item in items]
  pieces = [item for item in heard if item.job.future is long]
  assert 0 < len(pieces) < 19
  assert engine.figures()["requests_waiting"] == 0


def test_who_cancels_while_the_store_is_read(engine_of, people, waves):
  shelf = stores.Shelf(*people)
  engine = engine_of(shelf)
  shelf.slow.set()
  kept = waves[0].copy()
  gone = weakref.ref(kept)
  future = engine.submit(Request(kept, "p1"))
  del kept
  gc.disable()
  try:
    assert future.cancel()
    assert engine.figures()["requests_waiting"] == 0
    assert gone() is None
  finally:
    gc.enable()
  shelf.slow.clear()
  assert _ask(engine, waves[0], "p1").receipt.applied == "submodel"


def test_the_queue_is_bounded(held, waves, offline):
  engine, gate, _ = held(queue=20)
  waiting = [engine.submit(Request(waves[0], None)) for _ in range(15)]
  with pytest.raises(Overloaded, match="at most 20"):
    engine.submit(Request(stores.wave(14, 3), "p1"))  # six pieces
  waiting += [engine.submit(Request(waves[0], f"p{i % 9}")) for i in range(5)]
  for _ in range(10_000):
    with pytest.raises(Overloaded):
      engine.submit(Request(waves[0], "p0"))
  assert engine.figures()["requests_waiting"] == 20
  gate.open()
  for future in waiting:
    future.result(stores.TIMEOUT)
  assert _ask(engine, waves[0], None).text == offline(waves[0])


def test_what_is_too_long(engine_of, people):
  engine = engine_of(stores.Shelf(*people), queue=8)
  with pytest.raises(TooLong, match="8 pieces"):
    engine.submit(Request(stores.wave(30), "p0"))
  with pytest.raises(InputError, match="float"):
    engine.submit(Request(np.zeros(100, np.int16), None))
  with pytest.raises(InputError, match="float"):
    engine.submit(Request(np.zeros((2, 100), np.float32), None))


def test_close_answers_all_who_wait(held, waves, offline):
  engine, gate, first = held()
  engine._store.slow.set()
  waiting = [engine.submit(Request(waves[0], None)) for _ in range(5)]
  waiting += [engine.submit(Request(waves[0], "p3")), engine.load("p4")]
  waiting.append(engine.submit(Request(stores.wave(9), None)))
  closing = threading.Thread(target=engine.close)
  closing.start()
  for future in waiting:
    with pytest.raises(Closed, match="closed"):
      future.result(stores.TIMEOUT)
  engine._store.slow.clear()
  gate.open()
  closing.join(stores.TIMEOUT)
  assert not closing.is_alive()
  assert first.result(0).text == offline(waves[0])  # it was being computed
  assert not any(thread.is_alive() for thread in engine._threads)
  assert not engine.ready()
  with pytest.raises(Closed):
    engine.submit(Request(waves[0], None))
  with pytest.raises(Closed):
    engine.load("p0")
  engine.close()


def test_close_while_it_compiles(engine_of, people, waves):
  engine = engine_of(stores.Shelf(*people), ready=False)
  future = engine.submit(Request(waves[0], "p0"))
  engine.close()
  with pytest.raises(Closed):
    future.result(0)


def test_a_batch_that_fails_is_nobody_elses_trouble(
  engine_of, people, waves, offline, monkeypatch
):
  engine = engine_of(stores.Shelf(*people))
  _ask(engine, waves[0], "p0")
  hear = engine._device.hear

  def failing(turn):
    raise RuntimeError("out of memory")

  probed = threading.Event()
  probe = engine._device.probe

  def probing():
    assert probed.wait(stores.TIMEOUT)
    probe()

  monkeypatch.setattr(engine._device, "hear", failing)
  monkeypatch.setattr(engine._device, "probe", probing)
  with pytest.raises(Failed, match="RuntimeError: out of memory"):
    _ask(engine, waves[0], "p0")
  assert not engine.ready()
  monkeypatch.setattr(engine._device, "hear", hear)
  probed.set()
  while not engine.ready():
    time.sleep(0.001)
  assert engine.resident() == []  # what stood in slots was not known
  for i in (0, 1):
    assert _ask(engine, waves[2], f"p{i}").text == offline(waves[2], people[i])
  assert engine.ready()


def test_a_broken_device_says_so(engine_of, people, waves, monkeypatch):
  engine = engine_of(stores.Shelf(*people))

  def failing(*_):
    raise RuntimeError("no such device")

  for name in ("hear", "probe"):
    monkeypatch.setattr(engine._device, name, failing)
  with pytest.raises(Failed, match="no such device"):
    _ask(engine, waves[0], "p0")
  with pytest.raises(Closed, match="no such device"):
    engine.submit(Request(waves[0], None)).result(stores.TIMEOUT)
  engine._driver.thread.join(stores.TIMEOUT)
  assert not engine.ready()
  with pytest.raises(Closed, match="no such device"):
    engine.submit(Request(waves[0], None))


def test_a_bug_in_the_devices_thread_leaves_nobody_waiting(
  held, waves, monkeypatch
):
  engine, gate, _ = held()

  def wrong(*_):
    raise AssertionError("a bug")

  monkeypatch.setattr(engine._device, "plan", wrong)
  future = engine.submit(Request(waves[0], None))
  gate.open()
  with pytest.raises(Closed, match="a bug"):
    future.result(stores.TIMEOUT)
  assert not engine.ready()


def test_programs_that_dont_compile_say_so(
  engine_of, people, waves, monkeypatch
):
  monkeypatch.setattr("hra.serve.programs.emitted", lambda *_: 1 / 0)
  engine = engine_of(stores.Shelf(*people), ready=False)
  future = engine.submit(Request(waves[0], None))
  with pytest.raises(Closed, match="ZeroDivisionError"):
    future.result(stores.TIMEOUT)
  assert not engine.wait_until_ready(stores.TIMEOUT)


def test_an_answer_that_cant_be_made_is_nobody_elses_trouble(
  engine_of, people, waves, offline, monkeypatch
):
  engine = engine_of(stores.Shelf(*people))
  with monkeypatch.context() as changed:
    changed.setattr(engine._answers, "of", lambda *_, **__: 1 / 0)
    with pytest.raises(Failed, match="ZeroDivisionError"):
      _ask(engine, waves[0], None)
  assert _ask(engine, waves[0], None).text == offline(waves[0])


def test_callbacks_may_ask_for_more(engine_of, people, waves, offline):
  """They run in no thread that holds the engine's lock."""
  engine = engine_of(stores.Shelf(*people))
  found, done = [], threading.Event()

  def then(future):
    found.append(future)
    if len(found) < 3:
      engine.submit(Request(waves[0], "p2")).add_done_callback(then)
    elif len(found) == 3:
      engine.submit(Request(waves[0], "nobody")).add_done_callback(then)
    else:
      done.set()

  engine.submit(Request(waves[0], "p1")).add_done_callback(then)
  assert done.wait(stores.TIMEOUT)
  assert isinstance(found[-1].exception(), UnknownSpeaker)


def test_who_is_unloaded_while_requests_wait_is_not_kept(
  held, people, waves, offline
):
  engine, gate, _ = held()
  futures = [engine.submit(Request(waves[0], f"p{i}")) for i in (0, 1)]
  while engine.figures()["host_rows"] < 2:
    time.sleep(0.001)
  assert engine.unload("p0")
  gate.open()
  for i, future in enumerate(futures):
    assert future.result(stores.TIMEOUT).text == offline(waves[0], people[i])
  assert [each.task for each in engine.resident()] == ["p1"]


def test_nothing_is_kept_of_what_was_heard(held, waves):
  """No wave waits for a collector of garbage."""
  gc.disable()
  try:
    engine, gate, first = held()
    kept = [waves[0].copy() for _ in range(6)]
    gone = [weakref.ref(wave) for wave in kept]
    futures = [engine.submit(Request(wave, "p1")) for wave in kept]
    futures += [engine.submit(Request(kept[0], "nobody"))]
    assert futures[2].cancel()
    del kept
    gate.open()
    wait([first, *futures], timeout=stores.TIMEOUT)
    del gate.heard[:]
    end = time.monotonic() + 5
    while any(ref() is not None for ref in gone) and time.monotonic() < end:
      time.sleep(0.01)
    assert not any(ref() is not None for ref in gone)
  finally:
    gc.enable()
