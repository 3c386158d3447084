"""Who speaks: a name and a seed in, a voice with its speaking habits out.

A typical speaker is a voice alone. An atypical one adds systematic habits of
pronunciation (`phonology`), pauses, and a changed sound (`acoustics`). Every
draw is a pure function of the seed and the speaker's name: speaker-07 is the
same among ten speakers and among a hundred.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from hra.config import SyntheticConfig
from hra.data.synthetic import acoustics, combinations, phonology
from hra.data.synthetic.espeak import Espeak, Words, notation
from hra.keys import host_rng

_Choice = TypeVar("_Choice")

_TRACT = (0.88, 1.36)
"""Formants of the shortest and longest voices over a typical man's."""
_SLICES = 16
"""Of the range of tracts; seen voices live in even, unseen in odd slices."""

_WEIGHTS = {"edges": 0.25, "syllables": 0.25, "fluency": 0.25}
"""How likely a group of rules is beside the others: habits that lose or repeat
sounds are rarer than those that replace them, as in articulation disorders."""
_RULE_LIMITS = {
  "initial_deletion": 0.5,
  "weak_syllable_deletion": 0.6,
  "final_deletion": 0.7,
  "stutter": 0.25,
}
"""Rules that would leave no words at the probability of the others."""
_PREFIXES = {"any": "speaker", "training": "speaker", "held_out": "newcomer"}
"""Of names: the pools of combinations have no voice in common."""


@dataclasses.dataclass(frozen=True)
class Voice:
  """A larynx and a vocal tract."""

  name: str
  pitch: int
  """Hertz, the low end of the intonation."""
  pitch_span: int
  """Hertz from the low to the high end."""
  tract: float
  """All formants, as a factor of a typical man's."""
  formants: tuple[float, ...] = (1.0,) * 5
  """F1 to F5 beside the tract's factor."""
  heights: tuple[int, ...] = (100,) * 5
  """Strength of F1 to F5 in per cent."""
  widths: tuple[int, ...] = (100,) * 5
  rate: int = 150
  """Words per minute."""
  roughness: int = 0
  flutter: int = 2
  breath: int = 0

  def definition(self) -> str:
    """The voice as a variant file of espeak-ng."""
    # A voice's pitch alone moves espeak-ng's formants by this factor.
    own = 1 + (self.pitch - 82) / 82 / 4
    lines = [f"pitch {self.pitch} {self.pitch + self.pitch_span}"]
    for i in range(5):
      percent = round(100 * self.tract * self.formants[i] / own)
      lines.append(
        f"formant {i + 1} {percent} {self.heights[i]} {self.widths[i]}"
      )
    lines.append(f"roughness {self.roughness}")
    lines.append(f"flutter {self.flutter}")
    if self.breath:
      strengths = " ".join(
        str(self.breath * share // 4) for share in (0, 4, 5, 3, 4)
      )
      lines.append(f"breath {strengths}")
      lines.append("breathw 150 150 200 200 400")
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Speaker:
  """A voice and its habits; none for a typical speaker."""

  voice: Voice
  rules: tuple[tuple[str, float], ...] = ()
  """Names from `phonology.GROUPS` in order, with their probabilities."""
  pauses: float = 0.0
  """Probability of a pause after a word."""
  effects: tuple[tuple[str, float], ...] = ()
  """Names from `acoustics.EFFECTS` in order, with strengths in [0, 1]."""
  severity: float = 0.0
  """What habits and effects were drawn for."""

  @property
  def name(self) -> str:
    return self.voice.name

  def pronounce(self, words: Words, *, rng: np.random.Generator) -> Words:
    """The sentence as this speaker says it."""
    for rule, probability in self.rules:
      changed = phonology.apply(rule, words, probability=probability, rng=rng)
      words = changed or words
    return words

  def phrases(
    self, words: Words, *, rng: np.random.Generator
  ) -> list[str | float]:
    """Cuts a sentence at its pauses: the pieces of `Espeak.speak`."""
    pieces: list[str | float] = []
    start = 0
    for end in range(1, len(words)):
      if self.pauses and rng.random() < self.pauses:
        pieces += [notation(words[start:end]), rng.uniform(0.1, 0.3)]
        start = end
    return [*pieces, notation(words[start:])]

  def say(
    self, text: str, *, espeak: Espeak, rng: np.random.Generator
  ) -> np.ndarray:
    """Speaks a sentence: wave_S, float32 at 16 kHz, without room noise."""
    words = self.pronounce(espeak.phonemes(text), rng=rng)
    wave_S = espeak.speak(
      self.phrases(words, rng=rng),
      voice=self.voice.definition(),
      rate=self.voice.rate,
    )
    for effect, strength in self.effects:
      wave_S = acoustics.apply(effect, wave_S, strength=strength, rng=rng)
    return wave_S


def typical_voices(count: int, *, seed: int) -> list[Voice]:
  """typical-00, typical-01, ..."""
  return [
    _voice(name, seed=seed, slices=range(0, _SLICES, 2))
    for name in _names("typical", count)
  ]


def unseen_voices(count: int, *, seed: int) -> list[Voice]:
  """unseen-00, ...: their vocal tracts are of no length that typical ones are."""
  return [
    _voice(name, seed=seed, slices=range(1, _SLICES, 2))
    for name in _names("unseen", count)
  ]


def atypical_speakers(spec: SyntheticConfig) -> list[Speaker]:
  """speaker-00, ...: with more severity come more habits and a stranger sound.

  About 6.5 x severity rules each, applied with probabilities of 0.6 to 1 (less
  for those that delete): systematic, hence learnable. Habits are nested, but for
  those of a pool of combinations (`combinations`): those of one severity stay at
  every higher one. Severity 0 is the voice alone. Held-out combinations belong
  to newcomer-00, ...
  """
  return [
    _atypical(name, spec=spec)
    for name in _names(_PREFIXES[spec.combinations], spec.speakers)
  ]


def _names(prefix: str, count: int) -> list[str]:
  return [f"{prefix}-{index:02d}" for index in range(count)]


def _voice(name: str, *, seed: int, slices: range) -> Voice:
  rng = host_rng(seed, "voice", name)
  low, high = _TRACT
  # The inner part of a slice, so that neighbours differ audibly.
  place = (_pick(slices, rng) + rng.uniform(0.1, 0.9)) / _SLICES
  height = float(np.clip(place + rng.normal(0, 0.15), 0, 1))
  pitch = round(75 + 130 * height)
  return Voice(
    name=name,
    pitch=pitch,
    pitch_span=round(pitch * rng.uniform(0.3, 0.6)),
    tract=low + (high - low) * place,
    formants=tuple(rng.uniform(0.96, 1.04, 5).tolist()),
    heights=tuple(rng.integers(75, 126, 5).tolist()),
    widths=tuple(rng.integers(85, 121, 5).tolist()),
    rate=int(rng.integers(125, 176)),
    roughness=int(rng.integers(0, 4)),
    flutter=int(rng.integers(1, 8)),
    breath=max(0, int(rng.integers(-8, 9))),
  )


def _atypical(name: str, *, spec: SyntheticConfig) -> Speaker:
  voice = _voice(name, seed=spec.seed, slices=range(_SLICES))
  # Apart from the habits, so that a spread of 0 leaves those as they were.
  swing = host_rng(spec.seed, "severity", name).uniform(-1.0, 1.0)
  severity = spec.severity + spec.severity_spread * float(swing)
  rng = host_rng(spec.seed, "habits", name)  # draws all, whatever the severity
  order = _race(rng)
  count = 6.5 * severity + rng.uniform(-0.75, 0.75)
  members = {group: _pick(phonology.GROUPS[group], rng) for group in order}
  chances = {group: float(rng.uniform(0.6, 1.0)) for group in order}
  kept = order[: max(round(count), 1)] if severity else []
  if spec.combinations == "any":
    chosen = {group: members[group] for group in kept}
  else:
    chosen = _pooled(name, kept, spec=spec)
  rules = tuple(
    (chosen[group], chances[group] * _RULE_LIMITS.get(chosen[group], 1.0))
    for group in phonology.GROUPS
    if group in chosen
  )
  audible = {
    effect: (rng.random() < 0.5 * severity, float(rng.uniform(0.4, 1.0)))
    for effect in (*acoustics.EFFECTS, "formant_shift", "slow")
  }
  shift = 0.2 * rng.choice([-1.0, 1.0], 2)

  def strength(effect: str) -> float:
    occurs, amount = audible[effect]
    return min(amount * severity, 1.0) if occurs else 0.0

  first, second, *others = voice.formants
  moved = strength("formant_shift")
  return Speaker(
    severity=severity,
    voice=dataclasses.replace(
      voice,
      formants=(
        first * (1 + moved * float(shift[0])),
        second * (1 + moved * float(shift[1])),
        *others,
      ),
      rate=max(80, round(voice.rate * (1 - 0.35 * strength("slow")))),
    ),
    rules=rules,
    pauses=0.4 * strength("slow"),
    effects=tuple(
      (effect, strength(effect))
      for effect in acoustics.EFFECTS
      if strength(effect)
    ),
  )


def _race(rng: np.random.Generator) -> list[str]:
  """All groups; being early is likelier in proportion to a group's weight."""
  times = {
    group: rng.exponential() / _WEIGHTS.get(group, 1.0)
    for group in phonology.GROUPS
  }
  return sorted(times, key=times.__getitem__)


def _pooled(
  name: str, kept: Sequence[str], *, spec: SyntheticConfig
) -> dict[str, str]:
  """Rules of the spec's pool, from these groups if they can be combined so.

  Else from as many groups of another race: how many habits a speaker has does
  not depend on the pool.
  """
  groups = list(kept)
  for attempt in itertools.count():
    rng = host_rng(spec.seed, "combination", name, attempt)
    chosen = combinations.pick(groups, pool=spec.combinations, rng=rng)
    if chosen is not None:
      return chosen
    groups = _race(rng)[: len(kept)]
  raise AssertionError("unreachable")


def _pick(choices: Sequence[_Choice], rng: np.random.Generator) -> _Choice:
  return choices[int(rng.integers(len(choices)))]
