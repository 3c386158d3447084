"""Who trains and who is tested: laws of dividing, and what splits share."""

import collections
import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hra.data.records import Record
from hra.data.splits import checked, divide, hold_out, known_as, overlaps
from hra.data.text import normalize_transcript
from hra.errors import InputError

_FRACTIONS = {"dev": 0.1, "test": 0.2}


def _records(texts_of, **fields):
  return [
    Record(
      id=f"{task}{n}",
      path=f"{task}{n}",
      text=text,
      task=task,
      where=f"m:{n}",
      **fields,
    )
    for task, texts in texts_of.items()
    for n, text in enumerate(texts)
  ]


def _held(texts_of, *, seed=0, dev=0.1, test=0.2):
  fractions = {"dev": dev, "test": test}
  return hold_out(
    _records(texts_of), unit="sentence", fractions=fractions, seed=seed
  )


def test_a_task_gives_as_many_as_are_asked_at_least():
  texts = {
    "few": [f"few {n}" for n in range(4)],
    "many": [f"many {n}" for n in range(20)],
  }
  splits = hold_out(
    _records(texts),
    unit="sentence",
    fractions={"dev": 0.2},
    least=2,
    seed=0,
  )
  assert _counts(splits, "few") == [2, 2]
  assert _counts(splits, "many") == [16, 4]


def _divide(records, by, *, seed=0, fractions=_FRACTIONS):
  return divide(records, by=by, fractions=fractions, seed=seed)


def _counts(splits, task):
  return [sum(r.task == task for r in part) for part in splits.values()]


def _sittings(task, count, *, each=5):
  return [
    Record(
      id=f"{task}-{n}-{i}",
      path=f"{task}{n}{i}",
      text=f"words {i}",
      task=task,
      session=f"day {n}",
    )
    for n in range(count)
    for i in range(each)
  ]


@settings(max_examples=50, deadline=None)
@given(
  st.dictionaries(
    st.sampled_from("abcd"),
    st.lists(st.integers(0, 40).map(str), min_size=1, max_size=40),
    min_size=1,
  ),
  st.floats(0, 0.45),
  st.floats(0, 0.45),
)
def test_no_transcript_is_in_two_splits(texts_of, dev, test):
  splits = _held(texts_of, dev=dev, test=test)
  assert not list(overlaps(splits))
  split_of = {}
  for name, part in splits.items():
    for record in part:
      assert split_of.setdefault(record.text, name) == name
  kept = collections.Counter(r.id for part in splits.values() for r in part)
  assert kept == collections.Counter(r.id for r in _records(texts_of))


def test_spelling_makes_no_other_sentence():
  texts = [f"{n} apples" for n in range(9)]
  for seed in range(5):
    splits = _held(
      {"a": [*texts, *(f" {x.upper()}!" for x in texts)]}, seed=seed
    )
    sets = [{normalize_transcript(r.text) for r in x} for x in splits.values()]
    assert len(set().union(*sets)) == sum(map(len, sets)) == 9


@pytest.mark.parametrize("shared", [False, True])
def test_every_task_gets_its_share(shared):
  texts_of = {
    f"t{n}": [f"{'' if shared else n} words {k}" for k in range(size)]
    for n, size in enumerate((4, 10, 20, 50))
  }
  splits = _held(texts_of)
  assert _counts(splits, "t0") == [2, 1, 1]
  assert _counts(splits, "t1") == [7, 1, 2]
  assert _counts(splits, "t2") == [14, 2, 4]
  assert _counts(splits, "t3") == [35, 5, 10]


def test_few_sentences_all_train():
  assert _counts(_held({"a": ["x", "y", "z"] * 5}), "a") == [15, 0, 0]
  splits = _held({"a": ["1", "2", "3", "4"]}, dev=0.45, test=0.45)
  assert _counts(splits, "a") == [1, 2, 1]


def test_held_out_does_not_depend_on_order_or_on_strangers():
  alone = {"a": [f"a {n}" for n in range(20)]}
  more = {"b": [f"b {n}" for n in range(12)], "a": alone["a"][::-1]}
  one, two = (
    {name: {r.text for r in part if r.task == "a"} for name, part in x.items()}
    for x in (_held(alone), _held(more))
  )
  assert one == two
  other = _held(alone, seed=1)
  assert one["test"] != {r.text for r in other["test"]}


def test_a_session_stays_whole():
  records = [*_sittings("ann", 10), *_sittings("bob", 3), *_sittings("cy", 2)]
  splits = _divide(records, "session")
  of = {name: {(r.task, r.session) for r in x} for name, x in splits.items()}
  assert sum(map(len, of.values())) == 15
  assert len(set().union(*of.values())) == 15
  assert _counts(splits, "ann") == [35, 5, 10]
  assert _counts(splits, "bob") == [5, 5, 5]
  assert _counts(splits, "cy") == [10, 0, 0]
  # Two speakers' sittings of one name are two sittings.
  same = [
    dataclasses.replace(r, session="monday") if r.task == "ann" else r
    for r in records
  ]
  assert _counts(_divide(same, "session"), "ann") == [50, 0, 0]


def test_a_session_must_be_known():
  records = _sittings("ann", 4)
  records[7] = dataclasses.replace(records[7], session=None, where="m:8")
  with pytest.raises(InputError, match="m:8: expected a session"):
    _divide(records, "session")


def test_given_splits_stay_as_they_are():
  records = [
    *_records({"a": [f"a {n}" for n in range(20)]}, split="train"),
    *_records({"b": [f"b {n}" for n in range(5)]}, split="test-other"),
  ]
  given = _divide(records, "given")
  assert {name: len(x) for name, x in given.items()} == {
    "train": 20,
    "test_other": 5,
  }
  auto = _divide(records, "auto", fractions={"dev": 0.1, "test_other": 0.5})
  assert {name: len(x) for name, x in auto.items()} == {
    "train": 18,
    "test_other": 5,
    "dev": 2,
  }


@pytest.mark.parametrize(
  ("names", "split"),
  [
    (["train", "Train", "TRAIN", "training"], "train"),
    (["train-clean-100", "train_clean360", "train_other_500"], "train"),
    (["dev", "validation", "Validation", "valid", "val"], "dev"),
    (["dev-clean", "dev_clean"], "dev"),
    (["test", "test-clean", "test_clean", "TEST"], "test"),
    (["dev-other", "dev_other"], "dev_other"),
    (["test-other"], "test_other"),
    (["train_dev", "train-dev"], "train_dev"),
    (["trainer"], "trainer"),
    (["validated"], "validated"),
  ],
)
def test_names_of_splits(names, split):
  assert {known_as(name) for name in names} == {split}
  assert checked(split, where="m:1") == split
  records = _records({"a": ["x", "y"]})
  records = [
    dataclasses.replace(record, split=name, id=f"{name} {n}")
    for name in names
    for n, record in enumerate(records)
  ]
  other = [dataclasses.replace(records[0], split="train", id="o")]
  splits = _divide([*records, *other], "given")
  assert set(splits) == {"train", split}
  assert len(splits[split]) == len(records) + (split == "train")


def test_dividing_anew_forgets_what_was_given():
  texts = {"a": [f"a {n}" for n in range(20)]}
  anew = _divide(_records(texts, split="test"), "sentence")
  assert anew == {
    name: [dataclasses.replace(r, split="test") for r in part]
    for name, part in _divide(_records(texts), "auto").items()
  }
  assert {name: len(part) for name, part in anew.items()} == {
    "train": 14,
    "dev": 2,
    "test": 4,
  }


def test_order_is_by_task_and_id():
  splits = _divide(_records({"b": list("xyz"), "a": list("zyx")}), "auto")
  assert [r.id for r in splits["train"]] == ["a0", "a1", "a2", "b0", "b1", "b2"]


@pytest.mark.parametrize(
  ("split", "by", "match"),
  [
    (None, "given", "a corpus that is divided already"),
    ("test", "given", "records of the split 'train', got test"),
    ("test", "auto", "records of the split 'train', got test"),
    ("../etc", "auto", "m:0: expected a split such as train"),
    ("1st", "auto", "m:0: expected a split such as train"),
    ("all", "auto", "m:0: .*'all', which stands for all splits together"),
    ("All", "given", "m:0: .*'All', which stands for all splits together"),
  ],
)
def test_what_cannot_be_divided(split, by, match):
  with pytest.raises(InputError, match=match):
    _divide(_records({"a": ["x"]}, split=split), by)


def test_what_test_shares_with_train_is_found():
  splits = {
    "train": _records({"a": ["One.", "two", "two", "three"]}),
    "dev": _records({"b": ["four"]}),
    "test": _records({"c": ["TWO!", "one", "four", "five", "two"]}),
  }
  found = {(each.split, each.other): each for each in overlaps(splits)}
  assert set(found) == {("test", "train"), ("dev", "test")}
  shared = found["test", "train"]
  assert (shared.utterances, shared.of) == (3, 5)
  assert [record.id for record in shared.example] == ["c0", "a1"]
