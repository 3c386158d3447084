"""Packs: the same Submodels, one row at a time, and what packing leaves."""

import functools
import os
import time

import numpy as np
import pytest
import safetensors.numpy
import stores

from hra import submodels
from hra.errors import InputError
from hra.submodels import Store, pack, packs
from hra.submodels.place import LocalPlace

NAMES = [f"speaker-{place}" for place in range(20)]


@pytest.fixture
def store(tmp_path):
  """Twenty of one kind and one of another."""
  store = submodels.create(tmp_path / "store")
  store.publish_all(stores.made(name, i) for i, name in enumerate(NAMES))
  store.publish(stores.made("wide", 3, adapter=stores.WIDE, shared_seed=None))
  return store


def _packs(store):
  return sorted((store.folder / "packs").glob("*.safetensors"))


def _loose(store):
  names = {path.name for path in store.folder.glob("*.safetensors")}
  return {name for name in names if not name.startswith("shared-")}


def test_what_is_packed_is_what_was_loose(store):
  before = {entry.task: entry for entry in store.entries()}
  found = {name: store[name] for name in before}
  assert store.pack() == (21, [])
  assert len(_packs(store)) == 2
  assert not _loose(store)
  for each in (store, Store(store.folder)):
    entries = {entry.task: entry for entry in each.entries()}
    assert entries.keys() == before.keys()
    for name, entry in entries.items():
      assert entry._replace(bytes=0) == before[name]._replace(bytes=0)
      assert each.find(name) == entry
      stores.assert_is(each[name], found[name])
      assert each[name].fingerprint == found[name].fingerprint
      assert [kept[1:3] for kept in each.versions(name)] == [entry[1:3]]
    with pytest.raises(KeyError):
      each.find("nobody")
    assert "nobody" not in each
    assert "wide" in each


def test_a_pack_is_a_safetensors_file(store):
  store.pack()
  path = max(_packs(store), key=os.path.getsize)
  tensors = safetensors.numpy.load_file(path)
  assert tensors["rows/head/kernel"].shape == (20, 8, 3)
  assert tensors["rows/head/bias"].dtype == np.float16
  assert np.all(np.diff(tensors["hash"].astype(object)) > 0)
  place = int(
    np.searchsorted(
      tensors["hash"], np.uint64(submodels.names.stable_hash("speaker-4"))
    )
  )
  np.testing.assert_array_equal(
    tensors["rows/head/kernel"][place],
    stores.made("speaker-4", 4).row["head"]["kernel"],
  )


def test_packing_again_changes_nothing(store):
  store.pack()
  marks = [(path, os.stat(path).st_ino) for path in _packs(store)]
  assert store.pack() == (0, [])
  assert [(path, os.stat(path).st_ino) for path in _packs(store)] == marks


def test_what_is_published_is_newer_than_the_pack(store):
  store.pack()
  stamps = {name: store.stamp(name) for name in NAMES}
  assert store.publish(stores.made("speaker-3", 3)).version == 1
  assert not _loose(store)
  assert store.publish(stores.made("speaker-3", 77)).version == 2
  assert _loose(store) == {"speaker-3.safetensors"}
  stores.assert_is(store["speaker-3"], stores.made("speaker-3", 77))
  stores.assert_is(
    store.get_version("speaker-3", 1), stores.made("speaker-3", 3)
  )
  assert store.pack().packed == 1
  assert not _loose(store)
  assert [each.version for each in store.versions("speaker-3")] == [1, 2]
  stores.assert_is(store["speaker-3"], stores.made("speaker-3", 77))
  assert store.rollback("speaker-3", 1).version == 1
  stores.assert_is(store["speaker-3"], stores.made("speaker-3", 3))
  assert store.pack().packed == 1
  assert [each.version for each in store.versions("speaker-3")] == [1, 2]
  assert store.publish(stores.made("speaker-3", 78)).version == 3
  for name in set(NAMES) - {"speaker-3"}:
    assert store.stamp(name) == stamps[name]


def test_who_is_trained_anew_as_another_kind_leaves_the_old_pack(store):
  store.pack()
  store.publish(stores.made("wide", 9))
  store.pack()
  (path,) = _packs(store)
  assert b"residual" not in path.read_bytes()
  assert store.find("wide").adapter == stores.HEAD
  assert store.find("wide").version == 2
  stores.assert_is(
    store.get_version("wide", 1),
    stores.made("wide", 3, adapter=stores.WIDE, shared_seed=None),
  )


def test_a_delete_makes_the_pack_anew_without_it(store):
  store.pack()
  store.publish(stores.made("speaker-5", 50))
  assert store.delete("speaker-5")
  assert store.delete("wide")
  (path,) = _packs(store)
  assert b"speaker-5" not in path.read_bytes()
  row = stores.made("speaker-5", 5).row["head"]["kernel"].tobytes()
  assert row not in path.read_bytes()
  assert {entry.task for entry in store.entries()} == {*NAMES} - {"speaker-5"}
  with pytest.raises(KeyError):
    store.find("speaker-5")
  stores.assert_whole(store.folder)
  for name in NAMES:
    store.delete(name)
  assert not _packs(store)
  assert not list(store.folder.glob("shared-*"))


def test_a_pack_may_be_copied_in(store, tmp_path):
  """Under any name; of two rows the higher number is current."""
  store.pack()
  other = submodels.create(tmp_path / "other")
  for seed in range(3):
    other.publish(stores.made("speaker-1", 100 + seed))
  other.publish(stores.made("zoe", 7))
  other.pack()
  (theirs,) = _packs(other)
  copied = store.folder / "packs" / "a-copy.safetensors"
  copied.write_bytes(theirs.read_bytes())
  assert store.find("speaker-1").version == 3
  assert store.find("zoe").version == 1
  assert len(store.entries()) == 22
  assert store.pack() == (0, [])
  assert len(_packs(store)) == 2
  assert not copied.exists()
  assert store.find("speaker-1").version == 3
  stores.assert_whole(store.folder)


def test_what_is_damaged_stays_loose(store):
  path = store.folder / "speaker-2.safetensors"
  path.write_bytes(path.read_bytes()[:-1] + b"\x77")
  packed, (refused,) = store.pack()
  assert packed == 20
  assert refused.where == str(path)
  assert _loose(store) == {"speaker-2.safetensors"}
  with pytest.raises(InputError, match=r"speaker-2\.safetensors"):
    store["speaker-2"]


def test_a_damaged_file_hides_the_row_behind_it(store):
  store.pack()
  path = store.folder / "speaker-2.safetensors"
  path.write_bytes(b"spoilt")
  with pytest.raises(InputError, match="a Submodel file"):
    store.find("speaker-2")
  found, refused = store.listing()
  assert "speaker-2" not in {entry.task for entry in found}
  assert len(refused) == 1
  assert store.pack().refused
  assert store.publish(stores.made("speaker-2", 90)).version == 2


def test_no_changed_byte_of_a_pack_is_read_as_another_submodel(tmp_path):
  store = submodels.create(tmp_path)
  names = ("anna", "bert")
  for name in names:
    store.publish(stores.made(name, shared_seed=None))
  store.pack()
  expected = {name: store[name] for name in names}
  (path,) = _packs(store)
  whole = path.read_bytes()
  refused = 0
  for place in range(len(whole)):
    spoilt = bytearray(whole)
    spoilt[place] ^= 4
    path.write_bytes(spoilt)
    fresh = Store(tmp_path)
    for name in names:
      read = functools.partial(fresh.__getitem__, name)
      found = stores.tried(read, path)
      if found is None:
        refused += 1
      else:
        stores.assert_is(found, expected[name])
    fresh.listing()  # says what is wrong, and goes on
  assert refused > len(whole)


def test_a_pack_that_is_cut_off_is_refused_by_name(store):
  store.pack()
  path = max(_packs(store), key=os.path.getsize)
  whole = path.read_bytes()
  rng = np.random.default_rng(0)
  for size in (0, 5, 100, len(whole) - 1, *rng.integers(0, len(whole), 20)):
    path.write_bytes(whole[:size])
    with pytest.raises(InputError, match=path.name):
      Store(store.folder)["speaker-1"]
    with pytest.raises(InputError, match=path.name):
      store.find("speaker-1")
    found, refused = store.listing()
    assert [entry.task for entry in found] == ["wide"]
    assert len(refused) == 1
  path.write_bytes(whole)
  stores.assert_is(store["speaker-1"], stores.made("speaker-1", 1))


def test_a_mapped_pack_that_is_cut_off_costs_no_process(store):
  """A page behind the end of a mapped file would be SIGBUS."""
  store.pack()
  path = max(_packs(store), key=os.path.getsize)
  opened = pack.Pack(LocalPlace(store.folder), f"packs/{path.name}")
  found = next(opened.find("speaker-1"))
  assert opened.content(found).told.version == 1
  os.truncate(path, 100)
  with pytest.raises(InputError, match="a part of it"):
    opened.content(found)


def test_a_row_is_what_is_read_of_a_large_pack(tmp_path, monkeypatch):
  """Opening reads a header; a row its own bytes."""
  store, count = submodels.create(tmp_path), 200
  row = {"head": {"kernel": np.zeros((64, 64), np.float32)}}
  store.publish_all(stores.made(f"task-{i}", row=row) for i in range(count))
  store.pack()
  (path,) = _packs(store)
  assert os.path.getsize(path) > count * 64 * 64 * 4
  read = []
  reader = pack._reader

  def counting(*arguments):
    part, size = reader(*arguments)

    def counted(start, stop):
      read.append(stop - start)
      return part(start, stop)

    return counted, size

  monkeypatch.setattr(pack, "_reader", counting)
  fresh = Store(tmp_path)
  assert not read
  fresh.find("task-7")
  assert sum(read) < 16_384 + 8 * count + 2_000
  read.clear()
  fresh["task-8"]
  assert 64 * 64 * 4 < sum(read) < 64 * 64 * 4 + 4_000


def test_tasks_of_one_hash_are_told_apart(store, monkeypatch):
  for module in (pack, packs):
    monkeypatch.setattr(module, "stable_hash", lambda task: 5, raising=False)
  store.pack()
  for name, seed in (("speaker-0", 0), ("speaker-19", 19)):
    stores.assert_is(Store(store.folder)[name], stores.made(name, seed))
  with pytest.raises(KeyError):
    Store(store.folder)["nobody"]


def test_memory_holds_a_row_at_a_time(tmp_path):
  """While a pack is written."""
  import tracemalloc

  store = submodels.create(tmp_path)
  kernel = np.zeros((512, 512), np.float32)
  row = {"head": {"kernel": kernel}}
  store.publish_all(stores.made(f"task-{i}", row=row) for i in range(30))
  tracemalloc.start()
  store.pack()
  _, most = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert most < 5 * kernel.nbytes
  assert os.path.getsize(*_packs(store)) > 30 * kernel.nbytes


def test_readers_go_on_while_a_pack_is_made_anew(store):
  store.pack()
  reader = Store(store.folder)
  for step in range(5):
    stores.assert_is(reader["speaker-1"], stores.made("speaker-1", 1))
    store.delete(f"speaker-{10 + step}")
    time.sleep(0.01)
  with pytest.raises(KeyError):
    reader["speaker-10"]
