"""The command: flags in, folder and summary out."""

import json

import numpy as np
import pytest
import soundfile
from absl.testing import flagsaver

from hra.commands import prepare
from hra.data import dataset
from hra.errors import InputError


def _manifest(folder, name):
  folder.mkdir(exist_ok=True)
  lines = []
  for n in range(5):
    file = f"{name}{n}.wav"
    soundfile.write(folder / file, np.full(8000, 0.1), 8_000)
    text = f"say {len(name)}{n}"  # other sentences, the same characters
    line = {"audio_filepath": file, "text": text, "task": "ann"}
    lines.append(json.dumps(line))
  (folder / f"{name}.jsonl").write_text("\n".join(lines))


@pytest.fixture(autouse=True)
def _parsed():
  if not prepare.flags.FLAGS.is_parsed():
    prepare.flags.FLAGS(["test"])


def _run(**flags):
  with flagsaver.flagsaver(**{key: str(x) for key, x in flags.items()}):
    prepare.main(["prepare"])


def test_a_manifest_is_divided(tmp_path, capsys):
  _manifest(tmp_path / "in", "mine")
  _run(source=tmp_path / "in/mine.jsonl", out=tmp_path / "out")
  for name, count in (("train", 3), ("dev", 1), ("test", 1)):
    assert len(dataset.open_split(tmp_path / "out", name)) == count
  printed = capsys.readouterr().out
  assert "sampling rates: 8000 Hz (5)" in printed
  assert f"prepared: {tmp_path / 'out'}" in printed
  rows = [line.split()[:3] for line in printed.splitlines()]
  assert ["train", "3", "1"] in rows
  assert ["all", "5", "1"] in rows


def test_a_folder_of_manifests(tmp_path, capsys):
  for name in ("train", "dev", "test"):
    _manifest(tmp_path / "in", name)
  _run(source=tmp_path / "in", out=tmp_path / "out")
  assert len(dataset.open_split(tmp_path / "out", "dev")) == 5
  assert "warning" not in capsys.readouterr().out


def test_what_is_bad_is_left_out_when_asked(tmp_path, capsys):
  _manifest(tmp_path / "in", "mine")
  (tmp_path / "in/mine3.wav").write_bytes(b"")
  source = tmp_path / "in/mine.jsonl"
  with pytest.raises(InputError, match=r"mine\.jsonl:4: .*--skip_bad"):
    _run(source=source, out=tmp_path / "out")
  _run(source=source, out=tmp_path / "out", skip_bad=True)
  printed = capsys.readouterr().out
  assert "left out for 1 problem(s):" in printed
  assert f"{source}:4: expected" in printed


def test_tasks_can_be_another_field(tmp_path):
  _manifest(tmp_path / "in", "mine")
  source = tmp_path / "in/mine.jsonl"
  source.write_text(source.read_text().replace('"task"', '"accent"'))
  _run(source=source, out=tmp_path / "out", task_field="accent")
  assert set(dataset.open_split(tmp_path / "out", "train").tasks) == {"ann"}


def test_what_is_missing_is_said(tmp_path):
  with pytest.raises(InputError, match="--out: expected a value"):
    _run(source=tmp_path)
  with pytest.raises(InputError, match="--source: expected a value"):
    _run(out=tmp_path / "out")
  (tmp_path / "in").mkdir()
  with pytest.raises(InputError, match="tfds:NAME, got an empty folder"):
    _run(source=tmp_path / "in", out=tmp_path / "out")
