"""A store in a bucket: what was written there is read there, and nothing else is."""

import jax
import numpy as np
import pytest
import stores
import tiny

from hra import submodels
from hra.adapters import families
from hra.config import AdapterConfig
from hra.errors import InputError, StorageError
from hra.submodels import Store


@pytest.fixture
def store(bucket):
  return submodels.create(bucket / "store")


def test_a_store_in_a_bucket_is_read_where_it_was_written(bucket):
  adapter = AdapterConfig(width=4)
  made = families.build(adapter, tiny.BACKBONE, mels=tiny.FRONTEND.num_mels)
  key = jax.random.key(0)
  shared, row = made.init_shared(key), made.init_task(key)
  for task in ("anna", "bert/b"):
    submodels.save(
      bucket,
      submodels.Submodel(
        task=task,
        adapter=adapter,
        row=row,
        shared=shared,
        backbone_fingerprint="backbone",
        shared_fingerprint=submodels.save_shared(bucket, shared),
        summary={},
      ),
    )
  store = submodels.Store(bucket)
  assert set(store) == {"anna", "bert/b"}
  found = store["bert/b"]
  for ours, theirs in ((found.row, row), (found.shared, shared)):
    jax.tree.map(np.testing.assert_array_equal, ours, dict(theirs))


def test_versions_stamps_rollback_and_delete(store):
  reader = Store(store.folder)
  with pytest.raises(KeyError):
    reader.find("anna")
  entries = []
  stamps = set()
  for seed in range(3):
    entries.append(store.publish(stores.made("anna", seed)))
    assert reader.find("anna") == entries[-1]
    stores.assert_is(reader["anna"], stores.made("anna", seed))
    stamps.add(reader.stamp("anna"))
  assert len(stamps) == 3
  assert store.publish(stores.made("anna", 2)) == entries[2]
  assert reader.stamp("anna") in stamps
  assert reader.versions("anna") == entries
  assert reader.entries() == [entries[2]]
  assert store.rollback("anna", 1) == entries[0]
  assert reader.find("anna") == entries[0]
  stores.assert_is(reader.get_version("anna", 2), stores.made("anna", 1))
  assert store.publish(stores.made("anna", 9)).version == 4
  store.publish(stores.made("bert"))
  assert store.delete("anna")
  with pytest.raises(KeyError):
    reader["anna"]
  assert [entry.task for entry in reader.entries()] == ["bert"]
  assert store.delete("bert")
  assert [path.name for path in store.folder.iterdir()] == ["index.json"]
  assert reader.entries() == []


def test_packs_are_read_by_their_parts(store, monkeypatch):
  names = [f"task-{i}" for i in range(6)]
  store.publish_all(stores.made(name, i) for i, name in enumerate(names))
  assert store.pack() == (6, [])
  reader = Store(store.folder)
  whole = reader._place.read
  monkeypatch.setattr(
    reader._place,
    "read",
    lambda name: pytest.fail(name) if "packs" in name else whole(name),
  )
  stores.assert_is(reader["task-3"], stores.made("task-3", 3))
  assert len(reader.entries()) == 6
  stamp = reader.stamp("task-4")
  store.publish(stores.made("task-3", 30))
  assert store.delete("task-5")
  store.pack()
  assert reader.stamp("task-4") == stamp
  stores.assert_is(reader["task-3"], stores.made("task-3", 30))
  with pytest.raises(KeyError):
    reader.find("task-5")
  assert [entry.task for entry in reader.entries()] == names[:5]


def test_a_bucket_that_is_gone_is_no_unknown_speaker(store):
  store.publish(stores.made("anna"))
  reader = Store(store.folder)
  store.folder.rmtree()
  for ask in (
    lambda: reader["anna"],
    lambda: reader.stamp("anna"),
    reader.entries,
  ):
    with pytest.raises(StorageError, match="none any more"):
      ask()
  with pytest.raises(InputError, match="no such folder"):
    Store(store.folder)
  again = submodels.create(store.folder)
  again.publish(stores.made("anna", 5))
  stores.assert_is(reader["anna"], stores.made("anna", 5))


def test_a_bucket_that_does_not_answer_is_a_storage_error(store, monkeypatch):
  store.publish(stores.made("anna"))

  def unreachable(*arguments, **named):
    raise ConnectionError("no route to host")

  for name in ("info", "cat_file", "ls"):
    monkeypatch.setattr(store._place._system, name, unreachable)
  for ask in (
    lambda: store["anna"],
    lambda: store.find("anna"),
    lambda: store.stamp("anna"),
    store.entries,
  ):
    with pytest.raises(StorageError, match="no route to host"):
      ask()


def test_a_truncated_object_is_refused_by_name(store):
  store.publish(stores.made("anna"))
  path = store.folder / "anna.safetensors"
  path.write_bytes(path.read_bytes()[:-3])
  for read in (lambda: store["anna"], lambda: store.find("anna")):
    assert stores.tried(read, path) is None
  assert store.publish(stores.made("anna", 2)).version == 2
