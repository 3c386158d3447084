"""Everyday English sentences: a split's name in, its sentences out.

Templates with slots span the language; a stable hash of the sentence itself
decides its split, so that no split can share a sentence with another, in any
corpus and under any seed. All splits share the vocabulary.
"""

import functools
import itertools
import string
from collections.abc import Iterable

import numpy as np

from hra.errors import InputError
from hra.keys import stable_hash

SPLITS = ("train", "dev", "test")
_PER_TEMPLATE = 240
"""The most sentences of one template, so that none dominates."""

_SLOTS = {
  "room": "kitchen bedroom garden bathroom garage office",
  "device": "light heater radio television fan camera",
  "person": "mother father sister brother doctor teacher",
  "name": "anna peter maria david sarah thomas",
  "day": "monday tuesday wednesday thursday friday saturday sunday",
  "time": "morning afternoon evening",
  "number": "two three four five six seven eight nine ten twelve",
  "colour": "red blue green yellow black white brown",
  "thing": "book cup bag box chair letter picture hat key coat",
  "place": "station market hospital library school park museum",
  "food": "bread soup cheese rice fish chicken",
  "drink": "water coffee tea milk juice",
  "animal": "dog cat horse bird",
  "feeling": "tired happy hungry ready busy late",
  "weather": "rain snow wind sunshine",
  "music": "jazz piano guitar",
  "verb": "bring find show give",
  "going": "walk drive run go",
  "switch": "on off",
  "opening": "door window",
}

_TEMPLATES = (
  "please turn {switch} the {room} {device}",
  "turn the {device} {switch} at {number}",
  "is the {device} in the {room} still {switch}",
  "set the timer for {number} minutes",
  "wake me up at {number} on {day}",
  "call my {person} on {day} {time}",
  "send a message to {name} this {time}",
  "what is the weather like on {day}",
  "there will be {weather} on {day} {time}",
  "remind me to call the {person} at {number}",
  "could you {verb} me the {colour} {thing}",
  "i left my {colour} {thing} in the {room}",
  "where did {name} put the {thing}",
  "my {person} bought a {colour} {thing}",
  "we need more {food} and {drink}",
  "i would like some {food} for lunch",
  "add {food} and {drink} to the shopping list",
  "{name} wants a glass of {drink}",
  "can we {going} to the {place} this {time}",
  "how far is the {place} from the {place}",
  "the {place} opens at {number} on {day}",
  "the train to the {place} leaves at {number}",
  "{name} and {name} are very {feeling} today",
  "my {person} is {feeling} this {time}",
  "the {colour} {animal} sleeps in the {room}",
  "we saw {number} {colour} birds near the {place}",
  "play some {music} music in the {room}",
  "please close the door of the {room}",
  "{name} will meet us at the {place}",
  "the meeting with {name} is on {day}",
  "do not forget the {thing} and the {thing}",
  "open the {room} {opening}",
  "bring the {colour} {thing}",
  "call {name} at {number}",
  "my {person} is not {feeling}",
  "the {animal} likes {food}",
  "{name} drinks {drink} every {day}",
  "stop the {room} {device}",
  "{number} {colour} boxes please",
  "tell {name} that the {animal} is {feeling}",
)


@functools.cache
def sentences(split: str) -> tuple[str, ...]:
  """All sentences of a split, 3 to 8 words each, lower case, no punctuation.

  Eight of ten sentences are train, one is dev, one is test, by their hash.
  """
  share = range(8) if split == "train" else (8 + SPLITS.index(split) - 1,)
  chosen: list[str] = []
  for template in _TEMPLATES:
    filled = sorted(_fillings(template), key=stable_hash)[:_PER_TEMPLATE]
    chosen += [text for text in filled if stable_hash(text) // 7 % 10 in share]
  return tuple(chosen)


def sample(split: str, count: int, *, rng: np.random.Generator) -> list[str]:
  """`count` different sentences of a split.

  Raises:
    InputError: the split has fewer.
  """
  pool = sentences(split)
  if count > len(pool):
    raise InputError(
      f"{split}_utterances",
      expected=f"at most {len(pool)} for each speaker",
      got=str(count),
    )
  return [pool[index] for index in rng.permutation(len(pool))[:count]]


def vocabulary() -> frozenset[str]:
  """Every word that a sentence may hold."""
  return frozenset(
    word
    for split in SPLITS
    for text in sentences(split)
    for word in text.split()
  )


def check_disjoint(**splits: Iterable[str]) -> None:
  """Asserts that no sentence stands in two splits.

  Raises:
    ValueError: naming the first one that does.
  """
  for (first, texts), (second, others) in itertools.combinations(
    splits.items(), 2
  ):
    shared = sorted(set(texts) & set(others))
    if shared:
      raise ValueError(f"{first} and {second} share {shared[0]!r}")


def _fillings(template: str) -> Iterable[str]:
  names = [name for _, name, _, _ in string.Formatter().parse(template) if name]
  parts = string.Formatter().parse(template)
  literals = [literal for literal, _, _, _ in parts]
  for words in itertools.product(*(_SLOTS[name].split() for name in names)):
    if len(set(words)) == len(words):
      yield "".join(
        itertools.chain(*itertools.zip_longest(literals, words, fillvalue=""))
      )
