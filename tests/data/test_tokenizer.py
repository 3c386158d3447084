"""Text <-> labels: round trips, the blank, stability, unknown characters."""

import io
import pickle
import random

import pytest
import sentencepiece

from hra.data.text import normalize_transcript
from hra.data.tokenizer import Tokenizer
from hra.errors import InputError

TEXTS = [
  "The cat sat on the mat.",
  "A dog's life, isn't it?",
  "Hello WORLD and good night",
  "where is the other cat sitting",
]
KINDS = ["char", "unigram", "bpe"]


def _train(kind: str, *, vocabulary: int = 60, texts=TEXTS) -> Tokenizer:
  return Tokenizer.train(texts, vocabulary=vocabulary, kind=kind)


def _foreign() -> Tokenizer:
  """A model as Sentencepiece makes it by default: unknown 0, bos 1, eos 2."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(map(normalize_transcript, TEXTS)),
    model_writer=model,
    model_type="unigram",
    vocab_size=60,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  return Tokenizer(model.getvalue())


@pytest.mark.parametrize("make", [*KINDS, "foreign"])
def test_round_trip_and_the_reserved_blank(make):
  tokenizer = _foreign() if make == "foreign" else _train(make)
  for text in [*TEXTS, "the dog sat"]:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == normalize_transcript(text)
    assert 0 < min(ids) <= max(ids) < tokenizer.vocabulary
    spelt = "".join(tokenizer.labels[id] for id in ids).replace("▁", " ")
    assert spelt.strip() == normalize_transcript(text)
  assert tokenizer.labels[0] == "<blank>"
  assert len(set(tokenizer.labels)) == tokenizer.vocabulary
  with_blanks = [0, *(x for id in tokenizer.encode("the cat") for x in (id, 0))]
  assert tokenizer.decode(with_blanks) == "the cat"
  assert tokenizer.encode("") == tokenizer.encode("?") == []


def test_foreign_ids_move_up_by_one():
  tokenizer = _foreign()
  processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
  assert tokenizer.vocabulary == processor.get_piece_size() + 1
  assert tokenizer.encode("the cat") == [
    id + 1 for id in processor.encode("the cat")
  ]


def test_char_labels_are_the_characters():
  tokenizer = _train("char")
  letters = set(normalize_transcript(" ".join(TEXTS)).replace(" ", "▁"))
  assert set(tokenizer.labels) == letters | {"<blank>", "<unk>"}
  assert len(tokenizer.encode("the cat")) == len("the cat")


@pytest.mark.parametrize("kind", KINDS)
def test_characters_outside_are_left_out_and_listed(kind):
  tokenizer = _train(kind)
  assert tokenizer.unknown("The ñ cat Ω!") == ["ñ", "ω"]
  ids = tokenizer.encode("thñe Ω cat")
  assert ids == tokenizer.encode("the cat")
  assert tokenizer.labels.index("<unk>") not in ids
  assert tokenizer.encode("Ω") == []


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_a_function_of_the_set_of_texts(kind, capfd):
  one = _train(kind)
  rng = random.Random(0)
  words = [word for text in TEXTS for word in text.split()]
  many = [" ".join(rng.choices(words, k=6)) for _ in range(300)]
  sizes = {"vocabulary": 80}
  assert (
    _train(kind, texts=many, **sizes).model
    == _train(kind, texts=many[::-1], **sizes).model
  )
  two = _train(kind)
  assert one.hash == two.hash
  assert one.hash != _train(kind, texts=TEXTS[:2]).hash
  assert one.vocabulary <= 60
  captured = capfd.readouterr()
  assert captured.out + captured.err == ""


def test_a_space_without_a_label_is_left_out():
  tokenizer = _train("char", texts=["aaa b"], vocabulary=3)
  assert tokenizer.labels == ("<blank>", "<unk>", "a")
  assert tokenizer.encode("a a b") == [2, 2]


def test_a_long_transcript_counts():
  tokenizer = _train("char", texts=["a b", "q " * 5000])
  assert "q" in tokenizer.labels


def test_saved_loaded_and_pickled_is_the_same(tmp_path):
  tokenizer = _train("unigram")
  tokenizer.save(tmp_path / "t.model")
  assert [file.name for file in tmp_path.iterdir()] == ["t.model"]
  for other in (
    Tokenizer.load(tmp_path / "t.model"),
    pickle.loads(pickle.dumps(tokenizer)),
  ):
    assert other.hash == tokenizer.hash
    assert other.labels == tokenizer.labels
    assert other.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])


def test_what_cannot_be_loaded_or_trained(tmp_path):
  with pytest.raises(InputError, match=r"x\.model: .* no such file"):
    Tokenizer.load(tmp_path / "x.model")
  (tmp_path / "x.model").write_bytes(b"no model")
  with pytest.raises(
    InputError, match="a Sentencepiece model, got other bytes"
  ):
    Tokenizer.load(tmp_path / "x.model")
  with pytest.raises(InputError, match="transcripts with letters"):
    _train("char", texts=["?", ""])
  with pytest.raises(InputError, match=r"at least \d+ labels .* got 9"):
    _train("bpe", vocabulary=9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_least_vocabulary_named_is_enough(kind):
  with pytest.raises(InputError) as caught:
    _train(kind, vocabulary=2)
  least = int(str(caught.value).split("at least ")[1].split()[0])
  assert _train(kind, vocabulary=least).vocabulary <= least
