"""Prepared data: what is written is what is read, by every reader."""

import dataclasses
import json
import pathlib
import pickle
import shutil
import subprocess
import sys
from concurrent import futures

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds
from absl import logging

from hra.data import audio, dataset, shards
from hra.data.records import Record
from hra.errors import InputError, StorageError

_RATES = (8_000, 16_000, 44_100)
_LIMITS = audio.Limits(
  min_seconds=0.01, max_seconds=60.0, labels_per_second=0.0
)


def _record(folder, n: int) -> Record:
  rate = _RATES[n % len(_RATES)]
  rng = np.random.default_rng(n)
  path = folder / f"{n}.{('wav', 'flac')[n % 2]}"
  soundfile.write(path, rng.uniform(-1, 1, rate // 10 + 17 * n), rate)
  return Record(
    id=f"é/{n}", path=str(path), text=f"Words, {n}\n!", task=f"t{n % 3}"
  )


def _decoded(folder, splits):
  folder.mkdir()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(shards, "_CHUNK", 4)
    return shards.decode(folder, splits, limits=_LIMITS)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
  folder = tmp_path_factory.mktemp("audio")
  records = [_record(folder, n) for n in range(25)]
  return {"train": records[:20], "dev": records[20:]}


@pytest.fixture(scope="module")
def decoded(tmp_path_factory, splits):
  return _decoded(tmp_path_factory.mktemp("work") / "parts", splits)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, splits, decoded):
  out = tmp_path_factory.mktemp("out")
  dataset.assemble(out, decoded, splits)
  return out


def _files(folder):
  return {
    path.relative_to(folder): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
  }


@pytest.mark.parametrize("name", ["train", "dev"])
def test_reads_what_was_written_in_order(prepared, splits, name):
  split = dataset.open_split(prepared, name)
  records = splits[name]
  assert len(split) == len(records)
  assert split.ids == [record.id for record in records]
  assert split.tasks == [record.task for record in records]
  assert split.texts == [record.text for record in records]
  assert split.samples.dtype == np.int64
  for place in np.random.default_rng(0).permutation(len(split)):
    example = split[place]
    record = records[place]
    assert example[:1] + example[2:] == (record.id, record.text, record.task)
    expected_S = audio.decode(record.path)
    assert example.wave_S.dtype == np.float32
    assert len(example.wave_S) == split.samples[place]
    np.testing.assert_allclose(example.wave_S, expected_S, atol=1 / 32768)


def test_tfds_reads_the_same_by_itself(prepared, decoded):
  builder = tfds.builder_from_directory(prepared / "recordings/1.0.0")
  features = builder.info.features
  assert {name: str(features[name].np_dtype) for name in features} == {
    "id": "object",
    "task": "object",
    "text": "object",
    "samples": "int16",
  }
  assert builder.info.splits["train"].num_shards == len(decoded["train"]) > 2
  for name in ("train", "dev"):
    ours = dataset.open_split(prepared, name)
    theirs = builder.as_data_source(split=name)
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
      assert mine.id.encode() == other["id"]
      assert mine.text.encode() == other["text"]
      assert mine.task.encode() == other["task"]
      assert other["samples"].dtype == np.int16
      np.testing.assert_array_equal(
        audio.encode_int16(mine.wave_S), other["samples"]
      )


def test_threads_and_pickles_read_the_same(prepared):
  split = dataset.open_split(prepared, "train")
  expected = [example.wave_S for example in split]
  fresh = dataset.open_split(prepared, "train")
  unread = pickle.dumps(fresh)
  places = np.random.default_rng(1).integers(len(split), size=300)
  with futures.ThreadPoolExecutor(8) as pool:
    read = list(pool.map(lambda place: fresh[place].wave_S, places))
  for place, wave_S in zip(places, read, strict=True):
    np.testing.assert_array_equal(wave_S, expected[place])
  assert pickle.dumps(fresh) == unread
  copy = pickle.loads(unread)
  np.testing.assert_array_equal(copy[3].wave_S, expected[3])
  assert copy.tasks == split.tasks


def test_positions_follow_sequences(prepared):
  split = dataset.open_split(prepared, "dev")
  assert split[-1].id == split.ids[-1]
  assert len(list(split)) == 5
  for place in (5, -6):
    with pytest.raises(IndexError, match="5 utterances of 'dev'"):
      split[place]


def test_a_written_segment_is_the_slice(tmp_path, splits):
  whole = splits["train"][1]
  part = Record(
    id="s", path=whole.path, text="x", task="t", offset=0.01, duration=0.05
  )
  parts = {"train": [part]}
  dataset.assemble(tmp_path, _decoded(tmp_path / "parts", parts), parts)
  np.testing.assert_allclose(
    dataset.open_split(tmp_path, "train")[0].wave_S,
    audio.decode(whole.path)[160:960],
    atol=1 / 32768,
  )


def test_the_bytes_depend_on_the_recordings_alone(tmp_path, prepared, splits):
  """Neither on where the audio, the parts or the result are."""
  elsewhere = {}
  for name, records in splits.items():
    elsewhere[name] = []
    for n, record in enumerate(records):
      path = shutil.copy(record.path, tmp_path / f"{name}{n}")
      moved = dataclasses.replace(record, path=str(path), where=f"m:{n}")
      elsewhere[name].append(moved)
  (tmp_path / "out").mkdir()
  parts = _decoded(tmp_path / "other", elsewhere)
  dataset.assemble(tmp_path / "out", parts, elsewhere)
  assert _files(tmp_path / "out") == _files(prepared)


def test_files_are_linked_or_copied_where_links_cannot_be(
  tmp_path, prepared, decoded, splits, monkeypatch
):
  assert decoded["train"][0].file.stat().st_nlink > 1

  def no_links(self, target):
    raise OSError(18, "Invalid cross-device link")

  monkeypatch.setattr(pathlib.Path, "hardlink_to", no_links)
  dataset.assemble(tmp_path, decoded, splits)
  assert _files(tmp_path) == _files(prepared)
  for shard in decoded["train"]:
    assert shard.file.exists()


def test_what_is_bad_is_left_out_and_so_is_a_split_of_nothing_else(
  tmp_path, splits
):
  bad = Record("x", str(tmp_path / "absent.wav"), "x", "alone", where="m:1")
  good = splits["train"][:3]
  mixed = {"train": [good[0], bad, *good[1:]], "dev": [bad]}
  decoded = _decoded(tmp_path / "parts", mixed)
  dataset.assemble(tmp_path, decoded, mixed)
  assert dataset.split_names(tmp_path) == ["train"]
  train = dataset.open_split(tmp_path, "train")
  assert train.ids == [record.id for record in good]
  assert [example.text for example in train] == [r.text for r in good]
  assert "alone" not in (tmp_path / "index-train.json").read_text()
  info = tfds.builder_from_directory(tmp_path / "recordings/1.0.0").info
  assert list(info.splits) == ["train"]


def test_a_full_disk_leaves_nothing_that_can_be_opened(
  tmp_path, decoded, splits, monkeypatch
):
  def full(source, target):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(pathlib.Path, "hardlink_to", full)
  monkeypatch.setattr(shutil, "copyfile", full)
  with pytest.raises(StorageError, match="No space left on device; free"):
    dataset.assemble(tmp_path, decoded, splits)
  with pytest.raises(InputError, match="no prepared data in it"):
    dataset.split_names(tmp_path)
  monkeypatch.undo()
  dataset.assemble(tmp_path, decoded, splits)
  assert len(dataset.open_split(tmp_path, "train")) == 20


def test_what_cannot_be_opened(tmp_path, prepared):
  with pytest.raises(InputError, match="no such folder; make them by `hra"):
    dataset.open_split(tmp_path / "absent", "train")
  with pytest.raises(InputError, match="no prepared data in it"):
    dataset.open_split(tmp_path, "train")
  with pytest.raises(InputError, match="a split 'test', got only dev, train"):
    dataset.open_split(prepared, "test")


@pytest.mark.parametrize("damage", ["lost", "cut", "index"])
def test_incomplete_data_are_refused(tmp_path, prepared, damage):
  shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
  shard = next((tmp_path / "recordings/1.0.0").glob("*.array_record-*"))
  match damage:
    case "lost":
      shard.unlink()
    case "cut":
      shard.write_bytes(shard.read_bytes()[:-1])
    case "index":
      index = tmp_path / "index-train.json"
      index.write_text(index.read_text()[:-9])
  expected = "no JSON" if damage == "index" else "data are incomplete"
  with pytest.raises(InputError, match=expected):
    dataset.open_split(tmp_path, "train")


def test_reading_needs_no_tensorflow_and_opening_no_tfds(prepared):
  code = f"""
import json, sys
from hra.data import dataset
split = dataset.open_split({str(prepared)!r}, "train")
opened = set(sys.modules)
split[0]
heavy = ("tensorflow", "jax", "tensorflow_datasets")
print(json.dumps([[x in m for x in heavy] for m in (opened, sys.modules)]))
"""
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  opened, read = json.loads(done.stdout)
  assert opened == [False, False, False]
  assert read == [False, False, True]


def test_writing_says_nothing(tmp_path, splits, capfd, caplog):
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.INFO)
  logging.get_absl_logger().addHandler(caplog.handler)
  try:
    few = {"train": splits["train"][:2]}
    dataset.assemble(tmp_path, _decoded(tmp_path / "parts", few), few)
    assert logging.get_verbosity() == logging.INFO
  finally:
    logging.set_verbosity(verbosity)
    logging.get_absl_logger().removeHandler(caplog.handler)
  captured = capfd.readouterr()
  assert captured.out + captured.err + caplog.text == ""


def test_assembling_needs_no_tensorflow(tmp_path):
  code = f"""
import pathlib, sys
from hra.data import dataset, shards
from hra.data.records import Record
file = pathlib.Path({str(tmp_path / "a.array_record")!r})
file.write_bytes(b"x")
shard = shards.Shard(file, places=[0], samples=[1], rates=[1], problems=[])
record = Record("u", "p", "x", "t")
dataset.assemble({str(tmp_path)!r}, {{"train": [shard]}}, {{"train": [record]}})
print(sorted({{"jax", "tensorflow"}} & sys.modules.keys()))
"""
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert done.stdout == "[]\n"
