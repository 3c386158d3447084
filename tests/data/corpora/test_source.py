"""A corpus is the same in every form; what is none of them is explained."""

import io
import os
import tarfile

import corpus_forms
import numpy as np
import pytest
import soundfile
from etils import epath

from hra.data.corpora import source
from hra.data.corpora.fields import Fields
from hra.data.records import Problems
from hra.errors import InputError, StorageError


def _manifest(folder):
  return corpus_forms.write_manifest(folder)


def _manifests(folder):
  lines = corpus_forms.write_manifest(folder).read_text().splitlines()
  for split in ("train", "dev", "test"):
    part = [line for line in lines if f'"split": "{split}"' in line]
    (folder / f"{split}.jsonl").write_text("\n".join(part))
  (folder / "all.jsonl").unlink()
  return folder


def _mapping(folder):
  _manifests(folder)
  return {
    split: folder / f"{split}.jsonl" for split in ("train", "dev", "test")
  }


def _layout(folder):
  files = corpus_forms.layout()
  return corpus_forms.write(folder / "LibriSpeech", files)


def _tar_gz(folder):
  folder.mkdir()
  files = corpus_forms.layout()
  files = {f"LibriSpeech/{name}": data for name, data in files.items()}
  return corpus_forms.archive(folder / "all.tar.gz", files)


def _tars(folder):
  """One archive for each subset; of one the speakers stand on top."""
  folder.mkdir()
  files = corpus_forms.layout()
  for subset in ("train-clean-100", "dev-clean", "test-clean"):
    above = "" if subset == "dev-clean" else f"LibriSpeech/{subset}/"
    part = {
      above + name.removeprefix(f"{subset}/"): data
      for name, data in files.items()
      if name.startswith(subset)
    }
    corpus_forms.archive(folder / f"{subset}.tar", part)
  return folder


def _half_unpacked(folder):
  """All archives, and one of the subsets unpacked beside them."""
  _tars(folder)
  files = {
    f"LibriSpeech/{name}": data
    for name, data in corpus_forms.layout().items()
    if name.startswith("dev-clean")
  }
  return corpus_forms.write(folder, files)


FORMS = {
  "manifest": _manifest,
  "manifests": _manifests,
  "mapping": _mapping,
  "LibriSpeech": _layout,
  "tar.gz": _tar_gz,
  "tars": _tars,
  "half unpacked": _half_unpacked,
  "Kaldi": corpus_forms.write_kaldi,
}


def _read(corpus, scratch, **options):
  problems = Problems(corpus, expected="a corpus without faults")

  def made():
    scratch.mkdir(exist_ok=True)
    return scratch

  records = source.read(corpus, problems=problems, scratch=made, **options)
  return records, [str(problem) for problem in problems]


def _check(records):
  expected = corpus_forms.utterances()
  records = sorted(records, key=lambda record: record.id)
  assert [record.id for record in records] == [u.id for u in expected]
  for record, utterance in zip(records, expected, strict=True):
    assert record.text == utterance.text
    assert record.task == utterance.speaker
    assert record.split == utterance.split
    assert record.where
    data = epath.Path(record.path).read_bytes()
    samples_S, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    assert rate == corpus_forms.RATE
    np.testing.assert_array_equal(samples_S, utterance.samples_S)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(tmp_path, form):
  corpus = FORMS[form](tmp_path / "corpus")
  records, problems = _read(corpus, tmp_path / "scratch")
  assert problems == []
  _check(records)
  if form != "Kaldi":
    sessions = {u.id: u.chapter for u in corpus_forms.utterances()}
    assert {record.id: record.session for record in records} == sessions
  packed = "tar" in form or form == "half unpacked"
  assert (tmp_path / "scratch").exists() == packed


@pytest.mark.parametrize("form", sorted(set(FORMS) - {"mapping"}))
def test_every_form_in_a_bucket(tmp_path, bucket, form):
  local = FORMS[form](tmp_path / "corpus")
  for path in (tmp_path / "corpus").rglob("*"):
    if path.is_file():
      name = path.relative_to(tmp_path).as_posix()
      (bucket / name).write_bytes(path.read_bytes())
  corpus = bucket / local.relative_to(tmp_path).as_posix()
  records, problems = _read(str(corpus), tmp_path / "scratch")
  assert problems == []
  _check(records)


def test_what_a_bucket_lacks(tmp_path, bucket):
  for name in ("m.jsonl", "a.tar.gz"):
    with pytest.raises(StorageError, match=rf"s3://.*{name}: expected "):
      _read(str(bucket / name), tmp_path)


def test_a_mapping_may_hold_other_forms_and_names_the_splits(tmp_path):
  kaldi = corpus_forms.write_kaldi(tmp_path / "kaldi")
  manifest = corpus_forms.write_manifest(tmp_path / "m")
  records, problems = _read(
    {"train": str(manifest), "extra": kaldi / "dev"}, tmp_path / "scratch"
  )
  assert problems == []
  splits = [record.split for record in records]
  assert splits == ["train"] * 12 + ["extra"] * 4


def test_one_kaldi_folder_has_no_split(tmp_path):
  folder = corpus_forms.write_kaldi(tmp_path)
  records, _ = _read(folder / "train", tmp_path / "scratch")
  assert {record.split for record in records} == {None}


def test_problems_of_all_parts_come_together(tmp_path):
  folder = _manifests(tmp_path)
  for split in ("train", "test"):
    with (folder / f"{split}.jsonl").open("a") as file:
      file.write("\nnonsense")
  records, problems = _read(folder, tmp_path / "scratch")
  assert len(records) == 12
  assert [problem.split(": ")[0] for problem in problems] == [
    f"{folder}/test.jsonl:5",
    f"{folder}/train.jsonl:5",
  ]


def test_all_of_train_and_other_names_of_splits(tmp_path):
  folder = _manifests(tmp_path)
  (folder / "dev.jsonl").rename(folder / "Validation.jsonl")
  (folder / "train.jsonl").rename(folder / "train-clean-100.jsonl")
  records, problems = _read(folder, tmp_path / "scratch")
  assert problems == []
  _check(records)
  kaldi = corpus_forms.write_kaldi(tmp_path / "kaldi")
  (kaldi / "train").rename(kaldi / "train_clean_100")
  (kaldi / "dev").rename(kaldi / "train_other_500")
  records, problems = _read(kaldi, tmp_path / "scratch")
  assert problems == []
  found = [record.split for record in records]
  assert sorted(found) == ["test"] * 4 + ["train"] * 8


def test_what_the_file_says_of_the_split_counts(tmp_path):
  folder = _manifests(tmp_path)
  with (folder / "dev.jsonl").open("a") as file:
    line = (folder / "train.jsonl").read_text().splitlines()[0]
    file.write(f"\n{line}")
  records, (problem,) = _read(folder, tmp_path / "scratch")
  _check(records)
  assert problem.startswith(f"{folder}/dev.jsonl:5: expected 'split' as ")


def test_train_is_read_first(tmp_path):
  records, _ = _read(_manifests(tmp_path), tmp_path / "scratch")
  found = list(dict.fromkeys(record.split for record in records))
  assert found == ["train", "dev", "test"]


def test_a_manifest_of_all_splits_is_none_of_them(tmp_path):
  folder = _manifests(tmp_path)
  (folder / "dev.jsonl").rename(folder / "all.jsonl")
  with pytest.raises(InputError, match=r"all\.jsonl: .*all splits together"):
    _read(folder, tmp_path / "scratch")


@pytest.mark.parametrize(
  "form", ["LibriSpeech", "tar.gz", "tars", "half unpacked", "Kaldi"]
)
def test_fields_of_what_has_none(tmp_path, form):
  corpus = FORMS[form](tmp_path / "corpus")
  with pytest.raises(
    InputError, match=r"named \(text='said'\).* got a"
  ) as caught:
    _read(corpus, tmp_path / "scratch", fields=Fields(text="said"))
  assert caught.value.where == str(corpus)


@pytest.mark.parametrize(
  ("name", "expected"),
  [
    ("a.WAV", "got a recording; write a manifest"),
    ("a.opus", "got a recording; write a manifest"),
    ("a.m4a", "got a recording; write a manifest"),
    ("a.csv", "got a table; convert it to JSON lines"),
    ("a.TSV", "got a table; convert it to JSON lines"),
  ],
)
def test_other_kinds_of_files(tmp_path, name, expected):
  (tmp_path / name).write_text("a,b\n" * 100)
  with pytest.raises(InputError, match=expected):
    _read(tmp_path / name, tmp_path)


def test_pipes_and_devices_are_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / "train.jsonl")
  for corpus in (tmp_path / "train.jsonl", tmp_path, "/dev/zero"):
    with pytest.raises(InputError, match="an ordinary file, got a pipe"):
      _read(corpus, tmp_path)


def test_what_is_no_corpus(tmp_path):
  empty = tmp_path / "empty"
  empty.mkdir()
  with pytest.raises(InputError, match=r"wav\.scp.* got an empty folder"):
    _read(empty, tmp_path)
  for n in range(10):
    (empty / f"{n}.mp3").touch()
  with pytest.raises(InputError, match=r"a folder with 0\.mp3, .* and 2 more"):
    _read(empty, tmp_path)
  with pytest.raises(StorageError, match="tfds:NAME, got no such file"):
    _read(tmp_path / "absent", tmp_path)
  with pytest.raises(InputError, match=r"the corpus: .*got nothing"):
    _read("", tmp_path)
  with pytest.raises(InputError, match=r"got https://x\.org/a\.tar"):
    _read("https://x.org/a.tar", tmp_path)
  packed = tmp_path / "m.zip"
  packed.touch()
  with pytest.raises(InputError, match="another archive; unpack it"):
    _read(packed, tmp_path)
  tar = corpus_forms.archive(tmp_path / "a.tar", {"a/b.flac": b"x"})
  with pytest.raises(InputError, match=r"a\.tar: .*got no transcripts"):
    _read(tar, tmp_path)


def test_the_home_folder(tmp_path, monkeypatch):
  corpus_forms.write_manifest(tmp_path)
  monkeypatch.setenv("HOME", str(tmp_path))
  records, _ = _read("~/all.jsonl", tmp_path)
  _check(records)


@pytest.mark.parametrize("form", FORMS)
def test_identity_is_that_of_archives(tmp_path, form):
  corpus = FORMS[form](tmp_path / "corpus")
  identity = source.identity(corpus)
  if form == "tar.gz":
    assert identity == [["all.tar.gz", corpus.stat().st_size]]
  elif form == "tars":
    assert [name for name, _ in identity] == [
      "dev-clean.tar",
      "test-clean.tar",
      "train-clean-100.tar",
    ]
  else:
    assert identity is None


def test_identity_of_archives_by_split(tmp_path):
  tar = corpus_forms.archive(tmp_path / "a.tar", corpus_forms.layout())
  manifest = corpus_forms.write_manifest(tmp_path / "m")
  size = tar.stat().st_size
  assert source.identity({"train": tar, "dev": tar}) == [
    ("dev", [["a.tar", size]]),
    ("train", [["a.tar", size]]),
  ]
  assert source.identity({"train": tar, "dev": manifest}) is None


def test_hostile_members_are_reported_each_time(tmp_path):
  tar = corpus_forms.archive(tmp_path / "a.tar", corpus_forms.layout())
  with tarfile.open(tar, "a") as file:
    file.addfile(tarfile.TarInfo("../x.flac"))
  for _ in range(2):
    records, (problem,) = _read(tar, tmp_path / "scratch")
    _check(records)
    assert problem.startswith(f"{tar}/../x.flac: expected a path inside")
