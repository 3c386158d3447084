"""Text -> the text that is scored.

Reference and hypothesis go through the same normaliser before any edit is
counted, so that casing, punctuation and (with `whisper`) spelling and numerals
are no errors.
"""

from collections.abc import Callable
from typing import Literal

from hra.data.text import normalize_transcript
from hra.errors import InputError

NormalizerName = Literal["basic", "whisper"]


def normalizer(name: NormalizerName) -> Callable[[str], str]:
  """The function that maps a transcript to what is scored.

  `basic` is what models train on (`hra.data.text.normalize_transcript`).
  `whisper` is the English normaliser of Radford et al. 2022 (appendix C).

  Raises:
    InputError: for an unknown name, or where `whisper`'s package is missing.
  """
  if name == "basic":
    return normalize_transcript
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
