"""A transcript in any spelling -> the text that is trained on and scored.

Training, tokenizers and scoring share this one function, so that a model is never
charged for a spelling that it was never taught.
"""

import re
import unicodedata

APOSTROPHES = str.maketrans(
  dict.fromkeys("\u2019\u2018\u02bc\u0060\u00b4\uff07", "'")
)
"""Quotation marks, modifier letter, grave, acute and full width -> ', for
`str.translate`."""

_JOINERS = "\u200c\u200d"
"""Zero-width non-joiner and joiner: Persian and Indic scripts spell with them."""

_STRAY = re.compile(
  rf"(?<!\S)['{_JOINERS}]+|'['{_JOINERS}]*(?!\S)|'['{_JOINERS}]*'['{_JOINERS}]*"
)
"""Apostrophes that are quotation marks, and joiners that join nothing."""


def normalize_transcript(text: str) -> str:
  """Lower case, no punctuation but apostrophes inside words, single spaces.

  Letters, digits and marks of every script stay, as Unicode NFKC; punctuation,
  symbols and control characters become spaces, and invisible format characters
  vanish, except the joiners that some scripts spell with. What has neither a
  letter nor a digit is no word. Idempotent.
  """
  # Before NFKC: it makes a space and a combining mark of an acute accent.
  text = unicodedata.normalize("NFKC", text.translate(APOSTROPHES)).lower()
  text = unicodedata.normalize("NFKC", text.translate(_KEPT))
  words = _STRAY.sub(" ", text).split()
  return " ".join(word for word in words if any(map(str.isalnum, word)))


class _Kept(dict[int, str]):
  """A `str.translate` table that learns each character once."""

  def __missing__(self, code: int) -> str:
    character = chr(code)
    category = unicodedata.category(character)
    if unicodedata.name(character, "").startswith("VARIATION SELECTOR"):
      kept = ""  # a mark, of what emoji leave behind
    elif category[0] in "LNM" or character in _JOINERS:
      kept = character
    else:
      kept = "" if category == "Cf" else " "
    self[code] = kept
    return kept


_KEPT = _Kept(APOSTROPHES | {ord("'"): "'"})
