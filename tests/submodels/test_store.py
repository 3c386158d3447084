"""A store: versions, rollback, delete, what it says of itself, and when it is gone."""

import errno
import os
import shutil
import threading

import numpy as np
import pytest
import safetensors.numpy
import stores
from hypothesis import given, settings
from hypothesis import strategies as st

from hra import submodels
from hra.errors import InputError, StorageError
from hra.submodels import Store, place


@pytest.fixture
def store(tmp_path):
  return submodels.create(tmp_path / "store")


def _names(folder):
  """Files by their path, but for what says nothing of a Submodel."""
  return {
    str(path.relative_to(folder))
    for path in folder.rglob("*")
    if path.is_file()
    and path.name not in (".lock", "index.json", "ledger.json")
  }


def test_versions_count_from_one_and_the_former_stays(store, tmp_path):
  published = [store.publish(stores.made("anna", seed)) for seed in range(3)]
  assert [entry.version for entry in published] == [1, 2, 3]
  assert len({entry.fingerprint for entry in published}) == 3
  assert store.versions("anna") == published
  for seed, entry in enumerate(published):
    found = store.get_version("anna", entry.version)
    stores.assert_is(found, stores.made("anna", seed))
    assert (found.version, found.fingerprint) == entry[1:3]
  stores.assert_is(store["anna"], stores.made("anna", 2))
  assert store.find("anna") == published[2]
  assert store.entries() == [published[2]]
  assert {
    name for name in _names(tmp_path / "store") if "shared" not in name
  } == {
    "anna.safetensors",
    "versions/anna/1.safetensors",
    "versions/anna/2.safetensors",
  }


def test_an_entry_says_what_the_file_does(store):
  store.publish(stores.made("anna"))
  entry, found = store.find("anna"), store["anna"]
  assert entry.task == "anna"
  assert entry.adapter == found.adapter
  assert entry.backbone_fingerprint == found.backbone_fingerprint
  assert entry.shared_fingerprint == found.shared_fingerprint
  assert entry.kind.tokenizer == found.tokenizer
  assert entry.verdict == "better"
  assert entry.bytes == (store.folder / "anna.safetensors").stat().length


def test_the_same_content_keeps_its_number(store):
  first, second = (store.publish(stores.made("anna", seed)) for seed in (0, 1))
  stamp = store.stamp("anna")
  assert store.publish(stores.made("anna", 1)) == second
  assert store.stamp("anna") == stamp
  assert store.publish(stores.made("anna", 0)) == first
  assert store.find("anna") == first
  assert store.versions("anna") == [first, second]


def test_a_copy_of_the_store_publishes_nothing_new(store, tmp_path):
  """What another library wrote, byte for byte or not."""
  entry = store.publish(stores.made("anna"))
  path = tmp_path / "store" / "anna.safetensors"
  tensors = safetensors.numpy.load_file(path)
  with safetensors.safe_open(path, "numpy") as file:
    metadata = file.metadata()
  metadata["else"] = "somebody's"
  safetensors.numpy.save_file(tensors, path, metadata=metadata)
  found = store.publish(stores.made("anna"))
  assert found._replace(bytes=0) == entry._replace(bytes=0)


def test_a_rollback_keeps_its_number_and_the_next_is_the_highest(store):
  entries = [store.publish(stores.made("anna", seed)) for seed in range(3)]
  before = store.stamp("anna")
  assert store.rollback("anna", 1) == entries[0]
  assert store.stamp("anna") != before
  assert store["anna"].version == 1
  assert store.rollback("anna", 1) == entries[0]
  assert store.publish(stores.made("anna", 9)).version == 4
  assert [each.version for each in store.versions("anna")] == [1, 2, 3, 4]
  for version in (0, 5):
    with pytest.raises(KeyError):
      store.rollback("anna", version)
    with pytest.raises(KeyError):
      store.get_version("anna", version)
  with pytest.raises(KeyError):
    store.rollback("bert", 1)


def test_a_delete_leaves_nothing_and_the_others_alone(store, tmp_path):
  for seed in range(3):
    store.publish(stores.made("anna", seed))
  store.publish(stores.made("bert", 4))
  store.publish(stores.made("bert", 5))
  store.publish(stores.made("cleo", 6, shared_seed=1))
  bert = store["bert"]
  store.entries()
  assert store.delete("anna")
  assert not store.delete("anna")
  for path in (tmp_path / "store").rglob("*"):
    assert "anna" not in path.name
    assert not path.is_file() or b"anna" not in path.read_bytes()
  with pytest.raises(KeyError):
    store["anna"]
  with pytest.raises(KeyError):
    store.versions("anna")
  assert [each.task for each in store.entries()] == ["bert", "cleo"]
  stores.assert_is(Store(store.folder)["bert"], bert)
  assert store.publish(stores.made("anna")).version == 1


def test_shared_parameters_go_with_the_last_who_needs_them(store, tmp_path):
  def count():
    return len(list((tmp_path / "store").glob("shared-*")))

  store.publish(stores.made("anna", shared_seed=1))
  store.publish(stores.made("anna", shared_seed=2))
  store.publish(stores.made("bert", shared_seed=1))
  store.publish(stores.made("bert", shared_seed=3))
  assert count() == 3
  store.delete("anna")
  assert count() == 2  # of a former version of bert the first
  store.rollback("bert", 1)
  assert Store(store.folder)["bert"].version == 1
  store.delete("bert")
  assert count() == 0


def test_what_can_not_be_read_may_need_shared_parameters(store, tmp_path):
  store.publish(stores.made("anna"))
  bert = store.publish(stores.made("bert"))
  path = tmp_path / "store" / "bert.safetensors"
  whole = path.read_bytes()
  path.write_bytes(whole[:-1])
  store.delete("anna")
  path.write_bytes(whole)
  assert store["bert"].fingerprint == bert.fingerprint


def test_a_file_that_is_copied_in_is_what_is_current(store, tmp_path):
  other = submodels.create(tmp_path / "other")
  theirs = other.publish(stores.made("anna", 7))
  ours = [store.publish(stores.made("anna", seed)) for seed in (0, 1)]
  shutil.copyfile(
    tmp_path / "other" / "anna.safetensors",
    tmp_path / "store" / "anna.safetensors",
  )
  assert store.find("anna") == theirs
  assert store.entries() == [theirs]
  assert store.publish(stores.made("anna", 9)).version == 4
  # The number that it came with was taken: it is kept under another one. What it
  # was copied over is lost, and its number not given again.
  stores.assert_is(store.get_version("anna", 3), stores.made("anna", 7))
  assert store.versions("anna")[0] == ours[0]
  assert [each.version for each in store.versions("anna")] == [1, 3, 4]
  stores.assert_is(store.get_version("anna", 1), stores.made("anna", 0))


def test_who_overwrites_in_place_leaves_the_history_alone(store, tmp_path):
  first = store.publish(stores.made("anna", 0))
  store.publish(stores.made("anna", 1))
  store.rollback("anna", 1)
  path = tmp_path / "store" / "anna.safetensors"
  with path.open("r+b") as file:
    file.write(b"\0" * 64)
  assert store.get_version("anna", 1).fingerprint == first.fingerprint


def test_publishing_mends_what_is_damaged(store, tmp_path):
  entries = [store.publish(stores.made("anna", seed)) for seed in range(3)]
  store.entries()
  path = tmp_path / "store" / "anna.safetensors"
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(InputError, match=str(path)):
    store["anna"]
  with pytest.raises(InputError, match=str(path)):
    store.find("anna")
  assert store.publish(stores.made("anna", 5)).version == 4
  path.write_bytes(path.read_bytes()[:-1] + b"\xff")
  assert store.publish(stores.made("anna", 5)).version == 4
  assert store["anna"].version == 4
  store.rollback("anna", 2)
  assert store["anna"].fingerprint == entries[1].fingerprint


def test_a_damaged_former_version_is_never_rolled_back_to(store, tmp_path):
  store.publish(stores.made("anna", 0))
  second = store.publish(stores.made("anna", 1))
  former = tmp_path / "store" / "versions" / "anna" / "1.safetensors"
  former.write_bytes(former.read_bytes()[:-1] + b"\xff")
  with pytest.raises(InputError, match=str(former)):
    store.rollback("anna", 1)
  assert store.find("anna") == second


def test_shared_parameters_have_to_be_those_that_it_says(store):
  wrong = stores.made("anna", shared_fingerprint="0" * 32)
  with pytest.raises(InputError, match=r"shared parameters of hash 0+, got"):
    store.publish(wrong)
  assert not store.entries()


def test_publishing_mends_shared_parameters(store, tmp_path):
  store.publish(stores.made("anna"))
  (path,) = (tmp_path / "store").glob("shared-*")
  path.write_bytes(b"")
  with pytest.raises(InputError, match=str(path)):
    Store(store.folder)["anna"]
  Store(store.folder).publish(stores.made("bert"))
  assert Store(store.folder)["anna"].version == 1


@pytest.mark.parametrize(
  "name",
  ["../x", "/etc/passwd", "a\0b", "..", ".", "~", "index", "versions", "packs"],
)
def test_no_name_leads_out_of_the_folder(store, tmp_path, name):
  outside = tmp_path / "x.safetensors"
  outside.write_bytes(b"not ours")
  with pytest.raises(KeyError):
    store[name]
  assert not store.delete(name)
  store.publish(stores.made(name, 0))
  store.publish(stores.made(name, 1))
  assert store.find(name).task == name
  store.rollback(name, 1)
  assert [each.task for each in store.entries()] == [name]
  store.pack()
  stores.assert_is(store[name], stores.made(name, 0))
  assert store.delete(name)
  assert outside.read_bytes() == b"not ours"
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    "store",
    "x.safetensors",
  ]
  assert _names(tmp_path / "store") == set()


@pytest.mark.parametrize("name", ["", "a\ud800"])
def test_what_is_no_name_is_nobodys(store, name):
  with pytest.raises(KeyError):
    store[name]
  with pytest.raises(KeyError):
    store.stamp(name)
  assert name not in store
  assert not store.delete(name)
  with pytest.raises(InputError, match="name"):
    store.publish(stores.made(name))


def test_nothing_is_said_of_others_to_who_asks_for_nobody(store):
  store.publish(stores.made("secret"))
  with pytest.raises(KeyError) as caught:
    store["bert"]
  assert "secret" not in str(caught.value)


def test_stamps_change_with_the_version_alone(store):
  store.publish(stores.made("anna", 0))
  store.publish(stores.made("bert", 0))
  stamps = {name: store.stamp(name) for name in ("anna", "bert")}
  store.publish(stores.made("anna", 1))
  assert store.stamp("bert") == stamps["bert"]
  assert store.stamp("anna") != stamps["anna"]
  assert Store(store.folder).stamp("anna") == store.stamp("anna")
  with pytest.raises(KeyError):
    store.stamp("cleo")


@pytest.mark.parametrize("emptied", [False, True])
def test_a_store_that_is_gone_is_no_unknown_speaker(store, tmp_path, emptied):
  """Moved, or on a disk that is not mounted any more; and it comes back."""
  store.publish(stores.made("anna"))
  folder, aside = tmp_path / "store", tmp_path / "aside"
  folder.rename(aside)
  if emptied:
    folder.mkdir()
  for ask in (
    lambda: store["anna"],
    lambda: store.find("anna"),
    lambda: store.stamp("bert"),
    lambda: store.versions("anna"),
    store.entries,
  ):
    with pytest.raises(StorageError, match="none any more"):
      ask()
  if emptied:
    folder.rmdir()
  else:
    with pytest.raises(StorageError, match=str(folder)):
      store.publish(stores.made("anna", 1))
    assert not folder.exists()
  aside.rename(folder)
  assert store["anna"].version == 1
  with pytest.raises(KeyError):
    store.stamp("bert")


def test_an_empty_store_knows_nobody(store):
  with pytest.raises(KeyError):
    store.find("anna")
  assert store.entries() == []
  assert Store(store.folder).entries() == []


def test_what_is_damaged_hides_nobody_else(store, tmp_path):
  for name in ("anna", "bert", "cleo"):
    store.publish(stores.made(name))
  folder = tmp_path / "store"
  (folder / "bert.safetensors").write_bytes(b"{}")
  (folder / "dora.safetensors").write_bytes(
    (folder / "cleo.safetensors").read_bytes()
  )
  for each in (store, Store(folder)):
    entries, refused = each.listing()
    assert [entry.task for entry in entries] == ["anna", "cleo"]
    assert sorted(error.where for error in refused) == [
      str(folder / "bert.safetensors"),
      str(folder / "dora.safetensors"),
    ]
    assert [entry.task for entry in each.entries()] == ["anna", "cleo"]


def test_files_of_the_first_format_say_what_to_do(store, tmp_path):
  path = tmp_path / "store" / "anna.safetensors"
  safetensors.numpy.save_file(
    {"x": np.zeros(2)}, path, metadata={"hra": '{"format": 1}'}
  )
  with pytest.raises(
    InputError, match=r"expected format 2, got 1; .*hra train"
  ):
    store["anna"]


def test_publishers_of_a_machine_take_turns(tmp_path):
  """Each thread has a store of its own, as processes have."""
  folder, count = tmp_path / "store", 6
  submodels.create(folder)
  failed = []

  def publish(worker):
    mine = Store(folder)
    try:
      for step in range(count):
        mine.publish(stores.made("both", 100 * worker + step))
        mine.publish(stores.made(f"only-{worker}", step))
    except Exception as error:
      failed.append(error)

  threads = [threading.Thread(target=publish, args=(w,)) for w in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not failed
  store = Store(folder)
  numbers = [each.version for each in store.versions("both")]
  assert numbers == list(range(1, 3 * count + 1))
  assert {each.task: each.version for each in store.entries()} == {
    "both": 3 * count,
    **{f"only-{worker}": count for worker in range(3)},
  }
  stores.assert_whole(folder)


def test_who_waits_too_long_is_told_by_whom(store, monkeypatch):
  monkeypatch.setattr(place, "_PATIENCE", 0.05)
  with (
    store._place.alone(),
    pytest.raises(InputError, match=f"process {os.getpid()}"),
  ):
    store.publish(stores.made("anna"))


def test_a_full_disk_leaves_the_former_version(store, tmp_path, monkeypatch):
  before = store.publish(stores.made("anna", 0))
  files = _names(tmp_path / "store")

  def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with monkeypatch.context() as patch:
    patch.setattr(os, "replace", full)
    for change in (
      lambda: store.publish(stores.made("anna", 1)),
      lambda: store.publish(stores.made("bert", 1)),
      store.pack,
    ):
      with pytest.raises(StorageError, match="free some space"):
        change()
  assert store.find("anna") == before
  assert _names(tmp_path / "store") - files <= {"versions/anna/1.safetensors"}
  assert store.publish(stores.made("anna", 1)).version == 2
  stores.assert_whole(tmp_path / "store")


def test_readers_see_the_former_or_the_new(store):
  """While versions change as fast as they can."""
  store.publish(stores.made("anna", 0))
  known = {
    submodels.file.content(stores.made("anna", seed))
    .tensors["head/bias"]
    .tobytes()
    for seed in range(4)
  }
  ended = threading.Event()

  def publish():
    for step in range(60):
      store.publish(stores.made("anna", step % 4))
      if step % 10 == 9:
        store.pack()
    ended.set()

  writer = threading.Thread(target=publish)
  writer.start()
  reads = 0
  while not ended.is_set():
    found = store["anna"]
    assert found.row["head"]["bias"].tobytes() in known
    assert 1 <= store.find("anna").version <= 4
    reads += 1
  writer.join()
  assert reads > 20


_ACTIONS = st.lists(
  st.tuples(
    st.sampled_from(["publish", "rollback", "delete", "pack", "copy"]),
    st.sampled_from(["anna", "bert"]),
    st.integers(0, 4),
  ),
  max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(_ACTIONS)
def test_a_store_is_what_a_few_lines_of_a_model_say(tmp_path_factory, actions):
  folder = tmp_path_factory.mktemp("model")
  store = Store(folder)
  versions: dict[str, dict[int, int]] = {"anna": {}, "bert": {}}
  current: dict[str, int] = {}
  for action, task, seed in actions:
    mine = versions[task]
    if action == "publish":
      same = [number for number, other in mine.items() if other == seed]
      number = same[0] if same else max(mine, default=0) + 1
      mine[number], current[task] = seed, number
      entry = store.publish(stores.made(task, seed))
      assert entry.version == number
    elif action == "rollback" and seed in mine:
      current[task] = seed
      assert store.rollback(task, seed).version == seed
    elif action == "delete":
      assert store.delete(task) == (task in current)
      mine.clear()
      current.pop(task, None)
    elif action == "pack":
      assert not store.pack().refused
    elif action == "copy" and task in current:
      # The same file by other ways: loose again, also where it is packed.
      content = submodels.file.content(
        stores.made(task, mine[current[task]])
      ).numbered(current[task])
      path = folder / submodels.file_name(task)
      path.write_bytes(content.encode())
    for each in (store, Store(folder)):
      found = {entry.task: entry.version for entry in each.entries()}
      assert found == current
      for name, numbers in versions.items():
        if numbers:
          told = [entry.version for entry in each.versions(name)]
          assert told == sorted(numbers)
        for number, content_seed in numbers.items():
          stores.assert_is(
            each.get_version(name, number), stores.made(name, content_seed)
          )
  stores.assert_whole(folder)
