"""Text -> the text that is scored.

Reference and hypothesis go through the same normaliser before any edit is
counted, so that casing, punctuation and (with `whisper`) spelling and numerals
are no errors.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Literal

from hra.errors import InputError

NormalizerName = Literal["basic", "whisper"]

_APOSTROPHES = "'\u2018\u2019\u02bc"
_OUTER_APOSTROPHE = re.compile(r"(?<!\S)'+|'+(?!\S)|'{2,}")


def normalizer(name: NormalizerName) -> Callable[[str], str]:
  """The function that maps a transcript to what is scored.

  `basic` is Unicode NFKC, lower case, every punctuation mark or symbol a space
  except an apostrophe inside a word, single spaces. `whisper` is the English
  normaliser of Radford et al. 2022 (appendix C).

  Raises:
    InputError: for an unknown name, or where `whisper`'s package is missing.
  """
  if name == "basic":
    return _basic
  if name == "whisper":
    return _whisper()
  raise _unknown(name)


def describe(name: NormalizerName) -> str:
  """What `normalizer(name)` does, for a reader of the results.

  Raises:
    InputError: for an unknown name.
  """
  if name not in _DESCRIPTIONS:
    raise _unknown(name)
  return _DESCRIPTIONS[name]


_DESCRIPTIONS: dict[str, str] = {
  "basic": (
    "basic: Unicode NFKC, lower case, no punctuation or symbols but"
    " apostrophes inside words, single spaces"
  ),
  "whisper": (
    "whisper: EnglishTextNormalizer of Whisper (British to American spelling,"
    " numerals, contractions and fillers unified)"
  ),
}


def _unknown(name: str) -> InputError:
  choices = ", ".join(map(repr, _DESCRIPTIONS))
  return InputError("normalizer", expected=f"one of {choices}", got=repr(name))


class _Spaces(dict[int, str]):
  """A `str.translate` table that learns each character once."""

  def __missing__(self, code: int) -> str:
    character = chr(code)
    category = unicodedata.category(character)
    if character in _APOSTROPHES:
      kept = "'"
    elif category == "Cf":  # soft hyphens, joiners: invisible inside a word
      kept = ""
    else:
      kept = " " if category[0] in "PSZC" else character
    self[code] = kept
    return kept


_SPACES = _Spaces()


def _basic(text: str) -> str:
  text = unicodedata.normalize("NFKC", text).lower().translate(_SPACES)
  text = unicodedata.normalize("NFKC", text)
  return " ".join(_OUTER_APOSTROPHE.sub(" ", text).split())


def _whisper() -> Callable[[str], str]:
  try:
    from whisper_normalizer.english import EnglishTextNormalizer
  except ModuleNotFoundError as error:
    raise InputError(
      "normalizer 'whisper'",
      expected="the package whisper-normalizer",
      got="no such package",
      fix="pip install 'hra[whisper]'",
    ) from error
  normalize = EnglishTextNormalizer()

  def single_spaced(text: str) -> str:
    return " ".join(normalize(text).split())

  return single_spaced
