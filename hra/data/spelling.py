"""How a tokenizer of some kind spells: text <-> labels of CTC, the blank being 0.

`hra.data.tokenizer` is the face of all kinds. A label of another's tokenizer is its
id, moved so that its blank, wherever that is, comes first: the ids before it move
up by one.
"""

import json
import re
import types
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import sentencepiece

from hra.data.text import APOSTROPHES, normalize_transcript

BLANK = 0
BLANK_LABEL = "<blank>"


class Speller(Protocol):
  """Of one kind of tokenizer."""

  labels: tuple[str, ...]
  """Their names; that of the blank comes first."""
  blank: int
  """The original's id of the blank; label 0 in any case."""

  def prepared(self, text: str) -> str:
    """The text in the form that is spelt."""

  def spells(self, character: str) -> bool:
    """Whether a character of a prepared text has labels."""

  def encode(self, text: str) -> list[int]:
    """The labels of a prepared text, but for what has none."""

  def decode(self, labels: Sequence[int]) -> str:
    """The text of labels; blanks, unknowns and marks say nothing."""


class SentencePieces:
  """A Sentencepiece model, over normalised text."""

  def __init__(self, model: bytes):
    """Raises RuntimeError where the bytes are no Sentencepiece model."""
    self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    self._offset = 0 if self._processor.pad_id() == BLANK else 1
    pieces = [
      self._processor.id_to_piece(id)
      for id in range(self._processor.get_piece_size())
    ]
    self.labels = (BLANK_LABEL, *pieces[1 - self._offset :])
    self.blank = BLANK

  def prepared(self, text: str) -> str:
    return normalize_transcript(text)

  def spells(self, character: str) -> bool:
    ids = self._processor.encode(character)
    return self._processor.unk_id() not in ids

  def encode(self, text: str) -> list[int]:
    unknown = self._processor.unk_id()
    ids = self._processor.encode(text)
    return [id + self._offset for id in ids if id != unknown]

  def decode(self, labels: Sequence[int]) -> str:
    silent = (BLANK, self._processor.unk_id() + self._offset)
    return self._processor.decode(
      [label - self._offset for label in labels if label not in silent]
    )


class Pieces:
  """A tokenizer.json of the tokenizers library."""

  def __init__(self, model: bytes, settings: bytes):
    """Raises ValueError where the bytes are no such files, or name no blank."""
    told = _object(settings)
    tokenizers = _library()
    try:
      self._tokenizer = tokenizers.Tokenizer.from_buffer(model)
    except Exception as error:  # the library raises no class of its own
      raise ValueError(str(error)) from error
    self._tokenizer.no_truncation()
    self._tokenizer.no_padding()
    ids = range(self._tokenizer.get_vocab_size())
    names = [self._tokenizer.id_to_token(id) for id in ids]
    self._moved = _Moved(names, blank=self._blank(names, told))
    self.labels, self.blank = self._moved.labels, self._moved.blank
    unknown = _token(told, "unk_token")
    self._unknown = self._tokenizer.token_to_id(unknown) if unknown else None
    self._respelt = _Respelt(self.spells)

  def _blank(self, names: Sequence[str], told: dict[str, Any]) -> str | None:
    """A transducer's is none of its settings, and padding is another."""
    return BLANK_LABEL if BLANK_LABEL in names else _token(told, "pad_token")

  def prepared(self, text: str) -> str:
    return text.translate(self._respelt)

  def spells(self, character: str) -> bool:
    ids = self._ids(character)
    said = self._tokenizer.decode(ids)
    return self._unknown not in ids and bool(
      said.strip() or character.isspace()
    )

  def encode(self, text: str) -> list[int]:
    silent = (self._moved.blank, self._unknown)
    return [self._moved.label(id) for id in self._ids(text) if id not in silent]

  def decode(self, labels: Sequence[int]) -> str:
    ids = map(self._moved.id, labels)
    silent = (self._moved.blank, self._unknown)
    return self._tokenizer.decode([id for id in ids if id not in silent])

  def _ids(self, text: str) -> list[int]:
    return self._tokenizer.encode(text, add_special_tokens=False).ids


class PromptedPieces(Pieces):
  """A tokenizer.json of Whisper: pieces, what prompts are made of, and times.

  Text begins with a space, as the model's own does. Times that its file lacks, as older
  ones do, are labels all the same: the last ones, 0.02 s apart.
  """

  def __init__(self, model: bytes, settings: bytes):
    super().__init__(model, settings)
    if not any(map(_TIME.fullmatch, self.labels)):
      times = (f"<|{step / 50:.2f}|>" for step in range(_TIMES))
      self.labels = (*self.labels, *times)

  def _blank(self, names: Sequence[str], told: dict[str, Any]) -> str | None:
    """What ends a sentence."""
    return _token(told, "eos_token") or _token(told, "pad_token")

  def encode(self, text: str) -> list[int]:
    return super().encode(f" {text.strip()}")

  def decode(self, labels: Sequence[int]) -> str:
    """Without what prompts are made of, and without times."""
    text = [each for each in labels if not _TIME.fullmatch(self.labels[each])]
    return super().decode(text).strip()


_TIME = re.compile(r"<\|(\d+\.\d\d)\|>")
_TIMES = 1501
"""Every 0.02 s of 30."""


def pieces(model: bytes, settings: bytes) -> Pieces:
  """Those of a tokenizer.json, as its settings say.

  Raises:
    ValueError: they are no such files.
  """
  whisper = "Whisper" in str(_object(settings).get("tokenizer_class"))
  return (PromptedPieces if whisper else Pieces)(model, settings)


class Characters:
  """A vocab.json of wav2vec 2.0: characters, and a delimiter between words.

  Tokens of several characters are found in the text before single ones, the
  longest first, and take the spaces around them.
  """

  def __init__(self, model: bytes, settings: bytes):
    """Raises ValueError where the bytes are no such files, or name no blank."""
    told, ids = _object(settings), dict(_object(model))
    for id, token in told.get("added_tokens_decoder", {}).items():
      ids.setdefault(token["content"], int(id))
    if sorted(ids.values()) != list(range(len(ids))):
      raise ValueError("ids that don't count from 0 upwards")
    self._ids: dict[str, int] = ids
    names = sorted(ids, key=ids.__getitem__)
    self._moved = _Moved(names, blank=_token(told, "pad_token"))
    self.labels, self.blank = self._moved.labels, self._moved.blank
    self._lower = bool(told.get("do_lower_case", False))
    self._delimiter = _token(told, "word_delimiter_token") or "|"
    self._space = told.get("replace_word_delimiter_char", " ")
    marks = [_token(told, f"{name}_token") for name in ("bos", "eos", "unk")]
    self._silent = {ids[name] for name in marks if name in ids}
    self._silent.add(self._moved.blank)
    long = sorted((name for name in ids if len(name) > 1), key=len)[::-1]
    self._inside = set("".join(n for n in long if ids[n] not in self._silent))
    self._long = re.compile(rf"\s*({'|'.join(map(re.escape, long))})\s*")
    self._respelt = _Respelt(self.spells)

  def prepared(self, text: str) -> str:
    return text.translate(self._respelt)

  def spells(self, character: str) -> bool:
    """Also where it is but a part of a token."""
    return character in self._inside or bool(self.encode(character))

  def encode(self, text: str) -> list[int]:
    found: list[str] = []
    # Of what is split at a group, every other is what the group found.
    for place, part in enumerate(self._long.split(text)):
      found += [part] if place % 2 else self._single(part)
    ids = (self._ids.get(token) for token in found)
    return [
      self._moved.label(id)
      for id in ids
      if id is not None and id not in self._silent
    ]

  def decode(self, labels: Sequence[int]) -> str:
    tokens = [
      self.labels[label]
      for label in labels
      if self._moved.id(label) not in self._silent
    ]
    text = "".join(
      self._space if token == self._delimiter else token for token in tokens
    ).strip()
    return text.lower() if self._lower else text

  def _single(self, text: str) -> list[str]:
    # Lower case is what is said then; the vocabulary is in upper case.
    text = text.upper() if self._lower else text
    return list(text.replace(" ", self._delimiter))


class _Moved:
  """Ids with a blank somewhere <-> labels, with the blank at 0."""

  def __init__(self, names: Sequence[str], *, blank: str | None):
    if blank not in names:
      raise ValueError(f"a pad_token that is none of its tokens ({blank!r})")
    self.blank = names.index(blank)
    others = [name for name in names if name != blank]
    self.labels = (BLANK_LABEL, *others)

  def label(self, id: int) -> int:
    return BLANK if id == self.blank else id + (id < self.blank)

  def id(self, label: int) -> int:
    if not 0 <= label < len(self.labels):
      raise IndexError(f"label {label} of {len(self.labels)}")
    return self.blank if label == BLANK else label - (label <= self.blank)


class _Respelt(dict[int, str]):
  """A `str.translate` table: what can't be spelt -> another form, if that can.

  The other case, a plain apostrophe, what Unicode deems compatible. It learns each
  character once.
  """

  def __init__(self, spells: Callable[[str], bool]):
    super().__init__()
    self._spells = spells

  def __missing__(self, code: int) -> str:
    character = chr(code)
    forms = (
      character,
      character.lower(),
      character.upper(),
      character.translate(APOSTROPHES),
      unicodedata.normalize("NFKC", character),
    )
    known = (form for form in forms if all(map(self._spells, form)))
    self[code] = next(known, character)
    return self[code]


def _object(data: bytes) -> dict[str, Any]:
  found = json.loads(data)
  if not isinstance(found, dict):
    raise ValueError("no JSON object")
  return found


def _token(told: dict[str, Any], name: str) -> str | None:
  """A token of the settings, in either form that they have."""
  token = told.get(name)
  return token["content"] if isinstance(token, dict) else token


def _library() -> types.ModuleType:
  try:
    import tokenizers
  except ImportError as error:
    raise ValueError(
      "nothing to read it with; pip install 'hra[convert]'"
    ) from error
  return tokenizers
