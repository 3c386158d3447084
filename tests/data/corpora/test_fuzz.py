"""Damaged files become records, listed problems or one clear error."""

import corpus_forms
import numpy as np
import pytest
from etils import epath

from hra.data.corpora import archives, fields, kaldi, librispeech, manifest
from hra.data.records import Problems
from hra.errors import InputError

PIECES = (
  b"\xff",
  b"\xe9",
  b"\0",
  b"\n",
  b"\r",
  b" ",
  b"\t",
  b"-1",
  b"1e999",
  b"NaN",
  b"|",
  b"'",
  b'"',
  b"\\",
  b"\\ud800",
  b"\\u0000",
  b"{",
  b"[" * 2000,
  b"9" * 5000,
  b"null",
  b"://",
  b"http://",
  b"gs://",
  b"../",
  b"~",
  b"\xef\xbb\xbf",
  b"\xed\xa0\x80",
  b"x" * 5000,
)


def _mutated(data, rng):
  """Flips, inserts, deletes, truncates, repeats or swaps a few times."""
  for _ in range(rng.integers(1, 4)):
    at = int(rng.integers(len(data) + 1))
    match rng.integers(6):
      case 0:
        byte = bytes([rng.integers(256)])
        data = data[:at] + byte + data[at + 1 :]
      case 1:
        data = data[:at] + PIECES[rng.integers(len(PIECES))] + data[at:]
      case 2:
        data = data[:at] + data[at + int(rng.integers(1, 40)) :]
      case 3:
        data = data[:at]
      case 4:
        lines = data.splitlines(keepends=True)
        rng.shuffle(lines)
        data = b"".join(lines)
      case 5:
        end = at + int(rng.integers(1, 80))
        data = data[:at] + data[at:end] * 2 + data[end:]
  return data


def _check_message(error):
  message = str(error)
  assert "\n" not in message
  assert len(message) < 12_000
  message.encode()


def _check(read, path):
  """Reads, and looks at what comes out; returns whether anything was wrong."""
  problems = Problems(path, expected="no faults")
  try:
    records = read(problems)
  except InputError as error:
    _check_message(error)
    return True
  for record in records:
    for value in (record.id, record.path, record.text, record.task):
      assert value.strip()
      value.encode()
    assert fields.is_nameable(record.id)
    assert fields.is_nameable(record.path)
    assert record.where
    assert record.duration is None or 0 < record.duration < float("inf")
    assert record.offset is None or 0 <= record.offset < float("inf")
  assert len({record.id for record in records}) == len(records)
  for problem in problems:
    _check_message(problem)
  assert records or len(problems)
  return bool(len(problems))


def test_manifests(tmp_path):
  rng = np.random.default_rng(0)
  path = corpus_forms.write_manifest(tmp_path)
  good = path.read_bytes()
  wrong = 0
  for _ in range(2000):
    path.write_bytes(_mutated(good, rng))
    wrong += _check(lambda p: manifest.read(path, problems=p), path)
  assert 800 < wrong < 2000


@pytest.mark.parametrize("name", ["wav.scp", "text", "utt2spk", "segments"])
def test_kaldi(tmp_path, name):
  rng = np.random.default_rng(1)
  folder = epath.Path(corpus_forms.write_kaldi(tmp_path) / "train")
  ids = [line.split()[0] for line in (folder / "text").read_text().splitlines()]
  if name == "segments":
    ends = dict(zip(ids, (1, -1, 2, 3), strict=True))
    lines = [f"{id} {id} 0.01 {end}\n" for id, end in ends.items()]
    (folder / name).write_text("".join(lines))
  good = (folder / name).read_bytes()
  wrong = 0
  for _ in range(700):
    (folder / name).write_bytes(_mutated(good, rng))
    wrong += _check(lambda p: kaldi.read(folder, problems=p), folder)
  assert 200 < wrong < 700


def test_librispeech(tmp_path):
  rng = np.random.default_rng(2)
  files = corpus_forms.layout()
  files = {n: d for n, d in files.items() if n.startswith("dev-clean/12/")}
  folder = epath.Path(corpus_forms.write(tmp_path, files))
  (path,) = folder.glob("*/*/*/*.txt")
  good = path.read_bytes()
  wrong = 0
  for _ in range(1500):
    path.write_bytes(_mutated(good, rng))
    wrong += _check(lambda p: librispeech.read(folder, problems=p), folder)
  assert 800 < wrong < 1500


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_archives(tmp_path, suffix):
  rng = np.random.default_rng(3)
  files = {f"a/1/2/{n}.flac": bytes([n]) * 700 for n in range(8)}
  path = corpus_forms.archive(tmp_path / f"a{suffix}", files)
  good = path.read_bytes()
  wrong = 0
  for case in range(600):
    path.write_bytes(_mutated(good, rng))
    problems = Problems(path, expected="no faults")
    try:
      folder = archives.unpack(
        epath.Path(path), into=tmp_path / str(case), problems=problems
      )
    except InputError as error:
      _check_message(error)
      wrong += 1
    else:
      assert (tmp_path / str(case)) in folder.parents
      wrong += len(problems) > 0
  assert 100 < wrong <= 600
  names = {path.name for path in tmp_path.iterdir()}
  assert names <= {path.name, *map(str, range(600))}
