"""What stands in a store's folder under the name of a file, and is none."""

import os
import queue
import socket
import threading

import pytest
import stores

from hra import submodels
from hra.errors import InputError, StorageError
from hra.submodels import Store


def _socket(path):
  with socket.socket(socket.AF_UNIX) as made:
    made.bind(os.path.relpath(path))


MADE = {
  "a folder": os.mkdir,
  "a pipe": os.mkfifo,
  "socket": _socket,
  "device": lambda path: os.symlink("/dev/zero", path),
}


def _soon(function, *args):
  """What a call returns, if it does: a thread that waits is left alone."""
  found = queue.SimpleQueue()

  def work():
    try:
      found.put((function(*args), None))
    except Exception as error:
      found.put((None, error))

  threading.Thread(target=work, daemon=True).start()
  result, error = found.get(timeout=10)
  if error is not None:
    raise error
  return result


@pytest.mark.parametrize("kind", MADE)
def test_what_is_no_file_is_damaged_and_keeps_nobody_waiting(tmp_path, kind):
  folder = tmp_path / "store"
  store = submodels.create(folder)
  store.publish(stores.made("bert"))
  path = folder / "anna.safetensors"
  MADE[kind](path)
  for each in (store, Store(folder)):
    for ask in (each.__getitem__, each.find):
      with pytest.raises(
        InputError, match=f"a regular file, got .*{kind}"
      ) as e:
        _soon(ask, "anna")
      assert not isinstance(e.value, StorageError)
      assert e.value.where == str(path)
    assert _soon(each.__getitem__, "bert").task == "bert"
    assert [entry.task for entry in _soon(each.entries)] == ["bert"]
  if kind != "a folder":
    _soon(store.publish, stores.made("anna"))
    assert _soon(store.__getitem__, "anna").task == "anna"


def test_an_index_that_is_a_pipe_costs_time_alone(tmp_path):
  folder = tmp_path / "store"
  submodels.create(folder).publish(stores.made("bert"))
  (folder / "index.json").unlink()
  os.mkfifo(folder / "index.json")
  assert [entry.task for entry in _soon(Store(folder).entries)] == ["bert"]
  assert (folder / "index.json").is_file()
