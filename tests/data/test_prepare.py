"""A corpus -> a prepared folder: what is kept, resumed, listed, refused."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import disk
import numpy as np
import pytest
import soundfile

from hra.config import PrepareConfig
from hra.data import dataset, place, shards
from hra.data.prepare import prepare
from hra.data.tokenizer import Tokenizer
from hra.errors import InputError
from hra.files import locked

_CONFIG = PrepareConfig(
  dev_fraction=0.2, test_fraction=0.2, vocabulary=64, jobs=2
)


def _manifest(folder, name="m.jsonl", *, tasks=("ann", "bob"), sentences=10):
  folder.mkdir(parents=True, exist_ok=True)
  lines = []
  for task in tasks:
    for n in range(sentences):
      file = f"{name[:-6]}-{task}-{n}.wav"
      time_S = np.arange(16_000 + 160 * n) / 16_000
      soundfile.write(folder / file, np.sin(2765 * time_S) / 2, 16_000)
      text = f"Say {'abcdefghijklmnopqrstuvwxyz'[n]}, {name[:-6]}!"
      line = {"audio_filepath": file, "text": text, "speaker": task}
      lines.append(json.dumps({**line, "duration": len(time_S) / 16_000}))
  (folder / name).write_text("\n".join(lines))
  return folder / name


def _prepare(source, out, *, tokenizer=None, **changes):
  config = dataclasses.replace(_CONFIG, **changes)
  return prepare(source, out, config=config, tokenizer=tokenizer)


def _content(folder):
  return {
    str(file.relative_to(folder)): file.read_bytes()
    for file in folder.rglob("*")
    if file.is_file()
  }


def test_one_manifest_becomes_a_complete_folder(tmp_path):
  out = tmp_path / "new" / "out"
  summary = _prepare(_manifest(tmp_path / "in"), out)
  assert summary == json.loads((out / "summary.json").read_text())
  assert summary["utterances"] == 20
  assert summary["tasks"] == 2
  assert summary["source_rates"] == {"16000": 20}
  assert summary["seconds"] == {
    "min": 1.0,
    "p10": 1.009,
    "median": 1.045,
    "p90": 1.081,
    "max": 1.09,
  }
  assert summary["hours"] == pytest.approx(20 * 1.045 / 3600, abs=1e-4)
  assert "".join(summary["characters"]) == " abcdefghijmsy"
  assert summary["characters"]["m"] == 20
  assert summary["characters"]["s"] == 20
  assert summary["task_utterances"]["ann"] == {"train": 6, "dev": 2, "test": 2}
  assert summary["warnings"] == []
  assert summary["left_out"] == 0
  assert {file.name for file in out.iterdir()} == {
    "summary.json",
    "tokenizer.model",
    "recordings",
    *(f"index-{name}.json" for name in ("train", "dev", "test")),
  }
  assert [path.name for path in out.parent.iterdir()] == ["out"]
  splits = [dataset.open_split(out, x) for x in ("train", "dev", "test")]
  assert [len(split) for split in splits] == [12, 4, 4]
  for split, length in ((s, n) for s in splits for n in s.samples):
    assert length in 16_000 + 160 * np.arange(10), split.name
  tokenizer = Tokenizer.load(out / "tokenizer.model")
  assert tokenizer.hash == summary["tokenizer"]["hash"]
  expected = Tokenizer.train(splits[0].texts, vocabulary=64, kind="char")
  assert tokenizer.hash == expected.hash


def test_the_same_again_returns_at_once(tmp_path, monkeypatch):
  source = _manifest(tmp_path / "in")
  first = _prepare(source, tmp_path / "out")
  monkeypatch.setattr(shards, "decode", None)
  again = _prepare(source, tmp_path / "out", jobs=1, bad="skip")
  assert again == first


@pytest.mark.parametrize("change", ["seed", "text", "audio", "kind", "limit"])
def test_other_input_does_not_pass_for_the_same(tmp_path, change):
  source = _manifest(tmp_path / "in")
  _prepare(source, tmp_path / "out")
  options = {
    "seed": {"seed": 5},
    "kind": {"kind": "bpe"},
    "limit": {"max_seconds": 9.0},
  }.get(change, {})
  if change == "text":
    source.write_text(source.read_text().replace("Say c", "Say q"))
  if change == "audio":
    soundfile.write(tmp_path / "in/m-bob-3.wav", np.ones(99), 16_000)
  with pytest.raises(InputError, match="prepared from other recordings"):
    _prepare(source, tmp_path / "out", **options)


def test_a_recording_of_the_same_size_is_another_one(tmp_path):
  source = _manifest(tmp_path / "in")
  _prepare(source, tmp_path / "out")
  time_S = np.arange(16_000) / 16_000
  soundfile.write(tmp_path / "in/m-ann-0.wav", np.sin(999 * time_S), 16_000)
  with pytest.raises(InputError, match="prepared from other recordings"):
    _prepare(source, tmp_path / "out")


def test_what_left_something_out_is_not_what_is_asked_for_without(tmp_path):
  source = _manifest(tmp_path / "in")
  (tmp_path / "in/m-ann-3.wav").write_bytes(b"")
  _prepare(source, tmp_path / "out", bad="skip")
  with pytest.raises(InputError, match=r"1 problems in left_out\.jsonl"):
    _prepare(source, tmp_path / "out")
  assert _prepare(source, tmp_path / "out", bad="skip")["left_out"] == 1


def test_a_line_that_went_bad_is_noticed(tmp_path):
  source = _manifest(tmp_path / "in")
  _prepare(source, tmp_path / "out")
  source.write_text(source.read_text() + "\ngarbage")
  with pytest.raises(InputError, match="prepared from other recordings"):
    _prepare(source, tmp_path / "out")


@pytest.mark.parametrize("data", [b"words", b"[1]", b"\xff\xfe", b"{}"])
def test_a_summary_that_is_not_ours(tmp_path, data):
  (tmp_path / "out").mkdir()
  (tmp_path / "out/summary.json").write_bytes(data)
  with pytest.raises(InputError, match="a new folder, got something else"):
    _prepare(_manifest(tmp_path / "in"), tmp_path / "out")


def test_the_list_of_problems_is_no_part_of_the_corpus(tmp_path):
  folder = _manifest(tmp_path / "in", "train.jsonl").parent
  recording = folder / "train-ann-3.wav"
  whole = recording.read_bytes()
  recording.write_bytes(b"")
  with pytest.raises(InputError, match="an empty file"):
    _prepare(folder, folder / "data")
  recording.write_bytes(whole)
  assert _prepare(folder, folder / "data")["utterances"] == 20


@pytest.mark.parametrize("target", ["there", "not there"])
def test_the_place_may_be_a_link(tmp_path, target):
  if target == "there":
    (tmp_path / target).mkdir()
  (tmp_path / "out").symlink_to(tmp_path / target)
  _prepare(_manifest(tmp_path / "in"), tmp_path / "out")
  assert (tmp_path / "out").is_symlink()
  assert len(dataset.open_split(tmp_path / target, "test")) == 4
  assert sorted(os.listdir(tmp_path)) == sorted(["in", "out", target])


def test_the_place_may_be_a_mount(tmp_path):
  with disk.mounted(tmp_path / "out", options="size=9m") as out:
    _prepare(_manifest(tmp_path / "in"), out)
    assert len(dataset.open_split(out, "test")) == 4
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]


def test_home_is_known(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  _manifest(tmp_path / "in")
  _prepare("~/in/m.jsonl", "~/out")
  assert len(dataset.open_split(tmp_path / "out", "test")) == 4


def test_what_is_empty_or_foreign_is_warned_of(tmp_path):
  few = _prepare(_manifest(tmp_path / "few", sentences=3), tmp_path / "one")
  assert [warning[:17] for warning in few["warnings"]] == [
    "there is no dev: ",
    "there is no test:",
  ]
  sources = {
    "train": _manifest(tmp_path / "in", "train.jsonl", tasks=["ann"]),
    "test": _manifest(tmp_path / "in", "test.jsonl", tasks=["bob"]),
  }
  foreign = _prepare(sources, tmp_path / "two", dev_fraction=0.0)
  (warning,) = foreign["warnings"]
  assert warning.startswith("no task of test is in train: ")


def test_a_transcript_that_a_trained_tokenizer_cannot_spell(tmp_path):
  sources = {
    "train": _manifest(tmp_path / "in", "train.jsonl"),
    "test": _manifest(tmp_path / "in", "test.jsonl", sentences=2),
  }
  text = sources["test"].read_text().replace("Say b, test!", "ωψ")
  sources["test"].write_text(text)
  with pytest.raises(InputError, match="2 problems") as caught:
    _prepare(sources, tmp_path / "out")
  assert "test.jsonl:2: expected characters that the" in str(caught.value)


def test_moving_everything_keeps_it_the_same(tmp_path):
  _prepare(_manifest(tmp_path / "a/in"), tmp_path / "a/out")
  (tmp_path / "a").rename(tmp_path / "b")
  _prepare(tmp_path / "b/in/m.jsonl", tmp_path / "b/out")


def test_a_strange_folder_is_left_alone(tmp_path):
  (tmp_path / "out").mkdir()
  (tmp_path / "out/thesis.txt").write_text("words")
  with pytest.raises(InputError, match="a new folder, got something else"):
    _prepare(_manifest(tmp_path / "in"), tmp_path / "out")
  assert [file.name for file in (tmp_path / "out").iterdir()] == ["thesis.txt"]
  assert sorted(os.listdir(tmp_path)) == ["in", "out"]


def test_an_empty_folder_may_be_the_place(tmp_path):
  (tmp_path / "out").mkdir()
  _prepare(_manifest(tmp_path / "in"), tmp_path / "out")
  assert len(dataset.open_split(tmp_path / "out", "test")) == 4


def test_given_splits_stay_as_they_are(tmp_path):
  for name in ("train", "dev", "test"):
    _manifest(tmp_path / "in", f"{name}.jsonl", sentences=5)
  summary = _prepare(tmp_path / "in", tmp_path / "out")
  assert [part["utterances"] for part in summary["splits"].values()] == [10] * 3
  assert summary["warnings"] == []
  train = dataset.open_split(tmp_path / "out", "train")
  assert all("train" in text for text in train.texts)


def test_given_splits_can_be_divided_anew(tmp_path):
  for name in ("train", "test"):
    _manifest(tmp_path / "in", f"{name}.jsonl", sentences=5)
  summary = _prepare(tmp_path / "in", tmp_path / "out", split_by="sentence")
  counts = {k: v["utterances"] for k, v in summary["splits"].items()}
  assert counts == {"train": 12, "dev": 4, "test": 4}
  texts = dataset.open_split(tmp_path / "out", "train").texts
  assert {"train" in text for text in texts} == {True, False}


def test_only_the_missing_split_is_held_out(tmp_path):
  sources = {
    "train": _manifest(tmp_path / "in", "train.jsonl"),
    "test": _manifest(tmp_path / "in", "test.jsonl", tasks=["ann"]),
  }
  summary = _prepare(sources, tmp_path / "out")
  utterances = {k: v["utterances"] for k, v in summary["splits"].items()}
  assert utterances == {"train": 16, "dev": 4, "test": 10}
  assert summary["warnings"] == ["1 of 2 tasks have no recording in test: bob"]


def test_transcripts_in_both_train_and_test_are_reported(tmp_path):
  sources = {
    "train": _manifest(tmp_path / "one"),
    "test": _manifest(tmp_path / "two", sentences=3),
  }
  summary = _prepare(sources, tmp_path / "out", dev_fraction=0.0)
  (warning,) = summary["warnings"]
  assert "6 of 6 utterances of test have a transcript that train has" in warning
  assert "'Say a, m!'" in warning
  assert "--split_by=sentence" in warning
  told = (tmp_path / "out/summary.json").read_text()
  assert str(tmp_path) not in told


def test_one_recording_in_two_splits_is_refused(tmp_path):
  source = _manifest(tmp_path / "in")
  with pytest.raises(InputError, match="20 problems") as caught:
    _prepare({"train": source, "test": source}, tmp_path / "out")
  assert "a new recording" in str(caught.value)


def test_what_is_wrong_is_listed_and_what_is_done_is_kept(tmp_path):
  source = _manifest(tmp_path / "in")
  (tmp_path / "in/m-ann-3.wav").unlink()
  (tmp_path / "in/m-bob-4.wav").write_bytes(b"")
  with pytest.raises(InputError, match="2 problems") as caught:
    _prepare(source, tmp_path / "out")
  for text in (f"{source}:4: ", "m-ann-3.wav", f"{source}:15: ", "m-bob-4.wav"):
    assert text in str(caught.value)
  assert sorted(os.listdir(tmp_path)) == [
    ".out.partial",
    "in",
    "out.problems.ndjson",
  ]
  # The lines are taken out of the manifest: nothing else has to be done.
  lines = source.read_text().splitlines()
  del lines[14], lines[3]
  source.write_text("\n".join(lines))
  assert _prepare(source, tmp_path / "out")["utterances"] == 18
  assert sorted(os.listdir(tmp_path)) == ["in", "out"]


def test_transcripts_without_words_are_named(tmp_path):
  source = _manifest(tmp_path / "in")
  source.write_text(source.read_text().replace("Say c, m!", "..."))
  with pytest.raises(InputError, match=r"m\.jsonl:3: expected words"):
    _prepare(source, tmp_path / "out")


def test_a_given_tokenizer_is_copied(tmp_path):
  given = Tokenizer.train(["say abcd m"], vocabulary=64, kind="char")
  given.save(tmp_path / "t.model")
  summary = _prepare(
    _manifest(tmp_path / "in"),
    tmp_path / "out",
    tokenizer=tmp_path / "t.model",
    unknown="drop",
  )
  assert (tmp_path / "out/tokenizer.model").read_bytes() == given.model
  assert summary["tokenizer"] == {
    "labels": given.vocabulary,
    "hash": given.hash,
    "unknown_characters": "efghij",
  }


@pytest.mark.parametrize("unknown", ["problem", "drop"])
def test_a_tokenizer_that_spells_nothing_is_refused(tmp_path, unknown):
  Tokenizer.train(["ωψ"], vocabulary=9, kind="char").save(tmp_path / "t.model")
  with pytest.raises(InputError, match="20 problems") as caught:
    _prepare(
      _manifest(tmp_path / "in"),
      tmp_path / "out",
      tokenizer=tmp_path / "t.model",
      unknown=unknown,
    )
  assert "characters that the tokenizer can spell" in str(caught.value)


@pytest.mark.parametrize(
  ("options", "match"),
  [
    ({"dev_fraction": -0.1}, "dev_fraction: expected from 0"),
    ({"test_fraction": 1.0}, "test_fraction: expected from 0"),
    ({"dev_fraction": 0.5, "test_fraction": 0.5}, "less than 1"),
    ({"min_seconds": 2.0, "max_seconds": 1.0}, "min_seconds and max_seconds"),
    ({"jobs": -1}, "jobs: expected at least 0"),
    ({"labels_per_second": -4.0}, "labels_per_second: expected at least 0"),
  ],
)
def test_bad_options(tmp_path, options, match):
  with pytest.raises(InputError, match=match):
    _prepare(tmp_path / "m", tmp_path / "out", **options)


def test_two_preparations_are_the_same_bytes(tmp_path):
  source = _manifest(tmp_path / "in")
  for name, jobs in (("one", 1), ("two", 3)):
    _prepare(source, tmp_path / name, jobs=jobs)
  assert _content(tmp_path / "one") == _content(tmp_path / "two")


def test_the_place_is_one_preparation_s_alone(tmp_path):
  source = _manifest(tmp_path / "in")
  work = place.workplace(tmp_path / "out")
  work.mkdir()
  with locked(work, fix=""), pytest.raises(InputError, match="at work in it"):
    _prepare(source, tmp_path / "out")
  assert work.is_dir()
  _prepare(source, tmp_path / "out")
  assert sorted(os.listdir(tmp_path)) == ["in", "out"]


def test_killed_at_any_time_it_goes_on_to_the_same_bytes(tmp_path):
  source = _manifest(tmp_path / "in", sentences=26)
  _prepare(source, tmp_path / "whole")
  script = (
    "import sys; from hra.config import PrepareConfig;"
    "from hra.data.prepare import prepare;"
    "prepare(sys.argv[1], sys.argv[2], config=PrepareConfig("
    "dev_fraction=0.2, test_fraction=0.2, vocabulary=64, jobs=2))"
  )
  command = [sys.executable, "-c", script, source, tmp_path / "out"]
  start = time.monotonic()
  subprocess.run([*command[:-1], tmp_path / "timed"], check=True)
  duration = time.monotonic() - start
  rng = np.random.default_rng(0)
  for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    time.sleep(rng.uniform(0.4, 0.9) * duration)
    child.send_signal(number)
    child.wait()
    if (tmp_path / "out").exists():
      break
    with pytest.raises(InputError, match="prepared data"):
      dataset.open_split(tmp_path / "out", "train")
  _prepare(source, tmp_path / "out")
  assert _content(tmp_path / "out") == _content(tmp_path / "whole")
  assert sorted(os.listdir(tmp_path)) == ["in", "out", "timed", "whole"]
