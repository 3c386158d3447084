"""The same few recordings as a manifest, in LibriSpeech's layout, as Kaldi data."""

import io
import json
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from hra.data.corpora import source
from hra.data.corpora.fields import Fields
from hra.data.records import Problems

RATE = 16_000


class Utterance(NamedTuple):
  """A recording of LibriSpeech."""

  id: str
  text: str
  subset: str
  samples_S: np.ndarray
  """int16."""

  @property
  def speaker(self) -> str:
    return self.id.split("-")[0]

  @property
  def chapter(self) -> str:
    return self.id.rsplit("-", 1)[0]

  @property
  def split(self) -> str:
    return self.subset.split("-")[0]

  @property
  def path(self) -> str:
    """Under the folder LibriSpeech, without suffix."""
    return f"{self.subset}/{self.chapter.replace('-', '/')}/{self.id}"


def utterances(*, seed: int = 0) -> list[Utterance]:
  """Two speakers' chapters in each of three subsets, by id."""
  rng = np.random.default_rng(seed)
  found = []
  for place, subset in enumerate(
    ("train-clean-100", "dev-clean", "test-clean")
  ):
    for speaker in (11 + place, 21 + place):
      for number in range(2):
        samples_S = rng.integers(-32768, 32768, int(rng.integers(800, 1600)))
        found.append(
          Utterance(
            id=f"{speaker}-{100 + speaker}-{number:04d}",
            text=f"SPEAKER {speaker} SAYS {number}",
            subset=subset,
            samples_S=samples_S.astype(np.int16),
          )
        )
  return sorted(found, key=lambda utterance: utterance.id)


def encoded(utterance: Utterance, suffix: str = ".flac") -> bytes:
  """An audio file with exactly the utterance's samples."""
  file = io.BytesIO()
  soundfile.write(file, utterance.samples_S, RATE, format=suffix[1:].upper())
  return file.getvalue()


def layout(suffix: str = ".flac") -> dict[str, bytes]:
  """LibriSpeech's files by path, from SUBSET on."""
  files: dict[str, bytes] = {}
  for utterance in utterances():
    files[f"{utterance.path}{suffix}"] = encoded(utterance, suffix)
    folder = Path(utterance.path).parent.as_posix()
    name = f"{folder}/{utterance.chapter}.trans.txt"
    line = f"{utterance.id} {utterance.text}\n".encode()
    files[name] = files.get(name, b"") + line
  return files


def write(folder: Path, files: dict[str, bytes]) -> Path:
  """Writes files by path and returns the folder."""
  for name, data in files.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
  return folder


def archive(path: Path, files: dict[str, bytes]) -> Path:
  """Writes a .tar or .tar.gz archive of files and returns its path."""
  mode = "w:gz" if path.suffix in (".gz", ".tgz") else "w"
  with tarfile.open(path, mode) as tar:
    for name, data in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      tar.addfile(member, io.BytesIO(data))
  return path


def write_manifest(folder: Path) -> Path:
  """A manifest with sessions and splits, of FLAC files."""
  files = {f"{u.path}.flac": encoded(u) for u in utterances()}
  lines = [
    {
      "audio_filepath": f"{u.path}.flac",
      "id": u.id,
      "text": u.text,
      "speaker": int(u.speaker),
      "session": u.chapter,
      "split": u.split,
    }
    for u in utterances()
  ]
  files["all.jsonl"] = "\n".join(map(json.dumps, lines)).encode()
  return write(folder, files) / "all.jsonl"


def write_kaldi(folder: Path) -> Path:
  """A folder with the data folders train, dev and test."""
  for split in ("train", "dev", "test"):
    part = [u for u in utterances() if u.split == split]
    files = {f"{split}/wav/{u.id}.wav": encoded(u, ".wav") for u in part}
    for name, values in {
      "wav.scp": [f"wav/{u.id}.wav" for u in part],
      "text": [u.text for u in part],
      "utt2spk": [u.speaker for u in part],
    }.items():
      pairs = zip(part, values, strict=True)
      lines = [f"{u.id} {value}\n" for u, value in pairs]
      files[f"{split}/{name}"] = "".join(lines).encode()
    write(folder, files)
  return folder


def read(folder: Path, name: str, fields: Fields | None = None):
  """The records of the corpus `name`, and its problems as text."""
  problems = Problems(name, expected="a corpus without faults")

  def scratch():
    (folder / "scratch").mkdir(exist_ok=True)
    return folder / "scratch"

  records = source.read(
    name, problems=problems, fields=fields or Fields(), scratch=scratch
  )
  return records, [str(problem) for problem in problems]
