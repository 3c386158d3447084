"""Transcripts <-> label ids, by a Sentencepiece model.

Enters: text in any spelling (`hra.data.text` normalises it here). Leaves: label
ids, where id 0 is the CTC blank.

A model trained here reserves Sentencepiece's padding piece, id 0, as the blank,
so that its ids are the label ids. In a model from elsewhere whose piece 0 is
not a padding piece, piece i is label i + 1.
"""

import hashlib
import io
import operator
import os
from collections.abc import Iterable, Sequence
from typing import Literal

import sentencepiece

from hra.data.text import normalize_transcript
from hra.errors import InputError
from hra.files import absolute, write_aside

BLANK = 0
BLANK_LABEL = "<blank>"

Kind = Literal["char", "unigram", "bpe"]


class Tokenizer:
  """Text <-> ids of one Sentencepiece model.

  `vocabulary` counts the labels and `labels` names them, the blank (id 0)
  included. `hash` is a stable hash of the model's bytes: what is trained for one
  tokenizer can't be used with another.
  """

  def __init__(self, model: bytes):
    """Raises RuntimeError where the bytes are no Sentencepiece model."""
    self.model = model
    self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    self._offset = 0 if self._processor.pad_id() == BLANK else 1
    pieces = [
      self._processor.id_to_piece(id)
      for id in range(self._processor.get_piece_size())
    ]
    self.labels: tuple[str, ...] = (
      BLANK_LABEL,
      *pieces[1 - self._offset :],
    )
    self.vocabulary = len(self.labels)
    self.hash = hashlib.blake2b(model, digest_size=8).hexdigest()
    self._known: dict[str, bool] = {}

  def __reduce__(self):
    return Tokenizer, (self.model,)

  @classmethod
  def load(cls, path: str | os.PathLike[str]) -> "Tokenizer":
    """Reads a `.model` file.

    Raises:
      InputError: there is no such file, or it is no Sentencepiece model.
    """
    expected = "a Sentencepiece model"
    try:
      return cls(absolute(path).read_bytes())
    except FileNotFoundError:
      raise InputError(path, expected=expected, got="no such file") from None
    except OSError as error:
      raise InputError(
        path, expected=expected, got=error.strerror or str(error)
      ) from error
    except RuntimeError as error:
      raise InputError(path, expected=expected, got="other bytes") from error

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
    """Writes the model's file, aside and then in place."""
    write_aside(path, self.model)

  def encode(self, text: str) -> list[int]:
    """The label ids of the normalised text.

    Characters that the model can't spell are left out (`unknown` names them), so
    that no id is the unknown piece's, which a frozen decoder never learnt.
    """
    text = normalize_transcript(text)
    missing = dict.fromkeys(map(ord, self._missing(text)), None)
    if missing:
      text = " ".join(text.translate(missing).split())
    unknown = self._processor.unk_id()
    ids = self._processor.encode(text)
    return [id + self._offset for id in ids if id != unknown]

  def decode(self, ids: Sequence[int]) -> str:
    """The text of label ids; blanks and unknowns say nothing.

    Raises:
      IndexError: an id is no label.
    """
    silent = (BLANK, self._processor.unk_id() + self._offset)
    return self._processor.decode(
      [int(id) - self._offset for id in ids if int(id) not in silent]
    )

  def unknown(self, text: str) -> list[str]:
    """The characters of the normalised text that `encode` leaves out, sorted."""
    return self._missing(normalize_transcript(text))

  def _missing(self, text: str) -> list[str]:
    return sorted(c for c in set(text) if not self._spells(c))

  def _spells(self, character: str) -> bool:
    if character not in self._known:
      ids = self._processor.encode(character)
      self._known[character] = self._processor.unk_id() not in ids
    return self._known[character]


def least_frames(ids: Sequence[int]) -> int:
  """Frames that CTC needs: one a label and one, for a blank, between equals."""
  return len(ids) + sum(map(operator.eq, ids, ids[1:]))
