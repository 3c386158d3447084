"""LibriSpeech's layout: where it may start, and what is said of bad files."""

import corpus_forms
import pytest
from etils import epath

from hra.data.corpora import librispeech
from hra.data.records import Problems
from hra.errors import InputError

CHAPTER = "train-clean-100/11/111"


def _read(folder, **options):
  folder = epath.Path(folder)
  problems = Problems(folder, expected="a corpus without faults")
  records = librispeech.read(folder, problems=problems, **options)
  return records, [str(problem) for problem in problems]


def _changed(tmp_path, **changes):
  """A corpus of one chapter, some of its files changed (None: left out)."""
  files = {
    name: data
    for name, data in corpus_forms.layout().items()
    if name.startswith(CHAPTER)
  }
  files |= {f"{CHAPTER}/{name}": data for name, data in changes.items()}
  files = {name: data for name, data in files.items() if data is not None}
  return corpus_forms.write(tmp_path, files)


@pytest.mark.parametrize("above", ["", "LibriSpeech/"])
@pytest.mark.parametrize("suffix", [".flac", ".wav"])
def test_all_subsets(tmp_path, above, suffix):
  files = {
    f"{above}{name}": data for name, data in corpus_forms.layout(suffix).items()
  }
  files[f"{above}SPEAKERS.TXT"] = b"; about them"
  files[f"{above}.hidden/a/b/a-b.trans.txt"] = b"not read"
  records, problems = _read(corpus_forms.write(tmp_path, files))
  assert problems == []
  expected = corpus_forms.utterances()
  assert [r.id for r in records] == [u.id for u in expected]
  for record, utterance in zip(records, expected, strict=True):
    assert record.text == utterance.text
    assert record.task == utterance.speaker
    assert record.session == utterance.chapter
    assert record.split == utterance.split
    assert record.path == f"{tmp_path}/{above}{utterance.path}{suffix}"
    assert record.offset is record.duration is None
    assert record.where.rpartition(":")[0].endswith(
      f"{utterance.chapter}.trans.txt"
    )


def test_one_subset(tmp_path, monkeypatch):
  corpus_forms.write(tmp_path, corpus_forms.layout())
  for folder in (tmp_path / "dev-clean", "."):
    monkeypatch.chdir(tmp_path / "dev-clean")
    records, problems = _read(folder)
    assert problems == []
    assert [record.split for record in records] == ["dev"] * 4
  records, _ = _read(tmp_path / "dev-clean", subset="test-other")
  assert {record.split for record in records} == {"test_other"}


def test_subset_names(tmp_path):
  corpus_forms.write(tmp_path / "LibriSpeech", corpus_forms.layout())
  subsets = {"train-clean-100", "dev-clean", "test-clean"}
  for folder in (tmp_path, tmp_path / "LibriSpeech"):
    assert subsets <= librispeech.subset_names(epath.Path(folder))
  one = epath.Path(tmp_path / "LibriSpeech/dev-clean")
  assert librispeech.subset_names(one) == {"dev-clean"}
  assert librispeech.subset_names(one / "12") == set()


def test_flac_is_taken_before_others(tmp_path):
  folder = _changed(
    tmp_path, **{"11-111-0000.ogg": b"", "11-111-0000.mp3": b""}
  )
  records, problems = _read(folder)
  assert problems == []
  assert records[0].path.endswith("0000.flac")


@pytest.mark.parametrize("suffix", [".FLAC", ".Wav", ".opus", ".OPUS"])
def test_suffixes_in_any_case(tmp_path, suffix):
  flac, name = f"{CHAPTER}/11-111-0000.flac", f"11-111-0000{suffix}"
  sound = corpus_forms.layout()[flac]
  folder = _changed(tmp_path, **{"11-111-0000.flac": None, name: sound})
  records, problems = _read(folder)
  assert problems == []
  assert records[0].path == f"{tmp_path}/{CHAPTER}/{name}"


@pytest.mark.parametrize(
  ("files", "expected"),
  [
    (
      {"11-111-0000.flac": None},
      "11-111.trans.txt:1: expected a recording 11-111-0000.flac",
    ),
    (
      {"11-111.trans.txt": b"11-111-0001 B\n"},
      "11-111-0000.flac: expected a line in 11-111.trans.txt",
    ),
    (
      {"11-111.trans.txt": b"11-111-0000 \n11-111-0001 B\n"},
      "11-111.trans.txt:1: expected ID WORDS, got '11-111-0000'",
    ),
    (
      {"11-111.trans.txt": b"11-111-0000 A\n11-111-0001 B\n11-112-0000 C"},
      "11-111.trans.txt:3: expected an id of this chapter (11-111-...)",
    ),
    (
      {"11-111.trans.txt": b"11-111-0000 A\n11-111-0001 B\n11-111-0000 C"},
      "11-111.trans.txt:3: expected a new id, got '11-111-0000' again; see ",
    ),
    (
      {"11-111.trans.txt": b"11-111-0000 A\0\n11-111-0001 B\n"},
      "11-111.trans.txt:1: expected 'text' with printable text",
    ),
    (
      {"11-112.trans.txt": b"11-112-0000 A"},
      "11-112.trans.txt: expected the transcript 11-111.trans.txt of its",
    ),
  ],
)
def test_a_fault_is_named_and_the_others_kept(tmp_path, files, expected):
  records, (problem,) = _read(_changed(tmp_path, **files))
  assert problem.startswith(f"{tmp_path}/{CHAPTER}/{expected}")
  assert "11-111-0001" in [record.id for record in records]


def test_an_id_in_two_subsets(tmp_path):
  files = corpus_forms.layout()
  for name in list(files):
    if name.startswith(CHAPTER):
      files[name.replace("clean-100", "again")] = files[name]
  records, problems = _read(corpus_forms.write(tmp_path, files))
  assert len(records) == len(corpus_forms.utterances())
  assert len(problems) == 2
  assert all("expected a new id" in problem for problem in problems)


def test_another_encoding(tmp_path):
  folder = _changed(
    tmp_path, **{"11-111.trans.txt": b"11-111-0000 \xe9\n11-111-0001 B\n"}
  )
  records, problems = _read(folder)
  assert [record.id for record in records] == ["11-111-0001"]
  assert "got a recording without transcript" in problems[0]
  assert "trans.txt:1: expected UTF-8 text, got byte 0xE9" in problems[1]


def test_messages_name_what_was_unpacked(tmp_path):
  folder = _changed(tmp_path, **{"11-111-0000.flac": None})
  records, (problem,) = _read(folder, origin=epath.Path("/far/x.tar"))
  assert problem.startswith(f"/far/x.tar/{CHAPTER}/11-111.trans.txt:1: ")
  assert records[0].where == f"/far/x.tar/{CHAPTER}/11-111.trans.txt:2"
  assert records[0].path.startswith(str(tmp_path))


def test_no_such_layout(tmp_path):
  with pytest.raises(
    InputError, match=r"SUBSET/SPEAKER/CHAPTER.*no transcript"
  ):
    _read(tmp_path)
