"""The engine and its store: gone, slow, damaged, changed meanwhile."""

import dataclasses
import threading
import time

import pytest
import serve_stores as stores

from hra.errors import InputError
from hra.serve.interface import (
  BadSubmodel,
  Failed,
  Receipt,
  Request,
  Resident,
  StoreGone,
  UnknownSpeaker,
)
from hra.submodels import Store, create


def _ask(engine, *request):
  return engine.submit(Request(*request)).result(stores.TIMEOUT)


def _until(holds):
  end = time.monotonic() + stores.TIMEOUT
  while not holds():
    assert time.monotonic() < end
    time.sleep(0.001)


def test_a_store_that_is_gone_and_comes_back(engine_of, people, waves, offline):
  shelf = stores.Shelf(*people)
  engine = engine_of(shelf, refresh_seconds=0.0, slots=1)
  for task in ("p0", "p1"):
    _ask(engine, waves[0], task)
  shelf.gone = True
  assert [each.task for each in engine.resident()] == ["p1"]
  for place in (1, 0):  # on the device, and in the host's memory
    answer = _ask(engine, waves[2], f"p{place}")
    assert answer.text == offline(waves[2], people[place])
    assert answer.receipt.applied == "submodel"
  for fallback in (False, True):  # nobody knows whether there is one
    with pytest.raises(StoreGone, match="nothing there"):
      _ask(engine, waves[0], "p2", fallback)
  with pytest.raises(StoreGone):
    engine.load("p0").result(stores.TIMEOUT)
  with pytest.raises(StoreGone):
    engine.tasks()
  assert _ask(engine, waves[0], None).text == offline(waves[0])
  assert engine.figures()["store_answering"] == 0
  assert engine.ready()
  shelf.gone = False
  assert _ask(engine, waves[0], "p2").text == offline(waves[0], people[2])
  assert engine.figures()["store_answering"] == 1
  assert engine.tasks() == sorted(each.task for each in people)


def test_a_store_that_is_gone_at_the_start(engine_of, people, waves, offline):
  shelf = stores.Shelf(*people)
  shelf.gone = True
  engine = engine_of(shelf)
  with pytest.raises(StoreGone):
    _ask(engine, waves[0], "p2")
  shelf.gone = False
  assert _ask(engine, waves[0], "p2").text == offline(waves[0], people[2])


def test_a_slow_store_keeps_no_resident_waiting(
  engine_of, people, waves, offline
):
  shelf = stores.Shelf(*people)
  engine = engine_of(shelf, refresh_seconds=0.0, check_seconds=0.05)
  _ask(engine, waves[0], "p0")
  shelf.slow.set()
  others = [engine.submit(Request(waves[0], f"p{i}")) for i in range(4, 8)]
  for _ in range(3):
    begun = time.monotonic()
    assert _ask(engine, waves[1], "p0").text == offline(waves[1], people[0])
    assert time.monotonic() - begun < 5
  assert engine.figures()["store_answering"] == 0
  assert not any(other.done() for other in others)
  shelf.slow.clear()
  for i, other in enumerate(others, 4):
    answer = other.result(stores.TIMEOUT)
    assert answer.text == offline(waves[0], people[i])
    assert answer.spent.loading > 0


def test_who_waits_too_long_for_the_store_hears_so(engine_of, people, waves):
  shelf = stores.Shelf(*people)
  engine = engine_of(shelf, load_seconds=0.1)
  shelf.slow.set()
  with pytest.raises(StoreGone, match="in time"):
    _ask(engine, waves[0], "p0")
  with pytest.raises(StoreGone, match="in time"):
    engine.load("p0").result(stores.TIMEOUT)
  shelf.slow.clear()
  assert _ask(engine, waves[0], "p1").receipt.applied == "submodel"


def test_a_new_version_is_picked_up(
  engine_of, recognizer, people, waves, offline
):
  shelf = stores.Shelf(*people)
  engine = engine_of(shelf, refresh_seconds=0.2, check_seconds=0.1)
  assert _ask(engine, waves[2], "p0").receipt.version == 1
  newer = stores.submodel(recognizer, "p0", 99, version=2)
  shelf.put(newer)
  time.sleep(0.2)
  shelf.reading.set()
  futures = [engine.submit(Request(waves[2], "p0"))]
  _until(lambda: len(shelf.reads) == 3)  # one at the start, to know the kind
  futures.append(engine.submit(Request(waves[2], "p0")))
  time.sleep(0.3)  # longer than anybody would wait for a look at the store
  shelf.reading.clear()
  for future in futures:
    answer = future.result(stores.TIMEOUT)
    assert answer.text == offline(waves[2], newer)
    assert answer.text != offline(waves[2], people[0])
    assert answer.receipt == Receipt("p0", "submodel", 2, "p0 99", None)
  assert engine.resident() == [Resident("p0", 2, "p0 99")]
  assert engine.figures()["store_answering"] == 1


def test_versions_change_under_load_and_none_is_mixed_up(
  engine_of, recognizer, people, waves, offline
):
  """Each answer is of one version, and the one that its receipt says."""
  numbers = range(1, 9)
  versions = {
    n: stores.submodel(recognizer, "p0", 100 + n % 3, version=n)
    for n in numbers
  }
  shelf = stores.Shelf(versions[1], *people[1:])
  engine = engine_of(
    shelf, refresh_seconds=0.0, check_seconds=stores.TIMEOUT, slots=2
  )
  stop, seen = threading.Event(), []

  def client():
    while not stop.is_set():
      for task in ("p0", "p5", "p6"):
        seen.append(_ask(engine, waves[2], task))

  threads = [threading.Thread(target=client) for _ in range(3)]
  for thread in threads:
    thread.start()
  for number in numbers[1:]:
    until = len(seen) + 9
    while len(seen) < until and any(each.is_alive() for each in threads):
      time.sleep(0.001)
    shelf.put(versions[number])
  stop.set()
  for thread in threads:
    thread.join()
  own = [each for each in seen if each.receipt.task == "p0"]
  for answer in own:
    submodel = versions[answer.receipt.version]
    assert answer.receipt.fingerprint == submodel.fingerprint
    assert answer.text == offline(waves[2], submodel)
  assert len({each.receipt.version for each in own}) > 4
  assert _ask(engine, waves[2], "p0").receipt.version == numbers[-1]


def test_who_is_deleted_is_unknown_and_leaves_memory(
  engine_of, people, waves, offline
):
  shelf = stores.Shelf(*people)
  engine = engine_of(shelf, refresh_seconds=0.0)
  _ask(engine, waves[0], "p0")
  shelf.delete("p0")
  with pytest.raises(UnknownSpeaker, match="'p0'"):
    _ask(engine, waves[0], "p0")
  assert engine.resident() == []
  assert engine.figures()["host_rows"] == 0
  answer = _ask(engine, waves[2], "p0", True)
  assert answer.text == offline(waves[2])
  assert answer.receipt == Receipt("p0", "backbone", None, None, "unknown")


def test_who_is_deleted_and_never_asked_for_leaves_memory(
  engine_of, people, waves
):
  shelf = stores.Shelf(*people)
  engine = engine_of(shelf, sweep_seconds=0.05)
  for task in ("p0", "p1", "p2"):
    _ask(engine, waves[0], task)
  shelf.delete("p1")
  _until(lambda: engine.figures()["host_rows"] == 2)
  assert sorted(each.task for each in engine.resident()) == ["p0", "p2"]


def test_damaged_and_foreign_ones_fail_by_themselves(
  engine_of, recognizer, people, waves, offline
):
  foreign = stores.submodel(
    recognizer, "foreign", 1, backbone_fingerprint="another"
  )
  torn = stores.submodel(recognizer, "torn", 1, row={})
  shelf = stores.Shelf(*people, foreign, torn)
  shelf.bad["p1"] = InputError("p1", expected="a whole file", got="a part")
  engine = engine_of(shelf, refresh_seconds=0.0)
  for task, words in {
    "foreign": "made for backbone",
    "torn": "nothing",
    "p1": "a whole file",
  }.items():
    with pytest.raises(BadSubmodel, match=words):
      _ask(engine, waves[0], task, True)
  shelf.bad["p2"] = RuntimeError("a bug")
  with pytest.raises(Failed, match="RuntimeError: a bug"):
    _ask(engine, waves[0], "p2")
  shelf.bad.clear()
  for task in (1, 2):
    assert _ask(engine, waves[0], f"p{task}").text == offline(
      waves[0], people[task]
    )


def test_a_damaged_newer_version_is_no_silent_older_one(
  engine_of, recognizer, waves
):
  shelf = stores.Shelf(stores.submodel(recognizer, "p0", 1))
  engine = engine_of(shelf, refresh_seconds=0.0)
  _ask(engine, waves[0], "p0")
  shelf.put(stores.submodel(recognizer, "p0", 2, version=2))
  shelf.bad["p0"] = InputError("p0", expected="a whole file", got="a part")
  for _ in range(2):
    with pytest.raises(BadSubmodel):
      _ask(engine, waves[0], "p0")
  shelf.bad.clear()
  assert _ask(engine, waves[0], "p0").receipt.version == 2


def test_load_asks_the_store_anew(engine_of, recognizer, people, waves):
  shelf = stores.Shelf(*people)
  engine = engine_of(shelf)
  assert engine.load("p0").result(stores.TIMEOUT) == Resident("p0", 1, "p0 0")
  shelf.put(stores.submodel(recognizer, "p0", 99, version=2))
  assert _ask(engine, waves[0], "p0").receipt.version == 1
  shelf.reading.set()
  first = engine.load("p0")
  _until(lambda: len(shelf.reads) == 3)
  shelf.put(stores.submodel(recognizer, "p0", 98, version=3))
  second = engine.load("p0")  # while the first one is under way
  shelf.reading.clear()
  assert first.result(stores.TIMEOUT).version == 2
  assert second.result(stores.TIMEOUT).version == 3
  assert _ask(engine, waves[0], "p0").receipt.version == 3
  with pytest.raises(UnknownSpeaker):
    engine.load("nobody").result(stores.TIMEOUT)


def test_a_store_on_disk(
  engine_of, recognizer, people, waves, offline, tmp_path
):
  """The real one: published, published anew, rolled back, torn, deleted, moved."""
  store = create(tmp_path / "store")
  for submodel in people[:6]:
    store.publish(
      dataclasses.replace(submodel, shared_fingerprint=_hash(submodel))
    )
  served = Store(tmp_path / "store")
  engine = engine_of(served, refresh_seconds=0.0)
  compiled = engine.figures()["compilations_total"]
  assert engine.tasks() == [f"p{i}" for i in range(6)]
  for i in range(6):
    answer = _ask(engine, waves[2], f"p{i}")
    assert answer.text == offline(waves[2], people[i])
    assert answer.receipt.version == 1
    assert answer.receipt.fingerprint == store.find(f"p{i}").fingerprint
  newer = dataclasses.replace(
    stores.submodel(recognizer, "p0", 99), shared_fingerprint=_hash(people[0])
  )
  store.publish(newer)
  answer = _ask(engine, waves[2], "p0")
  assert answer.receipt.version == 2
  assert answer.text == offline(waves[2], newer)
  store.rollback("p0", 1)
  answer = _ask(engine, waves[2], "p0")
  assert answer.receipt.version == 1
  assert answer.text == offline(waves[2], people[0])
  path = tmp_path / "store" / "p1.safetensors"
  whole = path.read_bytes()
  path.unlink()
  path.write_bytes(whole[:-8])
  with pytest.raises(BadSubmodel):
    _ask(engine, waves[2], "p1")
  path.unlink()
  path.write_bytes(whole)
  assert _ask(engine, waves[2], "p1").text == offline(waves[2], people[1])
  store.delete("p2")
  with pytest.raises(UnknownSpeaker):
    _ask(engine, waves[2], "p2")
  (tmp_path / "store").rename(tmp_path / "away")
  with pytest.raises(StoreGone):
    _ask(engine, waves[2], "p9")
  assert _ask(engine, waves[2], "p3").text == offline(waves[2], people[3])
  (tmp_path / "away").rename(tmp_path / "store")
  with pytest.raises(UnknownSpeaker):
    _ask(engine, waves[2], "../p9")
  assert engine.figures()["compilations_total"] == compiled


def _hash(submodel):
  from hra.submodels import shared_fingerprint

  return shared_fingerprint(submodel.shared)
