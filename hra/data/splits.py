"""Who trains and who is tested: records -> splits, and what the splits share.

Enters: records, of which some may say their split already. Leaves: records by
split, none of which shares a sentence (or a sitting) with another where they were
divided here; and, where they were given, the transcripts that two splits share.
"""

import collections
import itertools
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from hra import keys
from hra.data.records import Record
from hra.data.text import normalize_transcript
from hra.errors import InputError

By = Literal["auto", "given", "sentence", "session"]
Splits = dict[str, list[Record]]

TRAIN = "train"
_NAMES = {
  "training": TRAIN,
  "validation": "dev",
  "valid": "dev",
  "val": "dev",
  "dev_clean": "dev",
  "test_clean": "test",
}
"""Of the splits that corpora call otherwise."""
_TRAINED = re.compile(r"train[_\d](?!(.*_)?(dev|val|valid|validation|test)$).*")
"""As train_clean_100; but Kaldi's train_dev is held out."""
_ALL = "all"
"""TFDS's name for every split together."""
_ENOUGH = {"sentence": 4, "session": 3}
"""A task with fewer distinct sentences (sessions) keeps them all for training."""


def known_as(name: str) -> str:
  """The split that a corpus means: `Validation` is dev, `train-clean-100` train.

  Others keep their names, in lower case and with `_` for `-`, as TFDS's names of
  splits are words.
  """
  name = name.lower().replace("-", "_")
  return TRAIN if _TRAINED.fullmatch(name) else _NAMES.get(name, name)


def checked(name: str, *, where: str) -> str:
  """`known_as`, where that can be a split of prepared data.

  Raises:
    InputError: it is `all`, or has other characters than letters, digits, `_`
      and `-`.
  """
  known = known_as(name)
  if known == _ALL:
    raise InputError(
      where,
      expected="a split with a name of its own",
      got=f"{name!r}, which stands for all splits together",
      fix="rename it, as to train",
    )
  if not re.fullmatch(r"[a-z]\w{0,63}", known, re.ASCII):
    raise InputError(
      where,
      expected="a split such as train, dev or test (letters, digits, - and _)",
      got=reprlib.repr(name),
    )
  return known


class Overlap(NamedTuple):
  """Transcripts that a split shares with another one."""

  split: str
  other: str
  """The split that is trained on, where one of the two is."""
  utterances: int
  """Of `split`, whose transcript `other` has too."""
  of: int
  """Utterances of `split`."""
  example: tuple[Record, Record]
  """One of `split`, and one of `other` with the same transcript."""


def divide(
  records: Sequence[Record],
  *,
  by: By,
  fractions: Mapping[str, float],
  least: int = 1,
  seed: int,
) -> Splits:
  """Gives every record its split.

  Args:
    records: of any number of tasks.
    by: `given` takes each record's own split, train where it has none; `auto`
      too, and holds those of `fractions` that are missing out of train by
      sentence; `sentence` and `session` divide all records anew (`hold_out`).
    fractions: part of each task's sentences (sessions) for each split that is
      held out; 0 is none.
    least: as for `hold_out`.
    seed: changes what is held out.

  Returns:
    The records of each split that has some, ordered by task and id.

  Raises:
    InputError: `given`, but no record says its split; `session`, but a record
      doesn't say its session; nothing to train on; a split's name that is none.
  """
  if by == "given" and not any(record.split for record in records):
    raise InputError(
      "split_by=given",
      expected="a corpus that is divided already",
      got="records without a split",
      fix="give a folder with train.jsonl, dev.jsonl and test.jsonl, or a "
      '"split" on each line',
    )
  if by in ("sentence", "session"):
    splits = hold_out(
      records,
      unit="sentence" if by == "sentence" else "session",
      fractions=fractions,
      least=least,
      seed=seed,
    )
  else:
    splits = _given(records)
    absent = {
      name: part for name, part in fractions.items() if name not in splits
    }
    if by == "auto":
      splits |= hold_out(
        splits.get(TRAIN, []),
        unit="sentence",
        fractions=absent,
        least=least,
        seed=seed,
      )
  if not splits.get(TRAIN):
    raise InputError(
      "splits",
      expected=f"records of the split {TRAIN!r}",
      got=", ".join(name for name, part in splits.items() if part) or "none",
      fix="name it so, or divide anew: --split_by=sentence",
    )
  return {
    name: sorted(part, key=lambda record: (record.task, record.id))
    for name, part in splits.items()
    if part
  }


def hold_out(
  records: Sequence[Record],
  *,
  unit: Literal["sentence", "session"],
  fractions: Mapping[str, float],
  least: int = 1,
  seed: int,
) -> Splits:
  """Divides records so that no unit stands in two splits.

  A unit is a (normalised) sentence, or one session of one task. Of each task's n
  distinct units, each split gets max(least, round(fraction * n)), the first in the
  order of a hash of the unit; the rest trains. A sentence that several tasks
  speak is in one split for all of them: the smallest task decides, so that it
  gets its share. Thus, where tasks share no sentences, a task is divided as if
  it were alone.

  Args:
    records: of any number of tasks.
    unit: what must not be in two splits.
    fractions: part of the units for each split that is held out; 0 is none.
    least: units that each of these splits gets of a task that has enough to divide.
    seed: changes the order.

  Returns:
    The records of `train` and of each name in `fractions`.

  Raises:
    InputError: a record doesn't say its session.
  """
  unit_of = _sentence if unit == "sentence" else _session
  units_of: dict[str, set[str]] = collections.defaultdict(set)
  for record in records:
    units_of[record.task].add(unit_of(record))
  split_of: dict[str, str] = {}
  for task in sorted(units_of, key=lambda t: (len(units_of[t]), t)):
    units = sorted(
      units_of[task], key=lambda u: (keys.stable_hash(f"{seed}/{u}"), u)
    )
    for name, fraction in fractions.items():
      if not fraction or len(units) < _ENOUGH[unit]:
        continue
      share = max(least, round(fraction * len(units)))
      share -= sum(split_of.get(each) == name for each in units)
      free = [each for each in units if each not in split_of]
      # One at least is left to train on.
      taken = free[: max(min(share, len(free) - 1), 0)]
      split_of |= dict.fromkeys(taken, name)
    for each in units:
      split_of.setdefault(each, TRAIN)
  splits: Splits = {name: [] for name in (TRAIN, *fractions)}
  for record in records:
    splits[split_of[unit_of(record)]].append(record)
  return splits


def overlaps(splits: Mapping[str, Sequence[Record]]) -> Iterator[Overlap]:
  """What any two splits share, the one that is trained on named second."""
  first_of = {
    name: _first(part, key=_sentence) for name, part in splits.items()
  }
  names = sorted(splits, key=lambda name: (name == TRAIN, name))
  for split, other in itertools.combinations(names, 2):
    shared = [
      record for record in splits[split] if _sentence(record) in first_of[other]
    ]
    if shared:
      yield Overlap(
        split=split,
        other=other,
        utterances=len(shared),
        of=len(splits[split]),
        example=(shared[0], first_of[other][_sentence(shared[0])]),
      )


def _given(records: Iterable[Record]) -> Splits:
  splits: Splits = {}
  for record in records:
    name = checked(record.split or TRAIN, where=record.where)
    splits.setdefault(name, []).append(record)
  return splits


def _sentence(record: Record) -> str:
  return normalize_transcript(record.text)


def _session(record: Record) -> str:
  if not record.session:
    raise InputError(
      record.where,
      expected="a session, as records are divided by it",
      got="none",
      fix='give each line a "session", or divide by sentence',
    )
  return f"{record.task}/{record.session}"


def _first(
  records: Iterable[Record], *, key: Callable[[Record], str]
) -> dict[str, Record]:
  first: dict[str, Record] = {}
  for record in records:
    first.setdefault(key(record), record)
  return first
