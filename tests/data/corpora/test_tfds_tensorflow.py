"""Stock corpora of TFDS, prepared by their own builders from tiny archives."""

import corpus_forms
import numpy as np
import pytest
import soundfile

from hra.data.corpora import source
from hra.data.corpora.fields import Fields
from hra.errors import InputError

pytest.importorskip("tensorflow")
tfds = pytest.importorskip("tensorflow_datasets")
from tensorflow_datasets.core.download import download_manager  # noqa: E402

SUBSETS = {
  "train-clean-100": "train",
  "train-clean-360": "train",
  "train-other-500": "train",
  "dev-clean": "dev",
  "dev-other": "dev_other",
  "test-clean": "test",
  "test-other": "test_other",
}


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "datasets"))
  return tmp_path / "datasets"


@pytest.fixture
def no_checksums(monkeypatch):
  """The tiny archives are taken for the true ones."""
  monkeypatch.setattr(
    download_manager.DownloadManager,
    "_register_or_validate_checksums",
    lambda *_, **__: None,
  )


def _utterances():
  """Those of the other forms; each of LibriSpeech's subsets has some."""
  found = corpus_forms.utterances()
  by_split = {split: [] for split in ("train", "dev", "test")}
  for utterance in found:
    by_split[utterance.split].append(utterance)
  placed = []
  for subset in SUBSETS:
    pool = by_split[subset.split("-")[0]]
    last = subset in ("train-other-500", "dev-other", "test-other")
    taken, pool[:] = (pool[:], []) if last else (pool[:1], pool[1:])
    placed += [u._replace(subset=subset) for u in taken]
  return placed


def _archives(folder):
  folder.mkdir(parents=True)
  for subset in SUBSETS:
    files = {
      "LibriSpeech/SPEAKERS.TXT": b"; x\n11 | F | dev-clean | 8.0 | A\n",
      "LibriSpeech/CHAPTERS.TXT": b"; x\n1 | 11 | 1 | dev | 1 | 1 | A | B\n",
    }
    for u in _utterances():
      if u.subset != subset:
        continue
      files[f"LibriSpeech/{u.path}.flac"] = corpus_forms.encoded(u)
      name = f"{u.path.rsplit('/', 1)[0]}/{u.chapter}.trans.txt"
      line = f"{u.id} {u.text}\n".encode()
      name = f"LibriSpeech/{name}"
      files[name] = files.get(name, b"") + line
    corpus_forms.archive(folder / f"{subset}.tar.gz", files)
  return folder


def _check(records, expected):
  found = {record.id: record for record in records}
  assert set(found) == {u.id for u in expected}
  for utterance in expected:
    record = found[utterance.id]
    assert record.text == utterance.text
    assert record.task == utterance.speaker
    assert record.session == utterance.chapter
    assert record.split == SUBSETS[utterance.subset]
    samples_S, rate = soundfile.read(record.path, dtype="int16")
    assert rate == 16_000
    np.testing.assert_array_equal(samples_S, utterance.samples_S)


def test_librispeech_is_the_same_as_its_archives(
  tmp_path, data_dir, no_checksums
):
  folder = _archives(data_dir / "downloads/manual")
  assert source.identity("tfds:librispeech") == [
    "tfds:librispeech/default/2.1.1"
  ]
  records, problems = corpus_forms.read(tmp_path, "tfds:librispeech")
  assert problems == []
  _check(records, _utterances())
  # And as the archives themselves; and a second time, from what is prepared.
  archived, problems = corpus_forms.read(tmp_path, folder)
  assert problems == []
  _check(archived, _utterances())
  for path in folder.iterdir():
    path.unlink()
  again, _ = corpus_forms.read(tmp_path, "tfds:librispeech:2.1.1@16000")
  assert [r.path for r in again] == [r.path for r in records]


def test_other_bytes_than_those_of_openslr(tmp_path, data_dir):
  _archives(data_dir / "downloads/manual")
  with pytest.raises(InputError, match="wrong checksum") as caught:
    corpus_forms.read(tmp_path, "tfds:librispeech")
  assert "\n" not in str(caught.value)


def test_vctk(tmp_path, data_dir, monkeypatch):
  expected = corpus_forms.utterances()[:4]
  root = tmp_path / "vctk"
  files = {"speaker-info.txt": b"ID AGE GENDER ACCENTS\n"}
  for number, u in enumerate(expected):
    speaker = ("p225", "p226")[number // 2]
    name = f"{speaker}/{speaker}_{number:03d}"
    flac = corpus_forms.encoded(u)
    files[f"wav48_silence_trimmed/{name}_mic1.flac"] = flac
    files[f"txt/{name}.txt"] = f"{u.text}\n".encode()
  files["speaker-info.txt"] += b"p225 23 F English X\np226 22 M Welsh X\n"
  corpus_forms.write(root, files)
  monkeypatch.setattr(
    tfds.download.DownloadManager,
    "download_and_extract",
    lambda *_: root,
  )
  records, problems = corpus_forms.read(tmp_path, "tfds:vctk/mic1")
  assert problems == []
  records.sort(key=lambda record: record.id)
  assert [record.task for record in records] == ["p225"] * 2 + ["p226"] * 2
  assert [record.text for record in records] == [u.text for u in expected]
  assert {record.split for record in records} == {"train"}
  for record, utterance in zip(records, expected, strict=True):
    samples_S, rate = soundfile.read(record.path, dtype="int16")
    assert rate == 48_000
    np.testing.assert_array_equal(samples_S, utterance.samples_S)
  by_accent, _ = corpus_forms.read(
    tmp_path, "tfds:vctk/mic1", Fields(task="accent")
  )
  assert {record.task for record in by_accent} == {"English", "Welsh"}


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
@pytest.mark.parametrize("lazy", [False, True])
def test_audio_features(tmp_path, data_dir, file_format, lazy):
  expected = corpus_forms.utterances()[:3]
  if lazy:
    audio = tfds.features.Audio(lazy_decode=True, file_format="wav")
  else:
    audio = tfds.features.Audio(dtype=np.int32)

  class MySpeech(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    code_path = None

    def _info(self):
      features = {
        "voice": audio,
        "sentence": tfds.features.Text(),
        "client_id": tfds.features.Text(),
      }
      return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict(features),
        disable_shuffling=True,
      )

    def _split_generators(self, dl_manager):
      return {"validation": self._generate_examples()}

    def _generate_examples(self):
      for number, u in enumerate(expected):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(corpus_forms.encoded(u, ".wav"))
        yield (
          number,
          {
            "voice": str(path) if lazy else u.samples_S.astype(np.int32),
            "sentence": u.text,
            "client_id": u.speaker,
          },
        )

  builder = MySpeech(data_dir=data_dir, file_format=file_format)
  builder.download_and_prepare()
  name = "tfds:my_speech"
  if not lazy:  # files state it themselves
    with pytest.raises(InputError, match="states its sampling rate"):
      corpus_forms.read(tmp_path, name)
    name = f"{name}@16000"
  records, problems = corpus_forms.read(tmp_path, name)
  assert problems == []
  assert [record.id for record in records] == [
    "validation-0",
    "validation-1",
    "validation-2",
  ]
  for record, utterance in zip(records, expected, strict=True):
    assert (record.task, record.text) == (utterance.speaker, utterance.text)
    samples_S, rate = soundfile.read(record.path, dtype="int16")
    assert rate == 16_000
    np.testing.assert_array_equal(samples_S, utterance.samples_S)


def test_a_damaged_tfrecord(tmp_path, data_dir, no_checksums):
  _archives(data_dir / "downloads/manual")
  corpus_forms.read(tmp_path, "tfds:librispeech")
  file = next(data_dir.rglob("*train_other500.tfrecord*"))
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 1
  file.write_bytes(data)
  with pytest.raises(InputError, match="delete that folder") as caught:
    corpus_forms.read(tmp_path, "tfds:librispeech")
  assert "\n" not in str(caught.value)


def test_a_package_that_is_missing(tmp_path, data_dir):
  with pytest.raises(InputError, match="pip install apache-beam"):
    corpus_forms.read(tmp_path, "tfds:common_voice/en")
