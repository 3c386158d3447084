"""kill -9 at any moment leaves a whole store: the former version, or the new one.

A process that holds the program forks one child for each line that it reads, which
changes a store and is killed: by itself at a chosen change of a file, or from outside.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import stores

from hra.submodels import Store

_FORKS = """
import os, signal, sys
import stores
from hra.submodels import Store

assert "jax" not in sys.modules  # what is forked has no threads

def dying(function, calls, moment):
  def call(*arguments, **named):
    calls.append(function)
    if len(calls) == moment:
      os.kill(os.getpid(), signal.SIGKILL)
    return function(*arguments, **named)
  return call

def act(store, action):
  if action == "publish":
    store.publish(stores.made("anna", 7))
  elif action == "first":
    store.publish(stores.made("new", 7, shared_seed=5))
  elif action == "rollback":
    store.rollback("anna", 1)
  elif action == "delete":
    store.delete("anna")
  elif action == "pack":
    store.pack()
  elif action == "forever":
    for step in range(1_000_000):
      if step == 1:
        print(os.getpid(), flush=True)
      store.publish(stores.made("anna", step if step % 2 else os.getpid() + step))
      if step % 7 == 6:
        store.pack()
      if step % 23 == 22:
        store.rollback("anna", 1)

for line in sys.stdin:
  folder, action, moment = line.split()
  child = os.fork()
  if not child:
    calls = []
    if action != "forever":
      print(os.getpid(), flush=True)
    for name in ("replace", "unlink", "link", "rmdir", "makedirs", "pwrite"):
      setattr(os, name, dying(getattr(os, name), calls, int(moment)))
    import builtins
    builtins.open = dying(open, calls, int(moment))
    act(Store(folder), action)
    os._exit(0)
  _, status = os.waitpid(child, 0)
  print(-os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.fixture(scope="module")
def forks():
  """Asks for a child, and hands on what it says."""
  paths = [str(Path(stores.__file__).parent), os.environ.get("PYTHONPATH", "")]
  with subprocess.Popen(
    [sys.executable, "-c", _FORKS],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
  ) as process:
    yield process
    process.stdin.close()


def _begin(forks, folder, action, moment=0):
  """The child's number, as it says it before it begins, or when it has begun."""
  print(folder, action, moment, file=forks.stdin, flush=True)
  return int(forks.stdout.readline())


def _ended_by(forks):
  return int(forks.stdout.readline())


@pytest.fixture(scope="module")
def before(tmp_path_factory):
  """Anna has three versions, the latest packed, and bert two."""
  folder = tmp_path_factory.mktemp("before") / "store"
  folder.mkdir()
  store = Store(folder)
  for seed in range(3):
    store.publish(stores.made("anna", seed))
  store.pack()
  store.publish(stores.made("anna", 3, shared_seed=1))
  for seed in range(2):
    store.publish(stores.made("bert", seed))
  store.publish(stores.made("cleo", 0, adapter=stores.WIDE, shared_seed=None))
  return folder


def _told(folder):
  """Everything that a store says."""
  store = Store(folder)
  return {
    entry.task: (
      (entry.version, entry.fingerprint),
      [each[1:3] for each in store.versions(entry.task)],
    )
    for entry in store.entries()
  }


def _files(folder):
  return {
    str(path.relative_to(folder))
    for path in folder.rglob("*")
    if path.is_file()
  }


@pytest.mark.parametrize(
  "action", ["publish", "first", "rollback", "delete", "pack"]
)
def test_a_kill_at_any_change_of_a_file(forks, before, tmp_path, action):
  former = _told(before)
  whole = tmp_path / "whole"
  shutil.copytree(before, whole)
  _begin(forks, whole, action)
  assert _ended_by(forks) == 0
  done = _told(whole)
  assert done != former or action == "pack"
  for moment in range(1, 200):
    folder = tmp_path / str(moment)
    shutil.copytree(before, folder)
    _begin(forks, folder, action, moment)
    status = _ended_by(forks)
    stores.assert_whole(folder)
    left = _told(folder)
    for task in former.keys() | done.keys():
      states = [
        told[task][0] if task in told else None for told in (former, done)
      ]
      assert (left[task][0] if task in left else None) in states
    _begin(forks, folder, action)
    assert _ended_by(forks) == 0
    assert _told(folder) == done
    assert _files(folder) == _files(whole)
    if status == 0:
      break
    assert status == signal.SIGKILL
  assert 3 < moment < 199


@pytest.mark.parametrize(
  "rounds", [10, pytest.param(100, marks=pytest.mark.slow)]
)
def test_a_kill_at_any_time(forks, tmp_path, rounds):
  """Of who publishes, packs and rolls back without a pause."""
  folder = tmp_path / "store"
  folder.mkdir()
  first = Store(folder).publish(stores.made("anna", 0))
  rng = random.Random(0)
  for _ in range(rounds):
    child = _begin(forks, folder, "forever")
    time.sleep(rng.uniform(0.0, 0.04))
    os.kill(child, signal.SIGKILL)
    assert _ended_by(forks) == signal.SIGKILL
    stores.assert_whole(folder)
    kept = {
      each.version: each.fingerprint for each in Store(folder).versions("anna")
    }
    assert kept[1] == first.fingerprint
    assert list(kept) == list(range(1, len(kept) + 1))
  assert len(kept) >= rounds
