"""Words are those of the text, and are where their labels are."""

import itertools
import json

import numpy as np
import pytest

from hra.data.tokenizer import Tokenizer
from hra.evaluate.stitching import Said, collapsed
from hra.evaluate.words import Moment, Word, moments, segments, words

TEXTS = ["the cat sat on the mat", "a dog's life isn't it", "of the other one"]
FRAME = 0.04


def _tokenizer(kind):
  if kind == "characters":
    return _characters()
  if kind == "pieces":
    return _pieces()
  vocabulary = {"char": 40, "unigram": 50, "bpe": 60}[kind]
  return Tokenizer.train(TEXTS, vocabulary=vocabulary, kind=kind)


def _characters():
  names = ["<pad>", "<s>", "</s>", "<unk>", "|", "'", *map(chr, range(97, 123))]
  told = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>"}
  told |= {"eos_token": "</s>", "word_delimiter_token": "|"}
  ids = {name: id for id, name in enumerate(names)}
  return Tokenizer(
    json.dumps(ids).encode(),
    name="vocab.json",
    settings=json.dumps(told).encode(),
  )


def _pieces():
  tokenizers = pytest.importorskip("tokenizers")
  own = ["<pad>", "<unk>", "▁", *map(chr, range(97, 123)), "'"]
  own += ["▁the", "▁o", "at", "▁cat", "▁is"]
  made = tokenizers.Tokenizer(
    tokenizers.models.Unigram(
      [(name, -float(len(own) - len(name))) for name in own], unk_id=1
    )
  )
  made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
  made.decoder = tokenizers.decoders.Metaspace()
  return Tokenizer(
    made.to_str().encode(),
    name="tokenizer.json",
    settings=b'{"pad_token": "<pad>", "unk_token": "<unk>"}',
  )


def _path(labels, rng):
  """A path of frames that collapses to the labels, and their runs."""
  path, runs, before = [], [], 0
  for label in labels:
    pause = int(rng.integers(label == before, 4))
    path += [0] * pause
    start = len(path)
    path += [label] * int(rng.integers(1, 4))
    runs.append(Moment(label, start, len(path)))
    before = label
  path += [0] * 3
  return np.array(path), runs


@pytest.mark.parametrize(
  "kind", ["char", "unigram", "bpe", "characters", "pieces"]
)
def test_words_are_those_of_the_text_and_where_their_labels_are(kind):
  tokenizer = _tokenizer(kind)
  rng = np.random.default_rng(0)
  for text in [*TEXTS, "", "it", "a a a", "tee tee o"]:
    labels = tokenizer.encode(text)
    path, runs = _path(labels, rng)
    said = Said(path, np.arange(len(path)))
    assert collapsed(path.tolist()) == labels
    assert moments(said, path=True) == runs
    found = words(runs, tokenizer.decode, frame=FRAME, seconds=100.0)
    assert [each.text for each in found] == tokenizer.decode(labels).split()
    # By whole words: where the text of the labels so far has so many.
    ends = {}
    for count, run in enumerate(runs, 1):
      so_far = tokenizer.decode(labels[:count]).split()
      for place, word in enumerate(so_far):
        ends.setdefault((place, word), run.end * FRAME)
    for place, each in enumerate(found):
      assert each.end == pytest.approx(ends[place, each.text])
      assert each.start < each.end
    for before, after in itertools.pairwise(found):
      assert before.end <= after.start


def test_a_transducers_label_is_at_one_frame():
  said = Said(np.array([4, 4, 5]), np.array([3, 3, 9]))
  assert moments(said, path=False) == [
    Moment(4, 3, 4),
    Moment(4, 3, 4),
    Moment(5, 9, 10),
  ]


def test_nothing_ends_behind_the_recording():
  tokenizer = _tokenizer("char")
  (label,) = tokenizer.encode("a")
  (found,) = words([Moment(label, 2, 9)], tokenizer.decode, frame=1, seconds=5)
  assert found == Word(2, 5, "a")


def test_a_label_of_several_words_is_one():
  texts = ["", "of the", "m", " x", " "]

  def decode(labels):
    return "".join(texts[label] for label in labels).strip()

  said = [Moment(label, i, i + 1) for i, label in enumerate([1, 2, 4, 3, 4])]
  found = words(said, decode, frame=1.0, seconds=9.0)
  assert found == [Word(0, 2, "of them"), Word(3, 4, "x")]


def test_the_labels_of_many_words_are_decoded_but_a_few_times():
  tokenizer = _tokenizer("char")
  labels = tokenizer.encode(" ".join(["the cat"] * 200))
  lengths = []

  def decode(part):
    lengths.append(len(part))
    return tokenizer.decode(part)

  said = [Moment(label, i, i + 1) for i, label in enumerate(labels)]
  assert len(words(said, decode, frame=FRAME, seconds=1e3)) == 400
  assert max(lengths) < 10
  assert len(lengths) < 1.5 * len(labels)


@pytest.mark.parametrize("kind", ["char", "bytes"])
def test_a_script_without_spaces_is_decoded_a_few_labels_at_a_time(kind):
  texts = ["字幕" * 400, "字", "a" * 500]

  def decode(labels):
    lengths.append(len(labels))
    if kind == "char":
      return "".join(map(chr, labels))
    return bytes(labels).decode(errors="replace")

  def encode(text):
    return list(map(ord, text) if kind == "char" else text.encode())

  lengths = []
  labels = encode(" ".join(texts))
  said = [Moment(label, i, i + 1) for i, label in enumerate(labels)]
  found = words(said, decode, frame=1.0, seconds=1e4)
  assert [each.text for each in found] == texts
  assert max(lengths) < 110
  assert len(lengths) < 1.1 * len(labels)
  starts = [each.start for each in found]
  assert starts == [0, len(encode(texts[0])) + 1, len(labels) - 500]
  assert found[-1].end == len(labels)


def test_segments_end_at_pauses_and_before_they_are_long():
  said = [
    Word(0.0, 0.5, "a"),
    Word(0.6, 1.0, "b"),
    Word(2.0, 2.5, "c"),  # a second later
    Word(2.6, 5.5, "d"),
    Word(5.6, 6.5, "e"),  # would make it 4.5 s
    Word(6.6, 20.0, "f"),  # longer than any may be
  ]
  found = segments(said, pause=1.0, longest=4.0)
  assert [tuple(each) for each in found] == [
    (0.0, 1.0, "a b"),
    (2.0, 5.5, "c d"),
    (5.6, 6.5, "e"),
    (6.6, 20.0, "f"),
  ]
  assert segments([], pause=1.0, longest=4.0) == []
