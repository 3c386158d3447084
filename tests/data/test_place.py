"""Prepared data in a bucket: the same bytes as local ones, whole or not there."""

import io
import json
import os
import pathlib
import shutil

import corpus
import jax
import numpy as np
import pytest
import soundfile
from etils import epath

from hra import jobs, run
from hra.config import PrepareConfig
from hra.data import dataset, place
from hra.data.prepare import prepare
from hra.errors import InputError, StorageError

CONFIG = PrepareConfig(dev_fraction=0.2, test_fraction=0.2, jobs=1)


def _corpus(folder):
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(0)
  lines = []
  for n in range(10):
    name = f"{n}.flac"
    wave = 0.1 * rng.standard_normal(4000 + 100 * n)
    file = io.BytesIO()
    soundfile.write(file, wave, 16_000, format="FLAC")
    (folder / name).write_bytes(file.getvalue())
    text = f"say {'abcdefghij'[n]}"
    line = {"audio_filepath": name, "text": text, "speaker": "ann"}
    lines.append(json.dumps(line))
  (folder / "m.jsonl").write_text("\n".join(lines))
  return folder / "m.jsonl"


def _content(folder):
  folder = epath.Path(folder)
  depths = ("*", "recordings/1.0.0/*")
  files = {
    path.name: path.read_bytes()
    for depth in depths
    for path in folder.glob(depth)
    if path.is_file()
  }
  summary = json.loads(files.pop("summary.json"))
  del summary["fingerprint"]  # sizes of recordings are asked of local ones only
  return files, summary


def test_from_a_bucket_to_a_bucket_is_the_same_as_local(bucket, tmp_path):
  local = prepare(_corpus(tmp_path / "in"), tmp_path / "out", config=CONFIG)
  remote = prepare(_corpus(bucket / "in"), bucket / "out", config=CONFIG)
  assert remote["utterances"] == local["utterances"] == 10
  assert _content(bucket / "out") == _content(tmp_path / "out")
  assert not list((tmp_path / "cache/prepare").iterdir())
  again = prepare(bucket / "in/m.jsonl", bucket / "out", config=CONFIG)
  assert again == remote


def test_it_is_read_through_a_local_copy(bucket, tmp_path):
  prepare(_corpus(tmp_path / "in"), tmp_path / "out", config=CONFIG)
  prepare(tmp_path / "in/m.jsonl", bucket / "out", config=CONFIG)
  remote = dataset.open_split(bucket / "out", "train")
  local = dataset.open_split(tmp_path / "out", "train")
  for index in range(len(local)):
    np.testing.assert_array_equal(remote[index].wave_S, local[index].wave_S)
  (copy,) = (tmp_path / "cache/data").iterdir()
  (shard,) = copy.rglob("recordings-train.array_record*")
  # A copy that lost its end is fetched again.
  whole = shard.read_bytes()
  shard.write_bytes(whole[:-10])
  again = dataset.open_split(bucket / "out", "train")
  np.testing.assert_array_equal(again[0].wave_S, local[0].wave_S)
  assert shard.read_bytes() == whole


def test_an_upload_that_is_interrupted_is_no_data_and_goes_on(
  bucket, tmp_path, monkeypatch
):
  source = _corpus(tmp_path / "in")
  copy = place._copy

  def fail(reader, writer, *, bar):
    if "index-test" in os.fspath(reader.name):
      raise KeyboardInterrupt
    copy(reader, writer, bar=bar)

  monkeypatch.setattr(place, "_copy", fail)
  with pytest.raises(KeyboardInterrupt):
    prepare(source, bucket / "out", config=CONFIG)
  with pytest.raises(InputError, match="expected an index"):
    dataset.open_split(bucket / "out", "test")
  monkeypatch.setattr(place, "_copy", copy)
  prepare(source, bucket / "out", config=CONFIG)
  prepare(source, tmp_path / "out", config=CONFIG)
  assert _content(bucket / "out") == _content(tmp_path / "out")


def test_a_recording_that_a_bucket_lacks_is_listed(bucket, tmp_path):
  source = _corpus(bucket / "in")
  (bucket / "in/3.flac").unlink()
  (bucket / "in/5.flac").write_bytes(b"")
  with pytest.raises(InputError, match="2 problems") as caught:
    prepare(source, tmp_path / "out", config=CONFIG)
  for line, name in ((4, "3.flac"), (6, "5.flac")):
    assert f"{source}:{line}: expected" in str(caught.value)
    assert name in str(caught.value)


def test_strangers_in_a_bucket_are_left_alone(bucket, tmp_path):
  (bucket / "out/thesis.txt").write_text("words")
  with pytest.raises(InputError, match="a new folder, got something else"):
    prepare(_corpus(tmp_path / "in"), bucket / "out", config=CONFIG)
  assert (bucket / "out/thesis.txt").read_text() == "words"


def test_a_bucket_that_does_not_exist(bucket, tmp_path):
  source = _corpus(tmp_path / "in")
  with pytest.raises(StorageError, match="s3://no-such-bucket"):
    prepare("s3://no-such-bucket/m.jsonl", tmp_path / "out", config=CONFIG)
  with pytest.raises(StorageError, match="s3://no-such-bucket"):
    prepare(source, "s3://no-such-bucket/out", config=CONFIG)


def test_training_reads_a_bucket(bucket, tmp_path):
  data = corpus.prepared(tmp_path)
  backbone = corpus.backbone_folder(tmp_path, data)
  copy = bucket / "data"
  shutil.copytree(data, tmp_path / "copy")
  place.publish(tmp_path / "copy", copy)
  rows = []
  for name, path in (("near", data), ("far", copy)):
    config = corpus.config(path, backbone)
    config.train.steps = 2
    parts = run.assemble(config, tmp_path / name)
    assert parts.config.data.path == str(path)
    rows.append(jobs.train(parts, quiet=True).rows)
  jax.tree.map(np.testing.assert_array_equal, *rows)


def test_local_work_stands_beside_the_result(tmp_path):
  assert place.workplace(tmp_path / "a/out") == tmp_path / "a/.out.partial"
  assert place.local_files(
    epath.Path(tmp_path), {"x": 1}, version=b""
  ) == pathlib.Path(tmp_path)
