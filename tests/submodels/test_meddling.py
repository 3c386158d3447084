"""What others do to a store meanwhile: copy files in, list, publish, pack, delete."""

import json
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import stores

from hra import submodels
from hra.errors import InputError, StorageError
from hra.submodels import Store, names, pack, place, shared

NAMES = [f"task-{i}" for i in range(4)]


@pytest.fixture
def store(tmp_path):
  store = submodels.create(tmp_path / "store")
  store.publish_all(stores.made(name, i) for i, name in enumerate(NAMES))
  return store


@pytest.fixture
def other(tmp_path):
  return submodels.create(tmp_path / "other")


def _copy(source, target, pattern="*.safetensors"):
  for path in source.folder.glob(pattern):
    shutil.copy2(path, target.folder)


def _loose(store):
  found = {path.name for path in store.folder.glob("*.safetensors")}
  return {name for name in found if not name.startswith("shared-")}


def _once(monkeypatch, where, name, *, before=None, after=None):
  """Has something happen around the first call of a function."""
  real = getattr(where, name)
  happened = []

  def hooked(*arguments, **named):
    first = not happened
    happened.append(name)
    if first and before is not None:
      before()
    found = real(*arguments, **named)
    if first and after is not None:
      after()
    return found

  monkeypatch.setattr(where, name, hooked)


def _spoil_a_pack(store):
  folder = store.folder / "packs"
  folder.mkdir(exist_ok=True)
  path = folder / "a-spoilt.safetensors"
  path.write_bytes(b"junk")
  return path


def _says(store, text):
  """Files that do."""
  files = [path for path in Path(store.folder).rglob("*") if path.is_file()]
  return [path for path in files if text in path.read_bytes()]


@pytest.mark.parametrize("columns", [3, 40])
def test_what_changes_while_it_is_packed_stays_loose(
  store, other, monkeypatch, columns
):
  row = {
    "head": {
      "kernel": np.ones((8, columns), np.float32),
      "bias": np.ones(3, np.float16),
    }
  }
  other.publish(stores.made("task-2", row=row))
  _once(monkeypatch, pack, "write", before=lambda: _copy(other, store))
  assert store.pack() == (3, [])
  assert _loose(store) == {"task-2.safetensors"}
  stores.assert_is(store["task-2"], stores.made("task-2", row=row))
  for i in (0, 1, 3):
    stores.assert_is(store[NAMES[i]], stores.made(NAMES[i], i))


def test_what_goes_while_it_is_packed_is_left_out(store, monkeypatch):
  path = store.folder / "task-2.safetensors"
  _once(monkeypatch, pack, "write", before=path.unlink)
  assert store.pack() == (3, [])
  assert "task-2" not in store


def test_what_is_copied_in_after_it_was_packed_stays(store, other, monkeypatch):
  other.publish_all(stores.made("task-2", seed) for seed in (7, 8))
  _once(monkeypatch, pack, "write", after=lambda: _copy(other, store))
  store.pack()
  assert _loose(store) == {"task-2.safetensors"}
  stores.assert_is(store["task-2"], stores.made("task-2", 8))


def test_packing_keeps_the_rows_that_a_copied_file_hides(store, other):
  store.pack()
  other.publish_all(stores.made("task-1", 10 + seed) for seed in range(5))
  _copy(other, store)
  before = store.versions("task-1")
  assert [each.version for each in before] == [1, 5]
  assert store.pack() == (1, [])
  assert [each[1:3] for each in store.versions("task-1")] == [
    each[1:3] for each in before
  ]
  stores.assert_is(store.get_version("task-1", 1), stores.made("task-1", 1))
  stores.assert_whole(store.folder)


def test_packing_keeps_the_rows_that_another_pack_hides(store, other):
  store.pack()
  other.publish_all(stores.made("task-1", 10 + seed) for seed in range(2))
  other.pack()
  (theirs,) = other.folder.glob("packs/*")
  shutil.copy(theirs, store.folder / "packs" / "a-copy.safetensors")
  store.pack()
  assert [each.version for each in store.versions("task-1")] == [1, 2]
  stores.assert_is(store["task-1"], stores.made("task-1", 11))


class Killed(BaseException):
  """As by a signal."""


def test_who_lists_does_not_forget_what_a_killed_delete_left(
  store, monkeypatch
):
  store.publish(stores.made("anna", shared_seed=5))
  server = Store(store.folder)
  server.entries()
  with monkeypatch.context() as patch:
    patch.setattr(Store, "_remove_unused", _killed)
    with pytest.raises(Killed):
      Store(store.folder).delete("anna")
  _copy_in_something(store)
  server.entries()
  assert not Store(store.folder).delete("anna")
  assert len(list(store.folder.glob("shared-*"))) == 1


def _killed(*arguments):
  raise Killed


def _copy_in_something(store):
  """So that who lists has an index to write."""
  path = store.folder / "task-0.safetensors"
  path.write_bytes(path.read_bytes())


def test_who_lists_does_not_bring_a_forgotten_name_back(store, monkeypatch):
  server = Store(store.folder)
  server.entries()
  _copy_in_something(store)
  _once(
    monkeypatch,
    server._packs,
    "entries",
    before=lambda: Store(store.folder).delete("task-3"),
  )
  server.entries()
  assert not _says(store, b"task-3")
  assert "task-0" in (store.folder / names.INDEX).read_text()


def test_who_publishes_does_not_bring_a_forgotten_name_back(store):
  server = Store(store.folder)
  server.entries()
  Store(store.folder).delete("task-3")
  server.publish(stores.made("task-0", 50))
  assert not _says(store, b"task-3")


def test_who_publishes_keeps_what_others_learnt(store):
  server = Store(store.folder)
  server.entries()
  Store(store.folder).publish(stores.made("task-8"))
  server.publish(stores.made("task-9"))
  told = json.loads((store.folder / names.INDEX).read_text())
  assert len(told["files"]) == len(NAMES) + 2


@pytest.mark.parametrize("then", ["list", "pack", "lose"])
def test_a_number_is_never_given_twice(store, then):
  """Though nothing is left of who had it."""
  server = Store(store.folder)
  server.entries()
  path = store.folder / "task-1.safetensors"
  first = path.read_bytes()
  assert Store(store.folder).publish(stores.made("task-1", 20)).version == 2
  path.unlink()
  path.write_bytes(first)
  if then == "list":
    server.entries()
  elif then == "pack":
    Store(store.folder).pack()
  else:
    (store.folder / names.INDEX).unlink()
  assert Store(store.folder).publish(stores.made("task-1", 30)).version == 3


def test_a_rollback_does_not_give_a_number_again(store):
  store.publish(stores.made("task-1", 20))
  store.rollback("task-1", 1)
  (store.folder / "versions" / "task-1" / "2.safetensors").unlink()
  assert store.publish(stores.made("task-1", 30)).version == 3


@pytest.mark.parametrize("spoilt", [b"", b"[]", b'{"highest": 3}', b"[" * 9999])
def test_a_ledger_that_is_spoilt_is_made_anew(store, spoilt):
  path = store.folder / names.LEDGER
  path.write_bytes(spoilt)
  assert store.publish(stores.made("task-1", 20)).version == 2
  assert json.loads(path.read_bytes())["highest"]["task-1.safetensors"] == 2


def test_a_ledger_out_of_reach_is_not_made_anew(store, monkeypatch):
  path = store.folder / names.LEDGER
  before = path.read_bytes()
  real = store._place.read

  def unreachable(name):
    if name == names.LEDGER:
      raise StorageError(name, expected="an answer", got="none")
    return real(name)

  monkeypatch.setattr(store._place, "read", unreachable)
  with pytest.raises(StorageError):
    store.publish(stores.made("task-1", 20))
  assert path.read_bytes() == before
  assert store.find("task-1").version == 1


def _with_times(store, other):
  """Two files of one task that differ in no more than their bytes."""
  store.publish(stores.made("anna", 1, shared_seed=1))
  store.publish(stores.made("bert", 1, shared_seed=2))
  other.publish(stores.made("anna", 2, shared_seed=2))
  for each in (store, other):
    for path in each.folder.glob("*.safetensors"):
      os.utime(path, (1e9, 1e9))
  store.entries()


def test_a_copy_that_keeps_its_time_is_another_file(store, other):
  _with_times(store, other)
  stamp = store.stamp("anna")
  _copy(other, store, "anna*")
  assert store.stamp("anna") != stamp
  for each in (store, Store(store.folder)):
    assert {entry.task: entry for entry in each.entries()}["anna"] == each.find(
      "anna"
    )


def test_files_of_one_moment_are_told_apart():
  """Clocks of file systems stand still for milliseconds."""
  moment = {"st_size": 5, "st_mtime_ns": 7, "st_ctime_ns": 7}
  first, second = (
    place._listed(SimpleNamespace(st_ino=number, **moment)) for number in (1, 2)
  )
  assert first != second


def test_a_delete_asks_the_files_and_not_the_index(store, other, monkeypatch):
  _with_times(store, other)
  index = (store.folder / names.INDEX).read_text()
  _copy(other, store, "anna*")
  monkeypatch.setattr(  # the index, though it is wrong
    "hra.submodels.index.Index.get",
    lambda index, name, listed: index._known[name].entry,
  )
  assert (store.folder / names.INDEX).read_text() == index
  Store(store.folder).delete("bert")
  stores.assert_is(
    Store(store.folder)["anna"], stores.made("anna", 2, shared_seed=2)
  )


def test_a_spoilt_pack_is_left_aside(store):
  store.publish(stores.made("task-0", 50))
  store.pack()
  path = _spoil_a_pack(store)
  stores.assert_is(store["task-1"], stores.made("task-1", 1))
  assert store.publish(stores.made("task-0", 51)).version == 3
  assert store.publish(stores.made("new")).version == 1
  assert [each.version for each in store.versions("task-0")] == [1, 2, 3]
  assert store.rollback("task-0", 1).version == 1
  packed, (refused,) = store.pack()
  assert packed == 2
  assert refused.where == str(path)
  assert path.exists()
  for ask in (store.find, store.stamp, store.versions):
    with pytest.raises(InputError, match="a-spoilt"):  # it may have them
      ask("nobody")


def test_a_spoilt_row_is_published_anew(store):
  store.pack()
  (path,) = store.folder.glob("packs/*")
  row = stores.made("task-1", 1).row["head"]["kernel"].tobytes()
  path.write_bytes(path.read_bytes().replace(row, bytes(len(row))))
  with pytest.raises(InputError, match="task-1"):
    store["task-1"]
  assert store.publish(stores.made("task-1", 20)).version == 2
  stores.assert_is(store["task-1"], stores.made("task-1", 20))
  stores.assert_is(store["task-2"], stores.made("task-2", 2))


def test_a_delete_says_what_it_could_not_search(store):
  store.pack()
  store.publish(stores.made("task-0", 50))
  path = _spoil_a_pack(store)
  for task in ("task-0", "nobody"):
    with pytest.raises(InputError, match="a-spoilt"):
      store.delete(task)
  assert not _says(store, b"task-0")
  path.unlink()
  assert not store.delete("task-0")
  assert store.delete("task-1")


def test_what_belongs_into_a_spoilt_pack_stays_where_it_is(store):
  store.pack()
  (path,) = store.folder.glob("packs/*")
  whole = path.read_bytes()
  path.write_bytes(whole[:-1])
  store.publish(stores.made("new"))
  packed, refused = store.pack()
  assert (packed, len(refused)) == (0, 1)
  assert _loose(store) == {"new.safetensors"}
  path.write_bytes(whole)
  assert store.pack() == (1, [])
  assert {entry.task for entry in store.entries()} == {*NAMES, "new"}


def test_a_copy_of_a_spoilt_pack_stays(store):
  store.pack()
  (path,) = store.folder.glob("packs/*")
  shutil.copy(path, path.parent / "a-copy.safetensors")
  path.write_bytes(b"junk")
  packed, (refused,) = store.pack()
  assert (packed, refused.where) == (0, str(path))
  for i, name in enumerate(NAMES):
    stores.assert_is(store[name], stores.made(name, i))


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
  store, monkeypatch
):
  longer = stores.made("task-1", 20, summary={"note": "longer" * 9})
  _once(
    monkeypatch,
    store._place,
    "part",
    before=lambda: Store(store.folder).publish(longer),
  )
  assert store.find("task-1").version == 2


@pytest.mark.parametrize("ask", [Store.find, Store.__getitem__])
@pytest.mark.parametrize("part", range(5))
def test_a_far_pack_made_anew_while_it_is_read_is_read_again(
  bucket, monkeypatch, ask, part
):
  store = submodels.create(bucket / "store")
  store.publish_all(stores.made(name, i) for i, name in enumerate(NAMES))
  store.pack()
  reader = Store(store.folder)
  real, parts = reader._place.part, []

  def meddled(name, start, stop):
    parts.append(name)
    if len(parts) == part + 1:
      for task in {*NAMES} - {"task-2"}:
        store.delete(task)
    return real(name, start, stop)

  monkeypatch.setattr(reader._place, "part", meddled)
  found = ask(reader, "task-2")
  assert (found.task, found.version) == ("task-2", 1)
  if ask is Store.__getitem__:
    stores.assert_is(found, stores.made("task-2", 2))
  assert {entry.task for entry in reader.entries()} >= {"task-2"}


def test_few_questions_are_asked_for_a_far_row(bucket, monkeypatch):
  store = submodels.create(bucket / "store")
  store.publish_all(stores.made(name, i) for i, name in enumerate(NAMES))
  store.pack()
  reader = Store(store.folder)
  asked: list[str] = []
  for name in ("look", "files", "part", "read", "is_there"):
    _count(monkeypatch, reader._place, name, asked)
  reader["task-1"]
  asked.clear()
  reader.stamp("task-2")
  assert sorted(asked) == ["files", "look", "part"]
  asked.clear()
  reader["task-3"]
  assert sorted(asked) == ["files", "part", "part", "part", "read"]


def _count(monkeypatch, where, name, asked):
  real = getattr(where, name)

  def counted(*arguments):
    asked.append(name)
    return real(*arguments)

  monkeypatch.setattr(where, name, counted)


def test_few_shared_parameters_are_held(tmp_path):
  store = submodels.create(tmp_path / "store")
  count = shared._MOST + 5
  store.publish_all(
    stores.made(f"task-{i}", i, shared_seed=i) for i in range(count)
  )
  reader = Store(store.folder)
  first = reader["task-0"].shared
  for i in range(count - 1):
    reader[f"task-{i}"]
    assert reader["task-0"].shared is first  # whose turn it was just now
  assert len(reader._shared._held) == shared._MOST
  stores.assert_is(reader["task-1"], stores.made("task-1", 1, shared_seed=1))


def test_who_reads_slow_shared_parameters_keeps_nobody_waiting(
  store, monkeypatch
):
  store.publish(stores.made("anna", shared_seed=5))
  reader = Store(store.folder)
  reader["task-1"]
  begun, go_on = threading.Event(), threading.Event()
  real = reader._place.read

  def slow(name):
    if name.startswith("shared-"):
      begun.set()
      assert go_on.wait(30)
    return real(name)

  monkeypatch.setattr(reader._place, "read", slow)
  found = []
  waits = threading.Thread(target=lambda: found.append(reader["anna"]))
  waits.start()
  assert begun.wait(30)
  other = threading.Thread(target=lambda: found.append(reader["task-1"]))
  other.start()
  other.join(10)
  assert [each.task for each in found] == ["task-1"]
  go_on.set()
  waits.join(30)
  assert [each.task for each in found] == ["task-1", "anna"]
