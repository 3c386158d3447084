"""Whatever bytes a file holds: a finite waveform, or one InputError.

Run as a script, it is the process in which the cases run, so that a crash or a
hang of libsndfile would be a test's failure and not its end:

    python tests/data/test_audio_fuzz.py FOLDER FIRST END
"""

import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import time

import mutations
import numpy as np
import pytest
import soundfile

from hra.config import PrepareConfig
from hra.data import audio
from hra.data.dataset import open_split
from hra.data.prepare import prepare
from hra.errors import InputError

_LIMITS = audio.Limits(min_seconds=0.01, max_seconds=30.0)
_SECONDS = 5.0
"""Bound of one case's time; the slowest took 0.1 s of CPU time."""
_GROWTH = 64 << 20
"""Bytes by which the process may grow over all cases."""


def _check(path: pathlib.Path, rng: np.random.Generator) -> str:
  """Reads a file, or a segment of it; says how it ended."""
  segment = {}
  if rng.integers(3) == 0:
    segment["offset"] = float(rng.uniform(0, 0.4))
  if rng.integers(3) == 0:
    segment["duration"] = float(rng.uniform(0.01, 0.4))
  try:
    wave_S, rate = audio.read(path, limits=_LIMITS, **segment)
  except InputError as error:
    problem = error
  else:
    _check_recording(wave_S, rate, segment.get("duration"))
    return "read"
  assert str(problem).isprintable()
  assert problem.where == str(path)
  assert problem.expected
  assert problem.got
  return "refused"


def _check_recording(
  wave_S: np.ndarray, rate: int, duration: float | None
) -> None:
  assert wave_S.dtype == np.float32
  assert wave_S.ndim == 1
  seconds = len(wave_S) / 16_000
  assert _LIMITS.min_seconds - 0.002 < seconds < _LIMITS.max_seconds + 0.002
  if duration is not None:
    assert len(wave_S) <= duration * 16_000 + 20
  assert np.isfinite(wave_S).all()
  assert 0 < np.abs(wave_S).max() <= 1
  assert 1_000 <= rate <= 768_000


def _resident() -> int:
  return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096


def _run(folder: pathlib.Path, first: int, end: int) -> dict[str, float]:
  files = mutations.files(folder)
  path = folder / "case"
  totals = {"read": 0, "refused": 0, "slowest": 0.0}
  resident = 0
  for case in range(first, end):
    rng = np.random.default_rng(case)
    name = list(files)[case % len(files)]
    (folder / "last").write_text(f"case {case}, {name}")
    path.write_bytes(mutations.mutate(files[name], rng, list(files.values())))
    began = time.process_time()
    totals[_check(path, rng)] += 1
    totals["slowest"] = max(totals["slowest"], time.process_time() - began)
    if case == first + (end - first) // 5:
      resident = _resident()  # what is loaded once is loaded
  totals["growth"] = _resident() - resident
  return totals


def _fuzz(folder: pathlib.Path, first: int, end: int) -> None:
  # Decoders print: mpg123 to the standard error, SDS to the standard output.
  with (folder / "said").open("w") as said:
    process = subprocess.Popen(
      [sys.executable, __file__, str(folder), str(first), str(end)],
      stdout=said,
      stderr=said,
      env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
      code = process.wait(timeout=60 + (end - first) * 0.1)
    except subprocess.TimeoutExpired:
      process.kill()
      code = process.wait()
  last = (folder / "last").read_text()
  end_of_output = (folder / "said").read_text(errors="replace")[-2_000:]
  assert code == 0, f"{last}: exit code {code}\n{end_of_output}"
  totals = json.loads((folder / "totals").read_text())
  assert totals["read"] + totals["refused"] == end - first
  assert totals["read"] > 0.1 * (end - first)
  assert totals["refused"] > 0.3 * (end - first)
  assert totals["slowest"] < _SECONDS
  assert totals["growth"] < _GROWTH


def test_damaged_bytes(tmp_path):
  _fuzz(tmp_path, 0, 1_500)


@pytest.mark.slow
def test_more_damaged_bytes(tmp_path):
  _fuzz(tmp_path, 1_500, 11_500)


def _prepare_damaged(folder: pathlib.Path, count: int) -> None:
  """Every damaged file is kept, or listed with its line: none is lost."""
  files = mutations.files(folder)
  (folder / "in").mkdir()
  lines = []
  for case in range(count):
    name = list(files)[case % len(files)]
    data = mutations.mutate(
      files[name], np.random.default_rng(case), list(files.values())
    )
    (folder / "in" / f"{case}").write_bytes(data)
    line = {"audio_filepath": f"{case}", "text": "a", "speaker": name}
    lines.append(json.dumps(line))
  manifest = folder / "in/m.jsonl"
  manifest.write_text("\n".join(lines))
  config = PrepareConfig(
    dev_fraction=0.0,
    test_fraction=0.0,
    min_seconds=_LIMITS.min_seconds,
    max_seconds=_LIMITS.max_seconds,
    bad="skip",
  )
  before = _resident()
  summary = prepare(manifest, folder / "out", config=config)
  assert _resident() - before < _GROWTH
  split = open_split(folder / "out", "train")
  told = (folder / "out/left_out.jsonl").read_text().splitlines()
  listed = [json.loads(line)["where"].rpartition(":") for line in told]
  assert {file for file, _, _ in listed} == {str(manifest)}
  left_out = [int(number) - 1 for _, _, number in listed]
  assert sorted([*left_out, *map(int, split.ids)]) == list(range(count))
  assert summary["left_out"] == len(left_out) > 0.3 * count
  for index in range(len(split)):
    _check_recording(split[index].wave_S, 16_000, None)


def test_damaged_recordings_of_a_corpus(tmp_path):
  _prepare_damaged(tmp_path, 10_000)


def test_mutations_are_what_their_seed_says():
  data, others = bytes(range(256)) * 8, [b"other" * 50]
  made = [
    mutations.mutate(data, np.random.default_rng(seed), others)
    for seed in range(200)
  ]
  assert made == [
    mutations.mutate(data, np.random.default_rng(seed), others)
    for seed in range(200)
  ]
  assert len(set(made)) > 180
  assert made.count(data) < 10


@pytest.mark.parametrize("size", [1, 3, 12, 43, 44, 100, 4_000])
def test_noise(tmp_path, size):
  path = tmp_path / "a.wav"
  rng = np.random.default_rng(size)
  for magic in (b"", b"RIFF", b"fLaC", b"OggS", b"ID3\4\0\0", b"\xff\xfb\x90"):
    path.write_bytes(magic + rng.bytes(size))
    with contextlib.suppress(InputError):
      assert np.isfinite(audio.decode(path)).all()


def test_every_header_byte_at_its_edges(tmp_path):
  """WAV's and FLAC's first bytes, one at a time."""
  path = tmp_path / "a"
  for options in ({"format": "WAV"}, {"format": "FLAC"}):
    file = io.BytesIO()
    wave_S = np.sin(np.arange(800) / 9)
    soundfile.write(file, wave_S, 16_000, **options)
    whole = file.getvalue()
    for place in range(44):
      for value in (0x00, 0x01, 0x7F, 0x80, 0xFF):
        data = bytearray(whole)
        data[place] = value
        path.write_bytes(data)
        with contextlib.suppress(InputError):
          assert np.isfinite(audio.read(path, limits=_LIMITS).wave_S).all()


if __name__ == "__main__":
  _folder = pathlib.Path(sys.argv[1])
  _totals = _run(_folder, int(sys.argv[2]), int(sys.argv[3]))
  (_folder / "totals").write_text(json.dumps(_totals))
