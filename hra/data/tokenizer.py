"""Transcripts <-> label ids, by a tokenizer of one of three kinds.

Enters: text in any spelling. Leaves: label ids, where id 0 is the CTC blank.

A Sentencepiece model (tokenizer.model) spells text that `hra.data.text` has
normalised. One that is trained here reserves its padding piece, id 0, as the blank,
so that its ids are the label ids; in a model from elsewhere whose piece 0 is not a
padding piece, piece i is label i + 1. The tokenizers of converted backbones
(tokenizer.json, vocab.json) spell as their originals do (`hra.data.spelling`).
"""

import hashlib
import io
import operator
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import sentencepiece
from etils import epath

from hra.data.spelling import (
  BLANK,
  BLANK_LABEL,
  Characters,
  SentencePieces,
  Speller,
  pieces,
)
from hra.data.text import normalize_transcript
from hra.errors import InputError
from hra.files import absolute, write_aside

Kind = Literal["char", "unigram", "bpe"]

MODEL_FILE = "tokenizer.model"
SETTINGS_FILE = "tokenizer_config.json"
"""What the tokenizers of others say beside their vocabulary."""
OTHERS: dict[str, Callable[[bytes, bytes], Speller]] = {
  "tokenizer.json": pieces,
  "vocab.json": Characters,
}
"""Files that are no Sentencepiece model -> what reads them, and their settings."""
FILES = (MODEL_FILE, *OTHERS, SETTINGS_FILE)
"""Names that a tokenizer's files may have in a folder."""


class Tokenizer:
  """Text <-> ids.

  `vocabulary` counts the labels and `labels` names them, the blank (id 0)
  included; `blank` is its id in the original's own order. `hash` is a stable hash of
  the files' bytes: what is trained for one tokenizer can't be used with another.
  """

  def __init__(
    self, model: bytes, *, name: str = MODEL_FILE, settings: bytes = b""
  ):
    """Of a file's bytes.

    Args:
      name: of the file, which says what kind of tokenizer it is.
      settings: those of `SETTINGS_FILE`, where the kind has such.

    Raises:
      RuntimeError: the bytes are no Sentencepiece model.
      ValueError: they are no tokenizer of another kind.
    """
    self.model, self.settings = model, settings
    self.name = name if name in OTHERS else MODEL_FILE
    if name in OTHERS:
      self._speller = OTHERS[name](model, settings)
      hashed = b"\0".join((name.encode(), settings, model))
    else:
      self._speller, hashed = SentencePieces(model), model
    self.labels, self.blank = self._speller.labels, self._speller.blank
    self.vocabulary = len(self.labels)
    self.hash = hashlib.blake2b(hashed, digest_size=8).hexdigest()
    self._known: dict[str, bool] = {}

  def __reduce__(self):
    return _restored, (self.model, self.name, self.settings)

  @classmethod
  def load(cls, path: str | os.PathLike[str]) -> "Tokenizer":
    """Reads a tokenizer's file, or the one that is in a folder.

    Raises:
      InputError: there is no such file, or it is no tokenizer.
    """
    file = absolute(path)
    if file.is_dir():
      there = [
        name for name in (MODEL_FILE, *OTHERS) if (file / name).is_file()
      ]
      file /= there[0] if there else MODEL_FILE
    settings = b""
    if file.name in OTHERS:
      settings = _read(file.parent / SETTINGS_FILE, expected="its settings")
    expected = _EXPECTED.get(file.name, "a Sentencepiece model")
    model = _read(file, expected=expected)
    try:
      return cls(model, name=file.name, settings=settings)
    except RuntimeError as error:
      raise InputError(file, expected=expected, got="other bytes") from error
    except ValueError as error:
      raise InputError(file, expected=expected, got=str(error)) from error

  @classmethod
  def train(
    cls, texts: Iterable[str], *, vocabulary: int, kind: Kind
  ) -> "Tokenizer":
    """Fits a model to transcripts; the same for any order of the same texts.

    Args:
      texts: transcripts; normalised here.
      vocabulary: the most labels to use, the blank and the unknown included.
      kind: `char` (the most frequent characters), `unigram` or `bpe` (pieces of
        words, and every character by itself).

    Raises:
      InputError: no text at all, or too few labels for the characters.
    """
    sentences = sorted(map(normalize_transcript, texts))
    characters = set().union(*sentences)
    if not characters:
      raise InputError(
        "tokenizer", expected="transcripts with letters", got="none"
      )
    least = 3 if kind == "char" else len(characters | {" "}) + 2
    if vocabulary < least:
      raise InputError(
        "tokenizer vocabulary",
        expected=f"at least {least} labels for {len(characters)} characters",
        got=str(vocabulary),
      )
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(sentences),
      model_writer=model,
      model_type=kind,
      vocab_size=vocabulary,
      hard_vocab_limit=False,
      character_coverage=1.0,
      pad_id=BLANK,
      pad_piece=BLANK_LABEL,
      unk_id=1,
      bos_id=-1,
      eos_id=-1,
      normalization_rule_name="identity",
      # A word's pieces are the same at the start of a sentence as inside; single
      # characters are so anyway, and a leading space would be a useless label.
      add_dummy_prefix=kind != "char",
      # Longer sentences would be dropped without a word.
      max_sentence_length=1 << 30,
      # The floating-point sums, hence the pieces, depend on it.
      num_threads=1,
      minloglevel=2,
    )
    return cls(model.getvalue())

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes its file, aside and then in place, and its settings beside it.

    Args:
      path: ends in `name`, by which another kind than Sentencepiece is known.
    """
    write_aside(path, self.model)
    if self.settings:
      write_aside(epath.Path(path).parent / SETTINGS_FILE, self.settings)

  def encode(self, text: str) -> list[int]:
    """The label ids of the text, as the tokenizer's kind prepares it.

    Characters that it can't spell are left out (`unknown` names those of words),
    so that no id is the unknown piece's, which a frozen decoder never learnt.
    """
    text = self._speller.prepared(text)
    missing = dict.fromkeys(map(ord, self._missing(text)), None)
    if missing:
      text = " ".join(text.translate(missing).split())
    return self._speller.encode(text)

  def decode(self, ids: Sequence[int]) -> str:
    """The text of label ids; blanks and unknowns say nothing.

    Raises:
      IndexError: an id is no label.
    """
    return self._speller.decode([int(id) for id in ids])

  def unknown(self, text: str) -> list[str]:
    """The characters of the normalised text that `encode` leaves out, sorted.

    What normalisation drops, such as punctuation, is no loss.
    """
    return self._missing(self._speller.prepared(normalize_transcript(text)))

  def _missing(self, text: str) -> list[str]:
    return sorted(c for c in set(text) if not self._spells(c))

  def _spells(self, character: str) -> bool:
    if character not in self._known:
      self._known[character] = self._speller.spells(character)
    return self._known[character]


_EXPECTED = {
  "tokenizer.json": "a tokenizer of the tokenizers library",
  "vocab.json": "characters and their ids",
}


def _restored(model: bytes, name: str, settings: bytes) -> Tokenizer:
  return Tokenizer(model, name=name, settings=settings)


def _read(path: epath.Path, *, expected: str) -> bytes:
  try:
    return path.read_bytes()
  except FileNotFoundError:
    raise InputError(path, expected=expected, got="no such file") from None
  except OSError as error:
    raise InputError(
      path, expected=expected, got=error.strerror or str(error)
    ) from error


def least_frames(ids: Sequence[int]) -> int:
  """Frames that CTC needs: one a label and one, for a blank, between equals."""
  return len(ids) + sum(map(operator.eq, ids, ids[1:]))
