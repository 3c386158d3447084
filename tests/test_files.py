"""Files stand whole under their name, or not at all."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from etils import epath

from hra import files
from hra.errors import InputError
from hra.files import locked


def test_write_aside_replaces_whole_files_and_leaves_nothing_beside(tmp_path):
  path = tmp_path / "a.bin"
  for data in (b"one", b"", b"other"):
    files.write_aside(path, data)
    assert path.read_bytes() == data
  assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch):
  path = tmp_path / "a.bin"
  files.write_aside(path, b"whole")

  def interrupted(self, data):
    with self.open("wb") as file:
      file.write(data[:1])
    raise KeyboardInterrupt

  monkeypatch.setattr(type(epath.Path(path)), "write_bytes", interrupted)
  with pytest.raises(KeyboardInterrupt):
    files.write_aside(path, b"other")
  monkeypatch.undo()
  assert path.read_bytes() == b"whole"


def test_write_json_depends_on_the_values_alone(tmp_path):
  files.write_json(tmp_path / "a.json", {"b": [1], "a": "é"})
  files.write_json(tmp_path / "b.json", {"a": "é", "b": [1]})
  text = (tmp_path / "a.json").read_text()
  assert text == (tmp_path / "b.json").read_text()
  assert text.endswith("}\n")
  assert json.loads(text) == {"a": "é", "b": [1]}


def test_absolute_keeps_urls(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert files.absolute("runs/a") == epath.Path(tmp_path / "runs/a")
  assert str(files.absolute("gs://bucket/a")) == "gs://bucket/a"


def test_a_lock_keeps_other_processes_out_until_its_own_ends(tmp_path):
  code = f"""
import time
from hra.files import locked
with locked({str(tmp_path)!r}, fix=""):
  print("locked", flush=True)
  time.sleep(60)
"""
  with subprocess.Popen(
    [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
  ) as other:
    assert other.stdout.readline() == "locked\n"
    expected = f"process {other.pid} on .* at work in it; wait for it, or"
    with pytest.raises(InputError, match=expected), locked(tmp_path, fix=""):
      pass
    other.kill()
  for _ in range(2):
    with (
      locked(tmp_path, fix=""),
      pytest.raises(InputError, match=f"process {os.getpid()} on"),
      locked(tmp_path, fix=""),
    ):
      pass


def test_the_lock_of_a_deleted_folder_locks_nothing(tmp_path, monkeypatch):
  folder = tmp_path / "work"
  folder.mkdir()
  lock = files._lock

  def late(file, how):
    shutil.rmtree(folder)  # By the process that had the lock until now,
    folder.mkdir()
    (folder / ".lock").write_text("7")  # and a third one has it now.
    return lock(file, how)

  monkeypatch.setattr(files, "_lock", late)
  with pytest.raises(InputError, match="at work in it"), locked(folder, fix=""):
    pass


@pytest.mark.parametrize(
  ("data", "got"),
  [
    (b'{"tasks": ["anna"', "no JSON"),
    (b"\xff\xfe\x00", "no JSON"),
    (b'["anna"]', "a list"),
    (b'{"others": 1}', "one without tasks"),
  ],
)
def test_damaged_json_is_named(tmp_path, data, got):
  path = epath.Path(tmp_path / "tasks.json")
  path.write_bytes(data)
  with pytest.raises(InputError, match=got) as caught:
    files.read_json(path, keys=("tasks",))
  assert str(path) in str(caught.value)
  files.write_json(path, {"tasks": ["anna"]})
  assert files.read_json(path, keys=("tasks",)) == {"tasks": ["anna"]}
