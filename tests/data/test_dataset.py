"""Prepared data: what is written is what is read, by every reader."""

import json
import pickle
import subprocess
import sys
import weakref
from concurrent import futures

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds
from absl import logging

from hra.data import audio, dataset
from hra.data.manifest import Record
from hra.errors import InputError

_RATES = (8_000, 16_000, 44_100)


def _record(folder, n: int) -> Record:
  rate = _RATES[n % len(_RATES)]
  rng = np.random.default_rng(n)
  path = folder / f"{n}.{('wav', 'flac')[n % 2]}"
  soundfile.write(path, rng.uniform(-1, 1, rate // 10 + 17 * n), rate)
  return Record(
    id=f"é/{n}", path=str(path), text=f"Words, {n}\n!", task=f"t{n % 3}"
  )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  folder = tmp_path_factory.mktemp("audio")
  out = tmp_path_factory.mktemp("out")
  records = [_record(folder, n) for n in range(25)]
  splits = {"train": records[:20], "dev": records[20:]}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(dataset, "_SHARD_RECORDS", 8)
    rates = dataset.write(out, splits, jobs=3)
  return out, splits, rates


@pytest.mark.parametrize("name", ["train", "dev"])
def test_reads_what_was_written_in_order(prepared, name):
  out, splits, _ = prepared
  split = dataset.open_split(out, name)
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


def test_tfds_reads_the_same_by_itself(prepared):
  out, _, _ = prepared
  builder = tfds.builder_from_directory(out / "recordings/1.0.0")
  assert builder.info.splits["train"].num_shards == 3
  for name in ("train", "dev"):
    ours = dataset.open_split(out, name)
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


def test_rates_are_counted(prepared):
  _, splits, rates = prepared
  total = sum(map(len, splits.values()))
  assert rates == {
    rate: len(range(n, total, 3)) for n, rate in enumerate(_RATES)
  }


def test_threads_and_pickles_read_the_same(prepared):
  split = dataset.open_split(prepared[0], "train")
  expected = [example.wave_S for example in split]
  fresh = dataset.open_split(prepared[0], "train")
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
  split = dataset.open_split(prepared[0], "dev")
  assert split[-1].id == split.ids[-1]
  assert len(list(split)) == 5
  for place in (5, -6):
    with pytest.raises(IndexError, match="5 utterances of 'dev'"):
      split[place]


def test_a_written_segment_is_the_slice(prepared, tmp_path):
  _, splits, _ = prepared
  whole = splits["train"][1]
  part = Record(
    id="s", path=whole.path, text="x", task="t", offset=0.01, duration=0.05
  )
  dataset.write(tmp_path, {"train": [part]})
  np.testing.assert_allclose(
    dataset.open_split(tmp_path, "train")[0].wave_S,
    audio.decode(whole.path)[160:960],
    atol=1 / 32768,
  )


def test_all_bad_recordings_are_listed(tmp_path, prepared):
  good = prepared[1]["train"][:3]
  (tmp_path / "empty.wav").touch()
  bad = [
    Record("x", str(tmp_path / name), "x", "t", where=f"m:{line}")
    for line, name in enumerate(("absent.wav", "empty.wav"), start=4)
  ]
  with pytest.raises(InputError, match="2 problems") as caught:
    dataset.write(tmp_path, {"dev": bad[:1], "train": [*good, bad[1]]})
  lines = str(caught.value).splitlines()
  assert "m:4: " in lines[1]
  assert "absent.wav: expected an audio file, got no such file" in lines[1]
  assert "m:5: " in lines[2]
  assert "an empty file" in lines[2]
  with pytest.raises(InputError, match="no prepared data in it"):
    dataset.open_split(tmp_path, "train")


def test_many_records_take_few_files(tmp_path, prepared, monkeypatch):
  monkeypatch.setattr(dataset, "_SHARD_RECORDS", 1)
  monkeypatch.setattr(dataset, "_MAX_SHARDS", 4)
  records = prepared[1]["train"][:10]
  dataset.write(tmp_path, {"train": records})
  files = list((tmp_path / "recordings/1.0.0").glob("*.array_record-*"))
  assert len(files) == 4
  assert [x.id for x in dataset.open_split(tmp_path, "train")] == [
    record.id for record in records
  ]


def test_few_recordings_are_in_memory_at_once(tmp_path, prepared, monkeypatch):
  encode, alive, most = audio.encode_int16, weakref.WeakSet(), [0]

  class Samples(np.ndarray):
    """An array that a weak set can hold."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__

  def watched(wave_S):
    samples_S = encode(wave_S).view(Samples)
    alive.add(samples_S)
    most.append(len(alive))
    return samples_S

  monkeypatch.setattr(audio, "encode_int16", watched)
  dataset.write(tmp_path, {"train": prepared[1]["train"]})
  assert len(most) == 21
  assert max(most) <= 2


def test_what_cannot_be_opened(tmp_path, prepared):
  with pytest.raises(InputError, match="no such folder; make them by `hra"):
    dataset.open_split(tmp_path / "absent", "train")
  with pytest.raises(InputError, match="no prepared data in it"):
    dataset.open_split(tmp_path, "train")
  with pytest.raises(InputError, match="a split 'test', got only dev, train"):
    dataset.open_split(prepared[0], "test")


@pytest.mark.parametrize("damage", ["lost", "cut", "index"])
def test_incomplete_data_are_refused(tmp_path, prepared, damage):
  dataset.write(tmp_path, {"train": prepared[1]["train"][:2]})
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
split = dataset.open_split({str(prepared[0])!r}, "train")
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


def test_writing_says_nothing(tmp_path, prepared, capfd, caplog):
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.INFO)
  logging.get_absl_logger().addHandler(caplog.handler)
  try:
    dataset.write(tmp_path, {"train": prepared[1]["train"][:2]})
    assert logging.get_verbosity() == logging.INFO
  finally:
    logging.set_verbosity(verbosity)
    logging.get_absl_logger().removeHandler(caplog.handler)
  captured = capfd.readouterr()
  assert captured.out + captured.err + caplog.text == ""
