"""The same 40 recordings in every layout: the same prepared bytes and results."""

import json
import tarfile

import corpus
import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from hra import jobs, run, scoring
from hra.config import PrepareConfig
from hra.data import dataset
from hra.data.prepare import prepare

RATE = 16_000
CONFIG = PrepareConfig(
  split_by="sentence", dev_fraction=0.2, test_fraction=0.2, jobs=2
)
LAYOUTS = ("manifest", "librispeech", "archive", "kaldi", "tfds")


with tfds.core.registered.skip_registration():  # to be found by its files

  class Spoken(tfds.core.GeneratorBasedBuilder):
    """A corpus as TFDS keeps one, of features that need no TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None
    pkg_dir_path = None

    def __init__(self, *, utterances, **options):
      self._utterances = utterances
      super().__init__(file_format="array_record", **options)

    def _info(self):
      features = {
        "speech": tfds.features.Tensor(shape=(None,), dtype=np.int64),
        "text": tfds.features.Text(),
        "speaker_id": tfds.features.Scalar(dtype=np.int64),
        "chapter_id": tfds.features.Scalar(dtype=np.int64),
        "id": tfds.features.Text(),
      }
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples()}

    def _generate_examples(self):
      for id, text, samples in self._utterances:
        speaker, chapter, _ = map(int, id.split("-"))
        yield (
          id,
          {
            "speech": samples.astype(np.int64),
            "text": text,
            "speaker_id": speaker,
            "chapter_id": chapter,
            "id": id,
          },
        )


@pytest.fixture(scope="module")
def utterances():
  """40 of (id, text, int16 samples): four readers, two chapters each."""
  rng = np.random.default_rng(7)
  made = []
  for speaker in (19, 26, 103, 1034):
    for n in range(10):
      samples = rng.normal(0, 3000, int(RATE * rng.uniform(0.55, 0.7)))
      text = f"{rng.choice(corpus.WORDS)} {rng.choice(list('abcdef'))}".upper()
      id = f"{speaker}-{speaker + 100 + n % 2}-{n:04d}"
      made.append((id, text, samples.astype(np.int16)))
  return made


def _manifest(folder, utterances):
  lines = []
  for id, text, samples in utterances:
    soundfile.write(folder / f"{id}.wav", samples, RATE)
    line = {"audio_filepath": f"{id}.wav", "text": text, "id": id}
    line["duration"] = len(samples) / RATE
    lines.append(json.dumps({**line, "speaker": int(id.split("-")[0])}))
  (folder / "all.jsonl").write_text("\n".join(lines))
  return folder / "all.jsonl"


def _librispeech(folder, utterances):
  root = folder / "LibriSpeech"
  for id, text, samples in utterances:
    speaker, chapter, _ = id.split("-")
    place = root / "train-clean-5" / speaker / chapter
    place.mkdir(parents=True, exist_ok=True)
    soundfile.write(place / f"{id}.flac", samples, RATE)
    with (place / f"{speaker}-{chapter}.trans.txt").open("a") as file:
      file.write(f"{id} {text}\n")
  return root


def _archive(folder, utterances):
  root = _librispeech(folder / "unpacked", utterances)
  with tarfile.open(folder / "train-clean-5.tar.gz", "w:gz") as file:
    file.add(root, arcname="LibriSpeech")
  return folder / "train-clean-5.tar.gz"


def _kaldi(folder, utterances):
  data, audio = folder / "data", folder / "audio"
  data.mkdir()
  audio.mkdir()
  lines = {"wav.scp": [], "text": [], "utt2spk": []}
  for n, (id, text, samples) in enumerate(utterances):
    file = audio / f"{id}.{'flac' if n % 2 else 'wav'}"
    soundfile.write(file, samples, RATE)
    source = f"flac -c -d -s {file} |" if n % 2 else str(file)
    lines["wav.scp"].append(f"{id} {source}")
    lines["text"].append(f"{id} {text}")
    lines["utt2spk"].append(f"{id} {id.split('-')[0]}")
  for name, text in lines.items():
    (data / name).write_text("\n".join(sorted(text)) + "\n")
  return data


def _tfds(folder, utterances):
  Spoken(utterances=utterances, data_dir=str(folder)).download_and_prepare(
    download_dir=str(folder / "downloads")
  )
  return f"tfds:spoken@{RATE}"


_MAKERS = {
  "manifest": _manifest,
  "librispeech": _librispeech,
  "archive": _archive,
  "kaldi": _kaldi,
  "tfds": _tfds,
}


@pytest.fixture(scope="module")
def prepared(utterances, tmp_path_factory):
  folders = {}
  with pytest.MonkeyPatch.context() as patch:
    for layout, make in _MAKERS.items():
      folder = tmp_path_factory.mktemp(layout)
      patch.setenv("TFDS_DATA_DIR", str(folder))
      prepare(make(folder, utterances), folder / "out", config=CONFIG)
      folders[layout] = folder / "out"
  return folders


def _content(folder):
  """All bytes, but for the fingerprint of where they come from."""
  files = {
    str(file.relative_to(folder)): file.read_bytes()
    for file in folder.rglob("*")
    if file.is_file()
  }
  summary = json.loads(files.pop("summary.json"))
  del summary["fingerprint"]
  return files, summary


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_every_layout_is_prepared_to_the_same_bytes(prepared, layout):
  files, summary = _content(prepared["manifest"])
  others, other_summary = _content(prepared[layout])
  assert others.keys() == files.keys()
  for name in files:
    assert others[name] == files[name], name
  assert other_summary == summary


def test_nothing_is_lost(prepared, utterances):
  samples = {id: samples for id, _, samples in utterances}
  texts = {id: text for id, text, _ in utterances}
  seen = set()
  for name in dataset.split_names(prepared["kaldi"]):
    split = dataset.open_split(prepared["kaldi"], name)
    for index in range(len(split)):
      example = split[index]
      expected = samples[example.id] / np.float32(2**15)
      np.testing.assert_array_equal(example.wave_S, expected)
      assert example.text == texts[example.id]
      assert example.task == example.id.split("-")[0]
      seen.add(example.id)
  assert len(seen) == 40


def test_every_layout_gives_equal_results(prepared, tmp_path):
  backbone = corpus.backbone_folder(tmp_path, prepared["manifest"])
  results = {}
  for layout, data in prepared.items():
    config = corpus.config(data, backbone)
    config.train.steps = 2
    parts = run.assemble(config, tmp_path / layout)
    trained = jobs.train(parts, quiet=True)
    results[layout] = scoring.evaluate(parts, trained, split="test")
  assert results["manifest"]["overall"]["utterances"] > 0
  for layout in LAYOUTS[1:]:
    assert results[layout] == results["manifest"], layout
