"""Manifests: what a line may say, and what is said of bad ones."""

import json

import pytest

from hra.data.corpora import manifest
from hra.data.corpora.fields import Fields
from hra.data.records import Problems, Record
from hra.errors import InputError, StorageError


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


def _read(path, **options):
  """Records, and what was wrong; nothing is, by default."""
  problems = Problems(path, expected="a manifest without faults")
  records = manifest.read(path, problems=problems, **options)
  return records, [str(problem) for problem in problems]


def _good(path, **options):
  records, problems = _read(path, **options)
  assert problems == []
  return records


def test_fields_and_defaults(tmp_path):
  path = _write(
    tmp_path,
    _line("x/../x/./a.wav"),
    "",
    _line("b.wav", task="clinic", id="second", text="h\u2028i"),
    _line("/far/c.wav", speaker=7, duration=None),
  )
  first, second, third = _good(path)
  assert first == Record(
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


def test_sessions_and_splits(tmp_path):
  path = _write(tmp_path, _line(session=3, split="dev-other"), _line("b.wav"))
  first, second = _good(path)
  assert (first.session, first.split) == ("3", "dev_other")
  assert (second.session, second.split) == (None, None)


def test_other_names_of_fields(tmp_path):
  line = {
    "file": "a.wav",
    "said": "hello",
    "accent": "scots",
    "speaker": "anna",
    "part": "dev",
    "day": "monday",
  }
  fields = Fields(
    text="said", task="accent", session="day", split="part", audio="file"
  )
  (record,) = _good(_write(tmp_path, line), fields=fields)
  assert record.text == "hello"
  assert record.task == "scots"
  assert (record.session, record.split) == ("monday", "dev")
  assert record.id == "a.wav"


def test_a_named_task_field_has_no_substitute(tmp_path):
  path = _write(tmp_path, _line())
  records, problems = _read(path, fields=Fields(task="accent"))
  assert records == []
  assert problems == [f"{path}:1: expected 'accent', got nothing"]


def test_id_stays_when_the_folder_moves(tmp_path):
  ids = []
  for name in ("one", "two"):
    folder = tmp_path / name
    folder.mkdir()
    lines = _line("x/a.wav"), _line(str(folder / "b.wav"))
    ids.append([record.id for record in _good(_write(folder, *lines))])
  assert ids[0] == ids[1] == ["x/a.wav", "b.wav"]


def test_segments_of_one_file_have_ids_of_their_own(tmp_path):
  path = _write(
    tmp_path, _line(offset=0), _line(offset=1.5), _line(offset=12345.678)
  )
  records = _good(path)
  assert [record.offset for record in records] == [0.0, 1.5, 12345.678]
  assert [record.id for record in records] == [
    "a.wav@0",
    "a.wav@1.5",
    "a.wav@12345.678",
  ]


def test_segments_that_overlap_are_segments(tmp_path):
  path = _write(
    tmp_path,
    _line(offset=0, duration=1),
    _line(offset=0, duration=2),
    _line(offset=0, duration=2, speaker="ben"),
    _line(offset=0, duration=2),
  )
  records, (problem,) = _read(path)
  assert [record.id for record in records] == [
    "a.wav@0",
    "a.wav@0+2",
    "a.wav@0+2/ben",
  ]
  assert problem == (
    f"{path}:4: expected a new recording, got '{tmp_path}/a.wav' from 0 s for "
    f"2 s again; see {path}:2"
  )


def test_spaces_and_joiners_of_many_languages(tmp_path):
  names = ["a\u00a0b", "a\u202fb", "\u0645\u06cc\u200c\u0631", "\u0915\u200d"]
  lines = [
    _line(f"{name}.wav", speaker=name, session=name, id=name) for name in names
  ]
  records = _good(_write(tmp_path, *lines))
  assert [(r.id, r.task, r.session) for r in records] == [
    (name,) * 3 for name in names
  ]


def test_a_file_of_one_split(tmp_path):
  path = _write(
    tmp_path,
    _line("1.wav", split="validation"),
    _line("2.wav", split="test"),
    _line("3.wav"),
  )
  records, (problem,) = _read(path, split="dev")
  assert [(r.id, r.split) for r in records] == [
    ("1.wav", "dev"),
    ("3.wav", "dev"),
  ]
  assert problem.startswith(f"{path}:2: expected 'split' as the file is named")


@pytest.mark.parametrize(
  ("indent", "document", "expected"),
  [
    (None, [_line()] * 9, r"m\.jsonl:1: .*got a JSON array.*jq -c \.\[\]"),
    (2, [_line()] * 9, r"m\.jsonl:1: .*got a JSON array.*jq -c \.\[\]"),
    (2, _line(), r"m\.jsonl:1: .*an object on several lines.*jq -c \.` does"),
  ],
)
def test_json_of_another_kind(tmp_path, indent, document, expected):
  path = _write(tmp_path, json.dumps(document, indent=indent))
  with pytest.raises(InputError, match=expected):
    _read(path)


def test_addresses_are_kept(tmp_path):
  (record,) = _good(_write(tmp_path, _line("gs://bucket/a/../b.wav")))
  assert record.path == record.id == "gs://bucket/a/../b.wav"


def test_byte_order_mark_and_mixed_line_ends(tmp_path):
  path = tmp_path / "m.jsonl"
  one, two, three, four = (
    json.dumps(_line(f"{n}.wav")).encode() for n in range(4)
  )
  path.write_bytes(
    b"\xef\xbb\xbf" + one + b"\r\n" + two + b"\n\n" + three + b"\r" + four
  )
  wheres = [record.where for record in _good(path)]
  assert wheres == [f"{path}:{n}" for n in (1, 2, 4, 5)]


@pytest.mark.parametrize(
  ("line", "expected"),
  [
    ("{'single': 1}", "one JSON object a line"),
    ("[1]", "expected a JSON object, got a list"),
    ("NaN", "expected a JSON object, got a float"),
    (_line(audio_filepath=None), "'audio_filepath', got nothing"),
    (_line(audio_filepath=5), "'audio_filepath' as a string, got 5 (int)"),
    (_line("https://x.org/a.wav"), "gs:// or s3://, got 'https://x.org/a.wav'"),
    (_line("a\0.wav"), "'audio_filepath' with printable text"),
    (_line(text=None), "'text', got nothing"),
    (_line(text=5), "'text' as a string, got 5 (int)"),
    (_line(text="  "), "'text' with printable text"),
    (_line(text="a\0b"), r"'text' with printable text, got 'a\x00b'"),
    (_line(text="a\ud800"), r"'text' with printable text, got 'a\ud800'"),
    (_line(speaker="\udfff"), r"'speaker' with printable text, got '\udfff'"),
    (_line(speaker=None), "'speaker', got nothing; say which task"),
    (_line(speaker=["a"]), "'speaker' as a string"),
    (_line(speaker=True), "'speaker' as a string, got True (bool)"),
    (_line(task="a\nb"), "'task' with printable text"),
    (_line(task="a\x85b"), "'task' with printable text"),
    (_line(task="a\u2028b"), "'task' with printable text"),
    (_line(session=" "), "'session' with printable text"),
    (_line(split="a/b"), "a split such as train"),
    (_line(split="1st"), "a split such as train"),
    (_line(split="all"), "'all', which stands for all splits together"),
    (_line(split=["dev"]), "'split' as a string"),
    (_line(duration="1"), "'duration' in seconds, got '1'"),
    (_line(duration=0), "duration above 0"),
    (_line(duration=True), "'duration' in seconds"),
    (_line(duration=float("nan")), "'duration' in seconds, got nan"),
    (_line(duration=float("inf")), "'duration' in seconds, got inf"),
    (_line(duration=10**400), "'duration' in seconds, got 1000000"),
    (_line(offset=-1), "'offset' in seconds, got -1"),
    (_line(offset=1, duration=None), "duration beside the offset"),
    ('{"duration": ' + "9" * 5000 + "}", "a number of thousands of digits"),
    ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
    ('{"text": "a\0b"}', "no JSON (Invalid control character"),
  ],
)
def test_a_bad_line_is_named_and_the_others_kept(tmp_path, line, expected):
  path = _write(tmp_path, _line("1.wav"), line, _line("3.wav"))
  records, (problem,) = _read(path)
  assert [record.id for record in records] == ["1.wav", "3.wav"]
  assert problem.startswith(f"{path}:2: ")
  assert expected in problem
  assert "\n" not in problem
  assert len(problem) < len(str(path)) + 300


def test_a_line_in_another_encoding_is_named(tmp_path):
  path = tmp_path / "m.jsonl"
  lines = [
    json.dumps(_line("1.wav")).encode(),
    b'{"text": "\xc3\xa9t\xe9"}',
    json.dumps(_line("3.wav")).encode(),
  ]
  path.write_bytes(b"\n".join(lines))
  records, (problem,) = _read(path)
  assert len(records) == 2
  assert problem.startswith(
    f"{path}:2: expected UTF-8 text, got byte 0xE9 at column 13; "
  )
  assert "iconv -f LATIN1 -t UTF-8" in problem


def test_duplicates_are_refused(tmp_path):
  path = _write(tmp_path, _line("a.wav", id="x"), _line("./a.wav", id="y"))
  records, (problem,) = _read(path)
  assert len(records) == 1
  assert "expected a new recording" in problem
  assert problem.endswith(f"see {path}:1")
  path = _write(tmp_path, _line("a.wav", id="x"), _line("b.wav", id="x"))
  records, (problem,) = _read(path)
  assert len(records) == 1
  assert "expected a new id, got 'x' again" in problem


def test_unreadable_manifests(tmp_path):
  with pytest.raises(StorageError, match="no such file"):
    _read(tmp_path / "absent.jsonl")
  with pytest.raises(StorageError, match="directory"):
    _read(tmp_path)
  with pytest.raises(InputError, match="an empty file"):
    _read(_write(tmp_path, "", " "))
  path = tmp_path / "utf16.jsonl"
  for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
    path.write_text(json.dumps(_line()), encoding=encoding)
    with pytest.raises(InputError, match=r"got UTF-16 or binary.*iconv"):
      _read(path)
