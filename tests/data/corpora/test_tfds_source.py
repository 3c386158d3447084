"""TFDS without TensorFlow: datasets of plain features in array_record files."""

import importlib.util
import sys

import corpus_forms
import numpy as np
import pytest
import soundfile

from hra.data.corpora import source, tfds_source
from hra.data.corpora.fields import Fields
from hra.errors import InputError, StorageError

tfds = pytest.importorskip("tensorflow_datasets")


@pytest.fixture(autouse=True)
def data_dir(tmp_path, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "datasets"))
  return tmp_path / "datasets"


def _write(data_dir, features, splits, **info):
  """A dataset on disk whose builder nobody knows any more."""

  class MySpeech(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.2.3")
    code_path = None

    def _info(self):
      return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict(features),
        disable_shuffling=True,
        **info,
      )

    def _split_generators(self, dl_manager):
      return {
        split: list(enumerate(examples)) for split, examples in splits.items()
      }

    def _generate_examples(self):
      raise NotImplementedError

  MySpeech(data_dir=data_dir, file_format="array_record").download_and_prepare()


SAMPLES = {"speech": tfds.features.Tensor(shape=(None,), dtype=np.int16)}
FEATURES = SAMPLES | {
  "id": tfds.features.Text(),
  "text": tfds.features.Text(),
  "speaker_id": np.int64,
  "chapter_id": np.int64,
}


NAME = "tfds:my_speech@16000"


def _example(**changes):
  return {
    "id": "1-2-3",
    "text": "HELLO",
    "speaker_id": 1,
    "chapter_id": 2,
    "speech": np.arange(100, dtype=np.int16),
  } | changes


def _only(examples):
  return {"train": examples}


def test_the_same_as_the_other_forms(tmp_path, data_dir):
  splits = {}
  for u in corpus_forms.utterances():
    split = u.subset.replace("train-clean-", "train_clean").replace("-", "_")
    example = {
      "id": u.id,
      "text": u.text,
      "speaker_id": int(u.speaker),
      "chapter_id": int(u.chapter.split("-")[1]),
      "speech": u.samples_S,
    }
    splits.setdefault(split, []).append(example)
  _write(data_dir, FEATURES, splits)
  with pytest.raises(InputError, match=r"sampling rate.*append it"):
    corpus_forms.read(tmp_path, "tfds:my_speech")
  records, problems = corpus_forms.read(tmp_path, NAME)
  assert problems == []
  expected = {u.id: u for u in corpus_forms.utterances()}
  assert {record.id for record in records} == set(expected)
  for record in records:
    utterance = expected[record.id]
    assert record.text == utterance.text
    assert record.task == utterance.speaker
    assert record.session == utterance.chapter
    assert record.split == utterance.split
    samples_S, rate = soundfile.read(record.path, dtype="int16")
    assert (rate, samples_S.dtype) == (16_000, np.int16)
    np.testing.assert_array_equal(samples_S, utterance.samples_S)
  if importlib.util.find_spec("tensorflow") is None:
    assert "tensorflow" not in sys.modules


def test_names_of_labels_and_fields(tmp_path, data_dir):
  features = {
    "audio": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
    "sentence": tfds.features.Text(),
    "speaker": tfds.features.ClassLabel(names=["p1", "p2"]),
    "accent": tfds.features.ClassLabel(names=["Irish", "Welsh"]),
    "session": tfds.features.Text(),
  }
  example = {
    "audio": np.array([[0.5, -1.25], [0.25, 0.125]], np.float32),
    "sentence": "Grüße",
    "speaker": "p2",
    "accent": "Welsh",
    "session": "monday",
  }
  _write(data_dir, features, {"validation": [example, example]})
  records, problems = corpus_forms.read(tmp_path, NAME)
  assert problems == []
  assert [record.id for record in records] == ["validation-0", "validation-1"]
  assert records[0].text == "Grüße"
  assert records[0].task == "p2"
  assert records[0].session == "monday"
  assert records[0].split == "dev"
  info = soundfile.info(records[0].path)
  assert (info.channels, info.subtype) == (2, "FLOAT")
  samples_SC, _ = soundfile.read(records[0].path, dtype="float32")
  np.testing.assert_array_equal(samples_SC, example["audio"])
  records, _ = corpus_forms.read(tmp_path, NAME, fields=Fields(task="accent"))
  assert records[0].task == "Welsh"
  with pytest.raises(InputError, match="expected said and dialect among its"):
    corpus_forms.read(
      tmp_path, NAME, fields=Fields(text="said", task="dialect")
    )


def test_what_is_written_is_kept(tmp_path, data_dir, monkeypatch):
  examples = [_example(id=str(n)) for n in range(3)]
  _write(data_dir, FEATURES, _only(examples))
  write, written = tfds_source.write_aside, []

  def counted(path, data):
    if len(written) == 2:
      raise KeyboardInterrupt
    written.append(path)
    write(path, data)

  monkeypatch.setattr(tfds_source, "write_aside", counted)
  with pytest.raises(KeyboardInterrupt):
    corpus_forms.read(tmp_path, NAME)
  monkeypatch.setattr(
    tfds_source,
    "write_aside",
    lambda path, data: (written.append(path), write(path, data)),
  )
  records, problems = corpus_forms.read(tmp_path, NAME)
  assert problems == []
  assert len(written) == len(set(written)) == 3
  assert [r.path for r in records] == [str(path) for path in written]


@pytest.mark.parametrize(
  ("changes", "expected"),
  [
    ({"text": " "}, "expected 'text' with printable text"),
    ({"text": b"\xe9"}, "expected 'text' in UTF-8, got byte 0xE9"),
    ({"id": "a\nb"}, "expected 'id' with printable text"),
    ({"id": "first"}, "expected a new id, got 'first' again; see "),
    ({"speech": np.zeros(0, np.int16)}, "expected some samples, got none"),
  ],
)
def test_bad_examples_are_named_and_the_others_kept(
  tmp_path, data_dir, changes, expected
):
  examples = [_example(id="first"), _example(**changes), _example(id="last")]
  _write(data_dir, FEATURES, _only(examples))
  records, (problem,) = corpus_forms.read(tmp_path, NAME)
  assert [record.id for record in records] == ["first", "last"]
  assert problem.startswith(f"tfds:my_speech@16000 train 1: {expected}")


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_samples_of_another_scale(tmp_path, data_dir, dtype):
  features = FEATURES | {
    "speech": tfds.features.Tensor(shape=(None,), dtype=dtype)
  }
  loud = np.array([0, 40_000], dtype)
  _write(data_dir, features, _only([_example(speech=loud)]))
  records, (problem,) = corpus_forms.read(tmp_path, NAME)
  assert records == []
  assert "expected samples as 16-bit integers, or as floats" in problem


def test_a_rate_that_is_stated(tmp_path, data_dir):
  _write(
    data_dir,
    FEATURES,
    _only([_example()]),
    metadata=tfds.core.MetadataDict(sample_rate=8_000),
  )
  (record,), _ = corpus_forms.read(tmp_path, "tfds:my_speech")
  assert soundfile.info(record.path).samplerate == 8_000
  with pytest.raises(InputError, match="the dataset's 8000 Hz, got 16000 Hz"):
    corpus_forms.read(tmp_path, NAME)


def test_datasets_that_cannot_be_used(tmp_path, data_dir):
  for name, match in {
    "tfds:nobody_knows_this": "a dataset of TFDS, got no such name",
    "tfds:": "expected tfds:NAME",
    "tfds:my speech": "expected a dataset of TFDS",
    "tfds:my_speech@fast": "expected tfds:NAME",
    "tfds:librispeech:9.9.9": "expected a dataset of TFDS",
  }.items():
    with pytest.raises(InputError, match=match) as caught:
      corpus_forms.read(tmp_path, name)
    assert "\n" not in str(caught.value)
  _write(data_dir, SAMPLES, _only([{"speech": np.zeros(9, np.int16)}]))
  with pytest.raises(InputError, match="expected text and speaker_id among"):
    corpus_forms.read(tmp_path, NAME)
  with pytest.raises(InputError, match="expected a dataset of TFDS"):
    corpus_forms.read(tmp_path, "tfds:my_speech:3.0.0")


@pytest.mark.skipif(
  importlib.util.find_spec("tensorflow") is not None,
  reason="TensorFlow is installed",
)
def test_where_tensorflow_is_missing(tmp_path, capfd):
  with pytest.raises(InputError, match=r"pip install 'hra\[tf\]'") as caught:
    corpus_forms.read(tmp_path, "tfds:librispeech")
  assert "the package tensorflow" in str(caught.value)
  assert capfd.readouterr() == ("", "")


def test_identity(tmp_path, data_dir):
  _write(data_dir, FEATURES, _only([_example()]))
  name = "tfds:my_speech/1.2.3"
  assert source.identity("tfds:my_speech") == [name]
  assert source.identity("tfds:my_speech:1.2.3@8000") == [f"{name}@8000"]


def test_a_full_disk(tmp_path, data_dir, monkeypatch):
  _write(data_dir, FEATURES, _only([_example()]))

  def full(path, data):
    raise StorageError(path, expected="room", got="No space left on device")

  monkeypatch.setattr(tfds_source, "write_aside", full)
  with pytest.raises(StorageError, match="No space"):
    corpus_forms.read(tmp_path, NAME)


def test_a_damaged_file(tmp_path, data_dir):
  _write(data_dir, FEATURES, _only([_example(id=str(n)) for n in range(40)]))
  (file,) = data_dir.rglob("*.array_record*")
  data = bytearray(file.read_bytes())
  data[len(data) // 3 :] = bytes(len(data) - len(data) // 3)
  file.write_bytes(data)
  with pytest.raises(InputError, match="delete that folder") as caught:
    corpus_forms.read(tmp_path, NAME)
  assert "\n" not in str(caught.value)
