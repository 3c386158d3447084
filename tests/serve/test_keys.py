"""Keys: who is let in, what is kept of them, and what `hra key` says."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from hra.errors import InputError, StorageError
from hra.serve import keys


@pytest.fixture
def path(tmp_path):
  return tmp_path / "keys.json"


def test_a_token_finds_its_key_and_nothing_near_it_does(path):
  anna = keys.add(path, "anna's phone", speakers=["anna"])
  ops = keys.add(path, "ops", speakers=[], admin=True)
  clinic = keys.add(path, "clinic", speakers=None)
  held = keys.Keys.open(path)
  assert held.find(anna) == ("anna's phone", {"anna"}, False)
  assert held.find(ops) == ("ops", frozenset(), True)
  assert held.find(clinic) == ("clinic", None, False)
  mark, ident, secret = anna.split("_", 2)
  _, other, _ = ops.split("_", 2)
  for wrong in (
    "",
    "hra_",
    anna[:-1],
    f"{anna}x",
    f" {anna}",
    anna.upper(),
    f"{mark}_{ident}_",
    f"{mark}_{other}_{secret}",
    f"{mark}_000000000000_{secret}",
    "\ud800",
    "ä" * 10_000,
    "\0",
  ):
    assert held.find(wrong) is None, wrong


def test_whom_a_key_may_use(path):
  keys.add(path, "one", speakers=["anna"])
  one, every = (
    keys.entries(path)[0].key,
    keys.Key("every", None, False),
  )
  nobody = keys.Key("ops", frozenset(), True)
  for task, expected in {
    "anna": (True, True, False),
    "bert": (False, True, False),
    "": (False, True, False),
    "Anna": (False, True, False),
    None: (True, True, True),
  }.items():
    assert (
      one.may_use(task),
      every.may_use(task),
      nobody.may_use(task),
    ) == expected


def test_no_token_is_kept_and_only_the_owner_reads_the_file(path):
  before = os.umask(0)
  try:
    token = keys.add(path, "a", speakers=None)
  finally:
    os.umask(before)
  text = path.read_text()
  for part in (token.split("_", 2)[2], token):
    assert part not in text
  assert path.stat().st_mode & 0o777 == 0o600
  assert {file.name for file in path.parent.iterdir()} == {"keys.json", ".lock"}


def test_tokens_are_random(path):
  tokens = {keys.add(path, f"{n}", speakers=None) for n in range(20)}
  secrets = [token.split("_", 2)[2] for token in tokens]
  assert len(set(secrets)) == 20
  assert min(map(len, secrets)) >= 43  # 256 bits in base 64


def test_a_running_server_follows_the_file(path):
  first = keys.add(path, "first", speakers=None)
  held = keys.Keys.open(path)
  second = keys.add(path, "second", speakers=None)
  assert held.find(second) is not None
  keys.revoke(path, "first")
  assert held.find(first) is None
  assert held.find(second) is not None


@pytest.mark.parametrize("harm", ["lost", "damaged", "open to all"])
def test_what_happens_to_the_file_lets_nobody_in(path, harm):
  token = keys.add(path, "a", speakers=None)
  held = keys.Keys.open(path)
  whole = path.read_bytes()
  match harm:
    case "lost":
      path.unlink()
    case "damaged":
      path.write_bytes(whole[:-10])
    case "open to all":
      path.write_bytes(whole + b"\n")
      path.chmod(0o666)
  assert held.find(token) is None
  path.write_bytes(whole)
  path.chmod(0o600)
  assert held.find(token) is not None


def test_a_mode_alone_locks_out_and_lets_in_again(path):
  token = keys.add(path, "a", speakers=None)
  held = keys.Keys.open(path)
  for _ in range(2):
    path.chmod(0o620)
    assert held.find(token) is None
    path.chmod(0o600)
    assert held.find(token) is not None


def test_a_change_is_seen_that_leaves_size_and_time_as_they_were(path):
  token = keys.add(path, "a", speakers=None)
  held = keys.Keys.open(path)
  before = path.stat()
  time.sleep(0.02)  # a file system's clock ticks
  path.write_bytes(path.read_bytes()[:-2] + b"\n]")
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
  assert path.stat()[:9] == before[:9]
  assert held.find(token) is None


def test_what_is_no_file_of_keys_is_refused(path, tmp_path):
  with pytest.raises(StorageError, match="no such file"):
    keys.Keys.open(path)
  keys.add(path, "a", speakers=["b"])
  told = json.loads(path.read_text())
  entry = told["keys"]["a"]
  for change in (
    {"format": 2},
    {"keys": []},
    {"keys": {"a": {}}},
    {"keys": {"a": entry | {"speakers": "anna"}}},
    {"keys": {"a": entry | {"admin": "no"}}},
    {"keys": {"a": entry | {"sha256": "00"}}},
    {"keys": {"a": entry | {"sha256": 64 * "x"}}},
    {"keys": {"a": entry | {"sha256": 7}}},
    {"keys": {"a": entry | {"more": 1}}},
    {"keys": {"a": 3}},
  ):
    path.write_text(json.dumps(told | change))
    with pytest.raises(InputError, match=r"keys\.json: expected"):
      keys.Keys.open(path)
  for text in ("", "[]", '"keys"', "\xff"):
    path.write_text(text)
    with pytest.raises(InputError, match=r"keys\.json: expected"):
      keys.Keys.open(path)
  with pytest.raises(StorageError):
    keys.Keys.open(tmp_path)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_to_is_refused(path, mode):
  keys.add(path, "a", speakers=None)
  path.chmod(mode)
  with pytest.raises(InputError, match="chmod 600"):
    keys.Keys.open(path)


def test_names(path):
  keys.add(path, "a", speakers=None)
  for name in ("", " ", "a ", "a\nb", "\x1b[1m", "a"):
    with pytest.raises(InputError):
      keys.add(path, name, speakers=None)
  with pytest.raises(InputError, match="speakers"):
    keys.add(path, "b", speakers=[""])
  with pytest.raises(InputError, match="'b'; hra key --action=list"):
    keys.revoke(path, "b")
  with pytest.raises(StorageError):
    keys.revoke(path.with_name("none.json"), "a")
  assert [entry.key.name for entry in keys.entries(path)] == ["a"]


def test_one_change_at_a_time_and_none_is_lost(path):
  def add(first):
    for number in range(first, first + 5):
      while True:
        with contextlib.suppress(InputError):  # another thread is at work
          keys.add(path, f"{number}", speakers=None)
          break

  threads = [threading.Thread(target=add, args=(n,)) for n in (0, 10, 20)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(60)
  assert len(keys.entries(path)) == 15


def test_a_thousand_keys_are_found_as_fast_as_one(path):
  token = keys.add(path, "a", speakers=None)
  told = json.loads(path.read_text())
  entry = told["keys"]["a"]
  many = {f"{n}": entry | {"id": f"{n:012x}"} for n in range(10_000)}
  path.write_text(json.dumps(told | {"keys": many | told["keys"]}))
  held = keys.Keys.open(path)
  compared = 0
  original = keys.hmac.compare_digest

  def counting(left, right):
    nonlocal compared
    compared += 1
    return original(left, right)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(keys.hmac, "compare_digest", counting)
    for asked, found in ((token, "a"), ("hra_0_0", None), ("", None)):
      compared = 0
      key = held.find(asked)
      assert (key and key.name) == found
      assert compared == 1  # whether there is such an ID, or not


def _hra_key(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "hra.commands.key", *arguments],
    capture_output=True,
    text=True,
    check=False,
    env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
  )


def test_the_command(path):
  file = f"--keys={path}"
  added = _hra_key("--action=add", file, "--name=phone", "--speakers=anna,bert")
  assert added.returncode == 0, added.stderr
  token = added.stdout.strip()
  assert token not in added.stderr
  assert keys.Keys.open(path).find(token) == ("phone", {"anna", "bert"}, False)
  made = _hra_key("--action=add", file, "--name=ops", "--admin")
  assert made.returncode == 0, made.stderr
  listed = _hra_key(file).stdout
  assert token not in listed
  day = keys.entries(path)[0].made
  assert listed == f"phone\t{day}\tanna, bert\nops\t{day}\tadmin\n"
  revoked = _hra_key("--action=revoke", file, "--name=phone")
  assert revoked.returncode == 0
  assert keys.Keys.open(path).find(token) is None
  for wrong in (
    ["--action=add", file, "--name=x"],
    ["--action=add", file, "--speakers=anna"],
    ["--action=add", file, "--name=x", "--speakers=a", "--every_speaker"],
    ["--action=add", file, "--name=ops", "--admin"],
    ["--action=add", "--name=x", "--admin"],
    ["--action=revoke", file, "--name=x"],
    ["--action=list", f"--keys={pathlib.Path(path).parent / 'none'}"],
  ):
    refused = _hra_key(*wrong)
    assert refused.returncode == 2
    assert refused.stderr.startswith("hra key: ")
    assert refused.stderr.count("\n") == 1
