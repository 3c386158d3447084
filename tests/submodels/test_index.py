"""The index: what it spares, and that the files are the truth."""

import builtins
import json
import os
import shutil
import time

import pytest
import stores

from hra import submodels
from hra.errors import InputError
from hra.submodels import Store, names, place

MANY = 10_000


@pytest.fixture
def opened(monkeypatch):
  """The Submodels whose files are opened."""
  files = []

  def counting(path, *arguments, **named):
    name = os.path.basename(os.fspath(path))
    if name.endswith(".safetensors"):
      files.append(name)
    return builtins.open(path, *arguments, **named)

  monkeypatch.setattr(place, "open", counting, raising=False)
  return files


@pytest.fixture
def store(tmp_path):
  store = submodels.create(tmp_path / "store")
  store.publish_all(stores.made(f"task-{i}", i) for i in range(5))
  return store


@pytest.fixture(scope="module")
def many(tmp_path_factory):
  """Ten thousand files, written as fast as files can be."""
  folder = tmp_path_factory.mktemp("many") / "store"
  store = submodels.create(folder)
  shared = stores.made("anybody").shared
  submodels.save_shared(folder, shared)
  one = submodels.file.content(stores.made("task", shared=shared))
  for i in range(MANY):
    task = f"task-{i:05}"
    told = one.told._replace(fields={**one.told.fields, "task": task})
    made = submodels.file.Content(told, one.tensors).numbered(1)
    (folder / f"{task}.safetensors").write_bytes(made.encode())
  assert len(store.entries()) == MANY
  return folder


def test_ten_thousand_are_opened_and_listed_without_reading_them(many, opened):
  started = time.perf_counter()
  store = Store(many)
  assert not opened
  assert time.perf_counter() - started < 1.0
  entries = store.entries()
  assert not opened
  assert time.perf_counter() - started < 10.0
  assert [entry.task for entry in entries] == [
    f"task-{i:05}" for i in range(MANY)
  ]
  assert {id(entry.kind) for entry in entries} == {id(entries[0].kind)}
  stores.assert_is(store["task-04321"], stores.made("task-04321"))
  assert len(opened) == 2  # with what it shares
  opened.clear()
  assert store.find("task-09999").version == 1
  with pytest.raises(KeyError):
    store.find("task-10000")
  assert len(opened) == 1


def test_one_that_is_new_is_all_that_is_read(many, tmp_path, opened):
  folder = shutil.copytree(many, tmp_path / "store", copy_function=os.link)
  store = Store(folder)
  store.publish(stores.made("new"))
  assert len(store.entries()) == MANY + 1  # a link changes the file
  opened.clear()
  assert len(store.entries()) == MANY + 1
  assert not opened
  other = submodels.create(tmp_path / "other")
  other.publish(stores.made("copied"))
  shutil.copy(tmp_path / "other" / "copied.safetensors", folder)
  opened.clear()
  for each in (store, Store(folder)):
    assert each.find("copied").version == 1
    assert len(each.entries()) == MANY + 2
  assert set(opened) == {"copied.safetensors"}
  opened.clear()
  assert len(Store(folder).entries()) == MANY + 2
  assert not opened


def test_ten_thousand_in_a_pack(many, tmp_path):
  folder = shutil.copytree(many, tmp_path / "store", copy_function=os.link)
  store = Store(folder)
  assert store.pack() == (MANY, [])
  started = time.perf_counter()
  fresh = Store(folder)
  stores.assert_is(fresh["task-04321"], stores.made("task-04321"))
  assert time.perf_counter() - started < 1.0
  assert len(fresh.entries()) == MANY
  assert len(list(folder.glob("task-*"))) == 0


@pytest.mark.parametrize(
  "spoilt",
  [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"format": 2}',
    b'{"format": 9, "kinds": [], "files": {}}',
    b'{"format": 2, "kinds": [], "files": {"a": [1]}}',
    b'{"format": 2, "kinds": [{}], "files": {}}',
    b"[" * 100_000,
    b"\xff\xfe",
    None,
  ],
)
def test_an_index_that_is_spoilt_is_made_anew(store, spoilt, opened):
  entries = store.entries()
  path = store.folder / names.INDEX
  told = path.read_bytes()
  if spoilt is None:
    path.unlink()
  else:
    path.write_bytes(spoilt)
  assert Store(store.folder).entries() == entries
  assert len(opened) >= 5
  assert path.read_bytes() == told
  opened.clear()
  assert Store(store.folder).entries() == entries
  assert not opened


@pytest.mark.parametrize("field", range(7))
def test_an_index_of_wrong_types_is_made_anew(store, field):
  entries = store.entries()
  path = store.folder / names.INDEX
  told = json.loads(path.read_text())
  told["files"]["task-2.safetensors"][field] = {"odd": 1}
  path.write_text(json.dumps(told))
  assert Store(store.folder).entries() == entries


def test_a_file_that_changed_is_read_again(store):
  before = {entry.task: entry for entry in store.entries()}
  other = submodels.create(store.folder.parent / "other")
  theirs = other.publish(stores.made("task-1", 99))
  shutil.copy(
    store.folder.parent / "other" / "task-1.safetensors", store.folder
  )
  (store.folder / "task-3.safetensors").unlink()
  for each in (store, Store(store.folder)):
    found = {entry.task: entry for entry in each.entries()}
    assert found.pop("task-1") == theirs
    assert found == {
      name: before[name] for name in ("task-0", "task-2", "task-4")
    }
  assert "task-3" not in (store.folder / names.INDEX).read_text()


def test_a_store_that_can_not_be_written_to_is_listed(store, monkeypatch):
  entries = store.entries()
  (store.folder / names.INDEX).unlink()

  def refuses(*arguments, **named):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr("hra.files._lock", refuses)
  assert Store(store.folder).entries() == entries
  with pytest.raises(InputError, match="Permission denied"):
    store.publish(stores.made("new"))
  assert not (store.folder / names.INDEX).exists()
  assert not (store.folder / "new.safetensors").exists()


def test_who_lists_does_not_wait_for_who_publishes(store):
  (store.folder / names.INDEX).unlink()
  with store._place.alone():
    assert len(Store(store.folder).entries()) == 5
  assert not (store.folder / names.INDEX).exists()
  assert len(Store(store.folder).entries()) == 5
  assert (store.folder / names.INDEX).exists()
