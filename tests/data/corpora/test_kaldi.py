"""Kaldi data folders: what they may hold, and what is said of bad ones."""

import pytest
from etils import epath

from hra.data.corpora import kaldi
from hra.data.records import Problems, Record
from hra.errors import InputError, StorageError


def _folder(path, **files):
  """Two utterances that are whole recordings, unless files say otherwise."""
  lines = {
    "wav.scp": "u1 /a/1.wav\nu2 /a/2.wav\n",
    "text": "u1 one\nu2 two  words\n",
    "utt2spk": "u1 anna\nu2 ben\n",
    "segments": None,
  } | {name.replace("wav_scp", "wav.scp"): text for name, text in files.items()}
  path.mkdir(exist_ok=True)
  for name, text in lines.items():
    if text is not None:
      data = text if isinstance(text, bytes) else text.encode()
      (path / name).write_bytes(data)
  return epath.Path(path)


def _read(folder, **options):
  problems = Problems(folder, expected="a folder without faults")
  records = kaldi.read(folder, problems=problems, **options)
  return records, [str(problem) for problem in problems]


def test_whole_recordings(tmp_path):
  folder = _folder(
    tmp_path, text="u2\ttwo  words \r\n\nu1 one\n", utt2dur="u1 1.0\n"
  )
  records, problems = _read(folder, split="dev")
  assert problems == []
  assert records == [
    Record(
      id="u1",
      path="/a/1.wav",
      text="one",
      task="anna",
      split="dev",
      where=f"{folder}/text:3",
    ),
    Record(
      id="u2",
      path="/a/2.wav",
      text="two  words",
      task="ben",
      split="dev",
      where=f"{folder}/text:1",
    ),
  ]


def test_segments(tmp_path):
  folder = _folder(
    tmp_path,
    wav_scp="r /a/r.wav\n",
    segments="u2 r 1.5 -1\nu1 r 0.25 1.50\n",
  )
  (first, second), problems = _read(folder)
  assert problems == []
  assert first.path == second.path == "/a/r.wav"
  assert (first.offset, first.duration) == (0.25, 1.25)
  assert (second.offset, second.duration) == (1.5, None)
  assert first.session == second.session == "r"
  wheres = [f"{folder}/segments:{line}" for line in (2, 1)]
  assert [first.where, second.where] == wheres


def test_paths_are_beside_the_folder_or_in_the_working_folder(
  tmp_path, monkeypatch
):
  working = tmp_path / "working"
  (working / "wav").mkdir(parents=True)
  monkeypatch.chdir(working)
  folder = _folder(
    tmp_path / "data", wav_scp="u1 wav/1.wav\nu2 wav/with space.wav\n"
  )
  (folder / "wav").mkdir()
  (folder / "wav/1.wav").touch()
  (working / "wav/with space.wav").touch()
  (first, second), problems = _read(folder)
  assert problems == []
  assert first.path == f"{folder}/wav/1.wav"
  assert second.path == "wav/with space.wav"


@pytest.mark.parametrize(
  ("value", "path"),
  [
    ("flac -c -d -s /a/x.flac |", "/a/x.flac"),
    ("flac -c -d /a/x.flac|", "/a/x.flac"),
    ("/usr/bin/flac -cds '/a/x y.flac' |", "/a/x y.flac"),
    ("flac --decode --stdout --silent /a/x.flac |", "/a/x.flac"),
    ("cat /a/x.wav |", "/a/x.wav"),
    ("gs://bucket/x.wav", "gs://bucket/x.wav"),
  ],
)
def test_what_a_path_may_be(tmp_path, value, path):
  folder = _folder(tmp_path, wav_scp=f"u1 {value}\nu2 /a/2.wav\n")
  (first, _), problems = _read(folder)
  assert problems == []
  assert first.path == path


@pytest.mark.parametrize(
  "value",
  [
    "sph2pipe -f wav /a/x.sph |",
    "flac -c -d /a/x.flac | sox - -t wav - |",
    "flac -d /a/x.flac |",
    "flac -c -d -f /a/x.flac |",
    "flac -c -d |",
    "cat -n /a/x.wav |",
    "cat /a/x.wav > /tmp/y |",
    "cat $(touch /tmp/hra-was-here) |",
    "cat 'open |",
    "cat $HOME/x.wav |",
    "cat /a/*.wav |",
    "cat <(true) |",
    "cat - |",
    "|",
    "-",
    "| cat",
    "/a/x.ark:123",
    "/a/x.ark:123[0:5]",
  ],
)
def test_other_pipes_and_archives_are_problems(tmp_path, value):
  folder = _folder(tmp_path, wav_scp=f"u1 {value}\nu2 /a/2.wav\n")
  records, (problem,) = _read(folder)
  assert [record.id for record in records] == ["u2"]
  assert problem.startswith(f"{folder}/wav.scp:1: expected ")
  assert "run the commands into files first" in problem


@pytest.mark.parametrize(
  ("files", "expected"),
  [
    ({"text": "u2 two\n"}, "wav.scp:1: expected 'u1' in text too"),
    ({"utt2spk": "u2 ben\n"}, "wav.scp:1: expected 'u1' in utt2spk too"),
    ({"wav_scp": "u2 b\n"}, "text:1: expected 'u1' in wav.scp too"),
    (
      {"utt2spk": "u1 a\nu2 b\nu3 b\n"},
      "utt2spk:3: expected 'u3' in wav.scp and text too",
    ),
    ({"text": "u1 a\nu2 b\nu1 c\n"}, "text:3: expected a new id, got 'u1'"),
    (
      {"utt2spk": "u1 a\nu2 b\nu1 c\n"},
      "utt2spk:3: expected a new id, got 'u1' again; see ",
    ),
    ({"utt2spk": "u1 a b\nu2 b\n"}, "utt2spk:1: expected one speaker"),
    ({"utt2spk": "u1 a\0\nu2 b\n"}, "utt2spk:1: expected 'speaker' with"),
    ({"wav_scp": "u1 http://x/y\nu2 b\n"}, "wav.scp:1: expected 'path' as a"),
    ({"text": "u1 a\0b\nu2 b\n"}, "text:1: expected 'text' with printable"),
  ],
)
def test_a_bad_line_is_named_and_the_others_kept(tmp_path, files, expected):
  folder = _folder(tmp_path, **files)
  records, (problem,) = _read(folder)
  assert problem.startswith(f"{folder}/{expected}")
  assert "u2" in [record.id for record in records]


@pytest.mark.parametrize(
  ("files", "expected"),
  [
    ({"text": "u1\nu2 two\n"}, "text:1: expected UTTERANCE WORDS"),
    ({"utt2spk": "u1\nu2 b\n"}, "utt2spk:1: expected UTTERANCE SPEAKER"),
    ({"wav_scp": "u1\nu2 b\n"}, "wav.scp:1: expected RECORDING PATH"),
    (
      {"wav_scp": "r\ns b\n", "segments": "u1 r 0 1\nu2 s 0 1\n"},
      "wav.scp:1: expected RECORDING PATH",
    ),
    (
      {"wav_scp": "r a\ns b\n", "segments": "u1 r 2 1\nu2 s 0 1\n"},
      "segments:1: expected 0 <= START < END",
    ),
    (
      {"wav_scp": "r a |\ns b\n", "segments": "u1 r 0 1\nu2 s 0 1\n"},
      "wav.scp:1: expected a path, `flac",
    ),
    (
      {
        "wav_scp": "s b\n",
        "text": "u1\nu2 x\n",
        "segments": "u1 s 0 1\nu2 s 0 1\n",
      },
      "text:1: expected UTTERANCE WORDS",
    ),
  ],
)
def test_a_fault_is_counted_once(tmp_path, files, expected):
  folder = _folder(tmp_path, **files)
  records, (problem,) = _read(folder)
  assert problem.startswith(f"{folder}/{expected}")
  assert [record.id for record in records] == ["u2"]


def test_malformed_lines_and_other_encodings(tmp_path):
  folder = _folder(tmp_path, text=b"u1 \nu2 \xe9t\xe9\n")
  records, problems = _read(folder)
  assert records == []
  assert problems[0].startswith(f"{folder}/text:1: expected UTTERANCE WORDS")
  assert problems[1].startswith(f"{folder}/text:2: expected UTF-8 text")


@pytest.mark.parametrize(
  ("line", "expected"),
  [
    ("u1 r 0", "4 columns (UTTERANCE RECORDING START END), got 3"),
    ("u1 r 0 1 A", "got 5; write each channel into a file of its own"),
    ("u1 r 0 x", "expected seconds, got 'x'"),
    ("u1 r nan 1", "expected seconds, got 'nan'"),
    ("u1 r 1 inf", "expected seconds, got 'inf'"),
    ("u1 r -1 2", "0 <= START < END in seconds"),
    ("u1 r 2 2", "0 <= START < END in seconds"),
    ("u1 q 0 1", "expected a recording of wav.scp, got 'q'"),
  ],
)
def test_bad_segments(tmp_path, line, expected):
  folder = _folder(
    tmp_path, wav_scp="r /a/r.wav\n", segments=f"{line}\nu2 r 0 1\n"
  )
  records, (problem,) = _read(folder)
  assert [record.id for record in records] == ["u2"]
  assert problem.startswith(f"{folder}/segments:1: ")
  assert expected in problem


def test_a_recording_without_segments(tmp_path):
  folder = _folder(
    tmp_path,
    wav_scp="r /a/r.wav\nq /a/q.wav\n",
    segments="u1 r 0 1\nu2 r 0 1\n",
  )
  records, (problem,) = _read(folder)
  assert len(records) == 2
  assert problem.startswith(f"{folder}/wav.scp:2: expected segments of 'q'")


def test_files_that_must_be_there(tmp_path):
  folder = _folder(tmp_path)
  (folder / "utt2spk").unlink()
  with pytest.raises(StorageError, match=r"utt2spk: .*no such file"):
    _read(folder)
  folder = _folder(tmp_path, wav_scp="", text="\n", utt2spk=" \n")
  with pytest.raises(InputError, match="expected recordings, got empty files"):
    _read(folder)
