"""Manifests -> prepared folders: what is held out, kept, listed, refused."""

import collections
import json

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from hra.data import dataset, prepare
from hra.data.manifest import Record
from hra.data.text import normalize_transcript
from hra.data.tokenizer import Tokenizer
from hra.errors import InputError

_OPTIONS = {"vocabulary": 64, "kind": "char", "seed": 0, "jobs": 2}
_HALVES = {"dev_fraction": 0.2, "test_fraction": 0.2}


def _manifest(folder, name="m.jsonl", *, tasks=("ann", "bob"), sentences=10):
  folder.mkdir(parents=True, exist_ok=True)
  lines = []
  for task in tasks:
    for n in range(sentences):
      file = f"{name[:-6]}-{task}-{n}.wav"
      time_S = np.arange(1600 + 160 * n) / 16_000
      soundfile.write(folder / file, np.sin(2765 * time_S) / 2, 16_000)
      text = f"Say {'abcdefghijklmnopqrstuvwxyz'[n]}, {name[:-6]}!"
      line = {"audio_filepath": file, "text": text, "speaker": task}
      lines.append(json.dumps({**line, "duration": len(time_S) / 16_000}))
  (folder / name).write_text("\n".join(lines))
  return folder / name


def _prepare(sources, out, **options):
  return prepare.prepare(sources, out, **{**_OPTIONS, **_HALVES, **options})


def _records(texts_of):
  return [
    Record(id=f"{task}{n}", path=f"{task}{n}", text=text, task=task)
    for task, texts in texts_of.items()
    for n, text in enumerate(texts)
  ]


def _held(texts_of, *, seed=0, dev=0.1, test=0.2):
  fractions = {"dev": dev, "test": test}
  return prepare.hold_out(_records(texts_of), fractions=fractions, seed=seed)


def _counts(splits, task):
  return [sum(r.task == task for r in part) for part in splits.values()]


@settings(max_examples=50, deadline=None)
@given(
  st.dictionaries(
    st.sampled_from("abcd"),
    st.lists(st.integers(0, 40).map(str), min_size=1, max_size=40),
    min_size=1,
  ),
  st.floats(0, 0.45),
  st.floats(0, 0.45),
)
def test_no_transcript_is_in_two_splits(texts_of, dev, test):
  splits = _held(texts_of, dev=dev, test=test)
  split_of = {}
  for name, part in splits.items():
    for record in part:
      assert split_of.setdefault(record.text, name) == name
  kept = collections.Counter(r.id for part in splits.values() for r in part)
  assert kept == collections.Counter(r.id for r in _records(texts_of))


def test_spelling_makes_no_other_sentence():
  texts = [f"{n} apples" for n in range(9)]
  for seed in range(5):
    splits = _held(
      {"a": [*texts, *(f" {x.upper()}!" for x in texts)]}, seed=seed
    )
    sets = [{normalize_transcript(r.text) for r in x} for x in splits.values()]
    assert len(set().union(*sets)) == sum(map(len, sets)) == 9


@pytest.mark.parametrize("shared", [False, True])
def test_every_task_gets_its_share(shared):
  texts_of = {
    f"t{n}": [f"{'' if shared else n} words {k}" for k in range(size)]
    for n, size in enumerate((4, 10, 20, 50))
  }
  splits = _held(texts_of)
  assert _counts(splits, "t0") == [2, 1, 1]
  assert _counts(splits, "t1") == [7, 1, 2]
  assert _counts(splits, "t2") == [14, 2, 4]
  assert _counts(splits, "t3") == [35, 5, 10]


def test_few_sentences_all_train():
  assert _counts(_held({"a": ["x", "y", "z"] * 5}), "a") == [15, 0, 0]
  splits = _held({"a": ["1", "2", "3", "4"]}, dev=0.45, test=0.45)
  assert _counts(splits, "a") == [1, 2, 1]


def test_held_out_does_not_depend_on_order_or_on_strangers():
  alone = {"a": [f"a {n}" for n in range(20)]}
  more = {"b": [f"b {n}" for n in range(12)], "a": alone["a"][::-1]}
  one, two = (
    {name: {r.text for r in part if r.task == "a"} for name, part in x.items()}
    for x in (_held(alone), _held(more))
  )
  assert one == two
  other = _held(alone, seed=1)
  assert one["test"] != {r.text for r in other["test"]}


def test_one_manifest_becomes_a_complete_folder(tmp_path):
  out = tmp_path / "new" / "out"
  summary = _prepare({"train": _manifest(tmp_path / "in")}, out)
  assert summary == json.loads((out / "summary.json").read_text())
  assert summary["utterances"] == 20
  assert summary["tasks"] == 2
  assert summary["source_rates"] == {"16000": 20}
  assert summary["seconds"] == {"min": 0.1, "median": 0.145, "max": 0.19}
  assert summary["hours"] == pytest.approx(20 * 0.145 / 3600, abs=1e-4)
  assert summary["characters"] == " abcdefghijmsy"
  assert summary["task_utterances"]["ann"] == {"train": 6, "dev": 2, "test": 2}
  assert summary["warnings"] == []
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
    assert length in 1600 + 160 * np.arange(10), split.name
  tokenizer = Tokenizer.load(out / "tokenizer.model")
  assert tokenizer.hash == summary["tokenizer"]["hash"]
  expected = Tokenizer.train(splits[0].texts, vocabulary=64, kind="char")
  assert tokenizer.hash == expected.hash


def test_the_same_again_returns_at_once(tmp_path, monkeypatch):
  source = _manifest(tmp_path / "in")
  first = _prepare({"train": source}, tmp_path / "out")
  monkeypatch.setattr(dataset, "write", None)
  again = _prepare({"train": source}, tmp_path / "out", jobs=1)
  assert again == first


@pytest.mark.parametrize("change", ["seed", "text", "audio", "kind"])
def test_other_input_does_not_pass_for_the_same(tmp_path, change):
  source = _manifest(tmp_path / "in")
  _prepare({"train": source}, tmp_path / "out")
  options = {"seed": {"seed": 5}, "kind": {"kind": "bpe"}}.get(change, {})
  if change == "text":
    source.write_text(source.read_text().replace("Say c", "Say q"))
  if change == "audio":
    soundfile.write(tmp_path / "in/m-bob-3.wav", np.zeros(99), 16_000)
  with pytest.raises(InputError, match="prepared from other recordings"):
    _prepare({"train": source}, tmp_path / "out", **options)


def test_moving_everything_keeps_it_the_same(tmp_path):
  _prepare({"train": _manifest(tmp_path / "a/in")}, tmp_path / "a/out")
  (tmp_path / "a").rename(tmp_path / "b")
  _prepare({"train": tmp_path / "b/in/m.jsonl"}, tmp_path / "b/out")


def test_a_strange_folder_is_left_alone(tmp_path):
  (tmp_path / "out").mkdir()
  (tmp_path / "out/thesis.txt").write_text("words")
  with pytest.raises(InputError, match="a new folder, got something else"):
    _prepare({"train": _manifest(tmp_path / "in")}, tmp_path / "out")
  assert [file.name for file in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_an_empty_folder_may_be_the_place(tmp_path):
  (tmp_path / "out").mkdir()
  _prepare({"train": _manifest(tmp_path / "in")}, tmp_path / "out")
  assert len(dataset.open_split(tmp_path / "out", "test")) == 4


def test_given_splits_stay_as_they_are(tmp_path):
  sources = {
    name: _manifest(tmp_path / "in", f"{name}.jsonl", sentences=5)
    for name in ("train", "dev", "test")
  }
  summary = _prepare(sources, tmp_path / "out")
  assert [part["utterances"] for part in summary["splits"].values()] == [10] * 3
  assert summary["warnings"] == []
  train = dataset.open_split(tmp_path / "out", "train")
  assert all("train" in text for text in train.texts)


def test_only_the_missing_split_is_held_out(tmp_path):
  sources = {
    "train": _manifest(tmp_path / "in", "train.jsonl"),
    "test": _manifest(tmp_path / "in", "test.jsonl", tasks=["ann"]),
  }
  summary = _prepare(sources, tmp_path / "out")
  utterances = {k: v["utterances"] for k, v in summary["splits"].items()}
  assert utterances == {"train": 16, "dev": 4, "test": 10}
  assert summary["warnings"] == ["1 of 2 tasks have no recording in test: bob"]


def test_shared_sentences_are_warned_of(tmp_path):
  sources = {
    "train": _manifest(tmp_path / "one"),
    "test": _manifest(tmp_path / "two", sentences=3),
  }
  summary = _prepare(sources, tmp_path / "out", dev_fraction=0.0)
  assert summary["warnings"] == ["3 sentences of train stand in test too"]


def test_one_recording_in_two_splits_is_refused(tmp_path):
  source = _manifest(tmp_path / "in")
  with pytest.raises(InputError, match="20 problems") as caught:
    _prepare({"train": source, "test": source}, tmp_path / "out")
  assert "a recording of no other split" in str(caught.value)


def test_bad_recordings_leave_nothing_behind(tmp_path):
  source = _manifest(tmp_path / "in")
  (tmp_path / "in/m-ann-3.wav").unlink()
  (tmp_path / "in/m-bob-4.wav").write_bytes(b"")
  with pytest.raises(InputError, match="2 problems") as caught:
    _prepare({"train": source}, tmp_path / "out")
  for text in (f"{source}:4: ", "m-ann-3.wav", f"{source}:15: ", "m-bob-4.wav"):
    assert text in str(caught.value)
  assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_transcripts_without_words_are_named(tmp_path):
  source = _manifest(tmp_path / "in")
  source.write_text(source.read_text().replace("Say c, m!", "..."))
  with pytest.raises(
    InputError, match=r"m\.jsonl:3: expected words, got '...'"
  ):
    _prepare({"train": source}, tmp_path / "out")


def test_a_given_tokenizer_is_copied(tmp_path):
  given = Tokenizer.train(["say abcd m"], vocabulary=64, kind="char")
  given.save(tmp_path / "t.model")
  summary = _prepare(
    {"train": _manifest(tmp_path / "in")},
    tmp_path / "out",
    tokenizer=tmp_path / "t.model",
  )
  assert (tmp_path / "out/tokenizer.model").read_bytes() == given.model
  assert summary["tokenizer"] == {
    "labels": given.vocabulary,
    "hash": given.hash,
    "unknown_characters": "efghij",
  }


def test_a_tokenizer_that_spells_nothing_is_refused(tmp_path):
  Tokenizer.train(["ωψ"], vocabulary=9, kind="char").save(tmp_path / "t.model")
  with pytest.raises(InputError, match="12 problems") as caught:
    _prepare(
      {"train": _manifest(tmp_path / "in")},
      tmp_path / "out",
      tokenizer=tmp_path / "t.model",
    )
  assert "characters that the tokenizer can spell" in str(caught.value)


@pytest.mark.parametrize(
  ("options", "match"),
  [
    ({"dev_fraction": -0.1}, "dev_fraction: expected from 0"),
    ({"test_fraction": 1.0}, "test_fraction: expected from 0"),
    ({"dev_fraction": 0.5, "test_fraction": 0.5}, "less than 1"),
    ({"jobs": 0}, "jobs: expected at least 1"),
  ],
)
def test_bad_options(tmp_path, options, match):
  with pytest.raises(InputError, match=match):
    _prepare({"train": tmp_path / "m"}, tmp_path / "out", **options)
  with pytest.raises(InputError, match="a manifest for 'train', got dev"):
    _prepare({"dev": tmp_path / "m"}, tmp_path / "out")


def test_two_preparations_are_the_same_bytes(tmp_path):
  source = _manifest(tmp_path / "in")
  for name, jobs in (("one", 1), ("two", 3)):
    _prepare({"train": source}, tmp_path / name, jobs=jobs)
  one, two = (
    {
      str(file.relative_to(tmp_path / name)): file.read_bytes()
      for file in (tmp_path / name).rglob("*")
      if file.is_file()
    }
    for name in ("one", "two")
  )
  assert one == two
