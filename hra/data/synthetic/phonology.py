"""Speaking habits as rules on phonemes: a pronunciation in, a changed one out.

Each rule is applied, phoneme by phoneme (or word by word), with its own
probability. The rules of one group contradict each other (one speaker's k is t,
another's t is k), so that speakers need what is personal: no one correction
undoes them all.
"""

from collections.abc import Callable, Mapping

import numpy as np

from hra.data.synthetic.espeak import Words

Word = tuple[str, ...]

GROUPS: Mapping[str, tuple[str, ...]] = {
  "place": ("fronting", "backing", "glottal_stops"),
  "fricatives": ("stopping", "lisping", "retracting"),
  "voice": ("devoicing", "voicing"),
  "vowels": ("raising", "lowering", "centralising"),
  "liquids": ("gliding", "lateralising"),
  "nasality": ("nasalising", "denasalising"),
  "clusters": ("cluster_reduction", "cluster_breaking"),
  "edges": ("final_deletion", "initial_deletion"),
  "syllables": ("weak_syllable_deletion",),
  "fluency": ("stutter",),
}
"""Rules that contradict each other; in the order in which they apply."""


def _table(pairs: str) -> Mapping[str, str]:
  """Parses "k>t g>d"."""
  return dict(pair.split(">") for pair in pairs.split())


SUBSTITUTIONS: Mapping[str, Mapping[str, str]] = {
  "fronting": _table("k>t g>d N>n S>s Z>z tS>t"),
  "backing": _table("t>k t2>k t#>k d>g n>N s>S"),
  "glottal_stops": _table("t>? t2>? t#>? k>? p>?"),
  "stopping": _table("s>t z>d f>p v>b T>t D>d S>t Z>d tS>t dZ>d"),
  "lisping": _table("s>T z>D S>T Z>D"),
  "retracting": _table("s>S z>Z T>s D>z f>T"),
  "devoicing": _table("b>p d>t g>k v>f z>s D>T Z>S dZ>tS"),
  "voicing": _table("p>b t>d t2>d t#>d k>g f>v s>z T>D S>Z tS>dZ"),
  "raising": _table("a>E aa>E E>I I>i: eI>i: aI>eI 0>O: O:>oU oU>u: V>U A:>O:"),
  "lowering": _table("i:>I i>I I>E E>a eI>aI oU>aU u:>oU U>V O:>A: V>a 3:>A:"),
  "centralising": _table(
    "a>@ aa>@ E>@ I>@ 0>@ V>@ U>@ O:>@ A:>@ i:>I u:>U eI>E aI>V oU>V aU>V"
  ),
  "gliding": _table("r>w r->w l>w @L>U"),
  "lateralising": _table("r>l r->l w>l j>l"),
  "nasalising": _table("b>m d>n g>N v>m D>n z>n"),
  "denasalising": _table("m>b n>d N>g"),
}
"""Rule -> phoneme -> what is said in its place."""


def stress_and_symbol(phoneme: str) -> tuple[str, str]:
  """Splits 'i: into its stress mark and i:."""
  symbol = phoneme.lstrip("',")
  return phoneme[: len(phoneme) - len(symbol)], symbol


def is_vowel(phoneme: str) -> bool:
  return stress_and_symbol(phoneme)[1][:1] in set("aAeEiIoOuUV03@")


def is_consonant(phoneme: str) -> bool:
  return not is_vowel(phoneme) and phoneme != ";"  # ; links two vowels


def apply(
  rule: str, words: Words, *, probability: float, rng: np.random.Generator
) -> Words:
  """One rule on a sentence; words that lose all their phonemes vanish."""
  if rule in SUBSTITUTIONS:
    table = SUBSTITUTIONS[rule]
    changed = [
      tuple(_substitute(phoneme, table, probability, rng) for phoneme in word)
      for word in words
    ]
  else:
    changed = []
    for word in words:
      changed += _STRUCTURAL[rule](word, probability, rng)
  return tuple(word for word in changed if word)


def _substitute(
  phoneme: str,
  table: Mapping[str, str],
  probability: float,
  rng: np.random.Generator,
) -> str:
  stress, symbol = stress_and_symbol(phoneme)
  if symbol in table and rng.random() < probability:
    return stress + table[symbol]
  return phoneme


def _cluster_reduction(
  word: Word, probability: float, rng: np.random.Generator
) -> list[Word]:
  """st -> t, pl -> p: of two neighbours the liquid, else the first, goes."""
  kept = list(word)
  i = 0
  while i + 1 < len(kept):
    pair = kept[i : i + 2]
    if all(map(is_consonant, pair)) and rng.random() < probability:
      del kept[i + 1 if pair[1] in ("r", "l", "w", "j") else i]
    else:
      i += 1
  return [tuple(kept)]


def _cluster_breaking(
  word: Word, probability: float, rng: np.random.Generator
) -> list[Word]:
  """st -> s@t: a schwa between two consonants."""
  broken: list[str] = []
  for phoneme in word:
    if (
      broken
      and is_consonant(broken[-1])
      and is_consonant(phoneme)
      and rng.random() < probability
    ):
      broken.append("@")
    broken.append(phoneme)
  return [tuple(broken)]


def _final_deletion(
  word: Word, probability: float, rng: np.random.Generator
) -> list[Word]:
  """A last consonant after a vowel goes."""
  if len(word) > 1 and is_consonant(word[-1]) and rng.random() < probability:
    return [word[:-1]]
  return [word]


def _initial_deletion(
  word: Word, probability: float, rng: np.random.Generator
) -> list[Word]:
  """A first consonant goes."""
  if len(word) > 1 and is_consonant(word[0]) and rng.random() < probability:
    return [word[1:]]
  return [word]


def _weak_syllable_deletion(
  word: Word, probability: float, rng: np.random.Generator
) -> list[Word]:
  """An unstressed vowel and the consonant before it go, if a stressed stays."""
  vowels = [phoneme for phoneme in word if is_vowel(phoneme)]
  if not any(stress_and_symbol(vowel)[0] for vowel in vowels):
    return [word]
  kept: list[str] = []
  for phoneme in word:
    weak = is_vowel(phoneme) and not stress_and_symbol(phoneme)[0]
    if weak and rng.random() < probability:
      if kept and is_consonant(kept[-1]):
        kept.pop()
    else:
      kept.append(phoneme)
  return [tuple(kept)]


def _stutter(
  word: Word, probability: float, rng: np.random.Generator
) -> list[Word]:
  """b'O:l -> b@ b@ b'O:l: the first sound once or twice more."""
  if rng.random() >= probability:
    return [word]
  first = word[0]
  if is_vowel(first):
    part: Word = (stress_and_symbol(first)[1], "?")
  else:
    part = (first, "@")
  return [part] * int(rng.integers(1, 3)) + [word]


_STRUCTURAL: Mapping[
  str, Callable[[Word, float, np.random.Generator], list[Word]]
] = {
  "cluster_reduction": _cluster_reduction,
  "cluster_breaking": _cluster_breaking,
  "final_deletion": _final_deletion,
  "initial_deletion": _initial_deletion,
  "weak_syllable_deletion": _weak_syllable_deletion,
  "stutter": _stutter,
}
