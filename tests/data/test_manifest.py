"""Manifests: what a line may say, and what is said of bad ones."""

import json

import pytest

from hra.data import manifest
from hra.errors import InputError


def _write(folder, *lines):
  path = folder / "m.jsonl"
  path.write_text(
    "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines),
    encoding="utf-8",
  )
  return path


def _line(name="a.wav", **fields):
  return {
    "audio_filepath": name,
    "duration": 1.5,
    "text": "hello",
    "speaker": "anna",
    **fields,
  }


def test_fields_and_defaults(tmp_path):
  path = _write(
    tmp_path,
    _line("x/../x/./a.wav"),
    "",
    _line("b.wav", task="clinic", id="second", text="h\u2028i"),
    _line("/far/c.wav", speaker=7, duration=None),
  )
  first, second, third = manifest.read(path)
  assert first == manifest.Record(
    id="x/a.wav",
    path=str(tmp_path / "x/a.wav"),
    text="hello",
    task="anna",
    duration=1.5,
    where=f"{path}:1",
  )
  assert (second.task, second.id, second.text) == (
    "clinic",
    "second",
    "h\u2028i",
  )
  assert (third.task, third.path, third.id) == ("7", "/far/c.wav", "/far/c.wav")
  assert third.duration is None
  assert third.where.endswith(":4")


def test_id_stays_when_the_folder_moves(tmp_path):
  ids = []
  for name in ("one", "two"):
    folder = tmp_path / name
    folder.mkdir()
    lines = _line("x/a.wav"), _line(str(folder / "b.wav"))
    ids.append([record.id for record in manifest.read(_write(folder, *lines))])
  assert ids[0] == ids[1] == ["x/a.wav", "b.wav"]


def test_segments_of_one_file_have_ids_of_their_own(tmp_path):
  path = _write(tmp_path, _line(offset=0), _line(offset=1.5))
  first, second = manifest.read(path)
  assert (first.offset, second.offset) == (0.0, 1.5)
  assert (first.id, second.id) == ("a.wav@0", "a.wav@1.5")


def test_byte_order_mark_and_windows_line_ends(tmp_path):
  path = tmp_path / "m.jsonl"
  text = "\r\n".join(json.dumps(_line(name)) for name in ("a.wav", "b.wav"))
  path.write_bytes(b"\xef\xbb\xbf" + text.encode())
  assert len(manifest.read(path)) == 2


@pytest.mark.parametrize(
  ("line", "match"),
  [
    ("{'single': 1}", "expected one JSON object a line.* got no JSON"),
    ("[1]", "expected a JSON object, got a list"),
    (_line(audio_filepath=None), "'audio_filepath', got nothing"),
    (_line(text=None), "'text', got nothing"),
    (_line(text=5), r"'text' as a string, got 5 \(int\)"),
    (_line(text="  "), "'text' with printable text"),
    (_line(speaker=None), "'speaker', got nothing; say which task"),
    (_line(speaker=["a"]), "'speaker' as a string"),
    (_line(task="a\nb"), "'task' with printable text"),
    (_line(duration="1"), "'duration' in seconds, got '1'"),
    (_line(duration=0), "duration above 0"),
    (_line(duration=True), "'duration' in seconds"),
    (_line(offset=-1), "'offset' in seconds, got -1"),
    (_line(offset=1, duration=None), "duration beside the offset"),
  ],
)
def test_a_bad_line_is_named(tmp_path, line, match):
  path = _write(tmp_path, _line("good.wav"), line)
  with pytest.raises(InputError, match=match) as caught:
    manifest.read(path)
  assert str(caught.value).startswith(f"{path}:2: ")
  assert "\n" not in str(caught.value)


def test_duplicates_are_refused(tmp_path):
  path = _write(tmp_path, _line("a.wav", id="x"), _line("./a.wav", id="y"))
  with pytest.raises(InputError, match=r"new recording.*see .*m.jsonl:1"):
    manifest.read(path)
  path = _write(tmp_path, _line("a.wav", id="x"), _line("b.wav", id="x"))
  with pytest.raises(InputError, match="a new id, got 'x' again"):
    manifest.read(path)


def test_all_problems_come_together(tmp_path):
  bad = [_line(f"{n}.wav", text=None) for n in range(30)]
  path = _write(tmp_path, _line(), *bad)
  with pytest.raises(
    InputError, match="got 30 problems; the first 20"
  ) as caught:
    manifest.read(path)
  lines = str(caught.value).splitlines()
  assert len(lines) == 21
  for number, line in enumerate(lines[1:], start=2):
    assert line.startswith(f"  {path}:{number}: ")


def test_unreadable_manifests(tmp_path):
  with pytest.raises(InputError, match="no such file"):
    manifest.read(tmp_path / "absent.jsonl")
  with pytest.raises(InputError, match="directory"):
    manifest.read(tmp_path)
  with pytest.raises(InputError, match="an empty file"):
    manifest.read(_write(tmp_path, "", " "))
  binary = tmp_path / "b.jsonl"
  binary.write_bytes(b"\xff\xfe\x00")
  with pytest.raises(InputError, match="UTF-8 text, got other bytes at 0"):
    manifest.read(binary)
