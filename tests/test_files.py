"""Files stand whole under their name, or not at all."""

import json

import pytest
from etils import epath

from hra import files


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
