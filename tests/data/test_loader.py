import dataclasses
import threading
import time
from typing import NamedTuple

import jax
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from hra.config import DataConfig, MultistyleConfig
from hra.data.batching import Batch
from hra.data.loader import EvaluationLoader, Loader
from hra.data.roster import POOLED
from hra.errors import InputError
from hra.keys import hash_words

BOUNDS = (800, 1600, 3200)
CONFIG = DataConfig(
  tasks_per_batch=4,
  utterances_per_task=3,
  eval_batch=6,
  speed_low=0.9,
  speed_high=1.1,
  multistyle=MultistyleConfig(noise="coloured", part=0.5),
)


class Example(NamedTuple):
  wave_S: np.ndarray
  text: str
  task: str
  id: str


class FakeSplit:
  """Utterances whose audio is a function of their ids."""

  def __init__(self, rows, *, delay=0.0):
    """Rows are (id, task, text, samples)."""
    self.ids = [row[0] for row in rows]
    self.tasks = [row[1] for row in rows]
    self.texts = [row[2] for row in rows]
    self.samples = np.asarray([row[3] for row in rows], np.int64)
    self.delay = delay
    self.cut = 0
    self.reads = []

  def __len__(self):
    return len(self.ids)

  def __getitem__(self, index):
    time.sleep(self.delay)
    self.reads.append(index)
    rng = np.random.default_rng(hash_words(self.ids[index]))
    wave_S = rng.standard_normal(
      self.samples[index] - self.cut, dtype=np.float32
    )
    return Example(
      wave_S, self.texts[index], self.tasks[index], self.ids[index]
    )


class Characters:
  def encode(self, text):
    return [1 + ord(c) - ord("a") for c in text if c not in self.unknown(text)]

  def unknown(self, text):
    return sorted(set(text) - set("abcdefghijklmnopqrstuvwxyz"))


def rows_of(task, *, count, seed=0):
  rng = np.random.default_rng([seed, *hash_words(task)])
  return [
    (
      f"{task}/{i:03}",
      task,
      "".join(rng.choice(list("abcd"), rng.integers(1, 9))),
      int(rng.integers(100, 3200)),
    )
    for i in range(count)
  ]


def loader(rows, table, *, config=CONFIG, steps=9, seed=0, **kwargs):
  return Loader(
    rows if isinstance(rows, FakeSplit) else FakeSplit(rows),
    tokenizer=Characters(),
    table=table,
    bounds=BOUNDS,
    config=config,
    steps_per_task=steps,
    seed=seed,
    **kwargs,
  )


def part_of(process, processes):
  """What one of some processes makes of an axis."""
  return lambda size: range(size)[
    size * process // processes : size * (process + 1) // processes
  ]


def job(counts, **kwargs):
  rows = [row for task, n in counts.items() for row in rows_of(task, count=n)]
  return loader(rows, list(counts), **kwargs)


def assert_same(first, second):
  for name, a, b in zip(Batch._fields, first, second, strict=True):
    for ours, theirs in zip(*map(jax.tree.leaves, (a, b)), strict=True):
      np.testing.assert_array_equal(ours, theirs, err_msg=name)
      assert ours.dtype == theirs.dtype, name


def history(own_loader, task, *, row):
  """What a task saw at each own step, cut to the valid parts."""
  seen = {}
  for i in range(len(own_loader)):
    batch = own_loader[i]
    for k in np.flatnonzero(batch.task_K == row):
      own_step = int(batch.own_step_K[k])
      assert own_step not in seen
      np.testing.assert_array_equal(batch.name_hash_K2[k], hash_words(task))
      seen[own_step] = (
        batch.wave_KBS.shape[-1],
        [
          (
            batch.wave_KBS[k, b, : batch.lengths_KB[k, b]].tobytes(),
            batch.labels_KBU[k, b, : batch.label_lengths_KB[k, b]].tolist(),
            bool(batch.augment_KB[k, b]),
          )
          for b in range(batch.lengths_KB.shape[1])
        ],
      )
  return seen


@given(
  counts=st.lists(st.integers(1, 14), min_size=1, max_size=6),
  places=st.integers(1, 5),
  seed=st.integers(0, 3),
  shuffle=st.randoms(use_true_random=False),
)
@settings(max_examples=25, deadline=None)
def test_a_task_sees_the_same_alone_and_with_others(
  counts, places, seed, shuffle
):
  """Whatever K, the order of the table and the order of the manifest."""
  names = [f"speaker-{i}" for i in range(len(counts))]
  rows = {n: rows_of(n, count=c) for n, c in zip(names, counts, strict=True)}
  together = [row for own in rows.values() for row in own]
  shuffle.shuffle(together)
  table = list(names)
  shuffle.shuffle(table)
  config = dataclasses.replace(CONFIG, tasks_per_batch=places)
  joint = loader(together, table, config=config, seed=seed, steps=6)
  alone = loader(rows[names[0]], names[:1], seed=seed, steps=6)
  seen = history(joint, names[0], row=table.index(names[0]))
  assert sorted(seen) == list(range(6))
  assert seen == history(alone, names[0], row=0)


@given(
  counts=st.lists(st.integers(1, 9), min_size=4, max_size=7),
  processes=st.sampled_from([2, 4]),
)
@settings(max_examples=15, deadline=None)
def test_shards_concatenate_to_the_whole(counts, processes):
  tasks = {f"t{i}": count for i, count in enumerate(counts)}
  config = dataclasses.replace(CONFIG, tasks_per_batch=4)
  whole = job(tasks, config=config, steps=4)
  parts = [
    job(
      tasks,
      config=config,
      steps=4,
      own=part_of(p, processes),
      processes=processes,
    )
    for p in range(processes)
  ]
  for i in range(len(whole)):
    shards = [part[i] for part in parts]
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *shards)
    assert_same(joined, whole[i])


@pytest.mark.parametrize(
  ("tasks", "places"), [("a", 1), ("abc", 4), ("abcde", 8), ("abcdefghij", 8)]
)
def test_a_batch_has_places_that_devices_divide(tasks, places):
  counts = dict.fromkeys(tasks, 6)
  config = dataclasses.replace(CONFIG, tasks_per_batch=8, utterances_per_task=4)
  alone = job(counts, config=config, steps=2)
  several = job(counts, config=config, steps=2, devices=4)
  assert several.places == places
  assert several[0].task_K.shape == (places,)
  assert len(several) == len(alone)
  for left, right in zip(alone.batches(), several.batches(), strict=True):
    kept = len(left.task_K)
    assert_same(left, jax.tree.map(lambda leaf, n=kept: leaf[:n], right))


@pytest.mark.parametrize(
  ("tasks", "field"),
  [("abcdef", "tasks_per_batch"), ("a", "utterances_per_task")],
)
@pytest.mark.parametrize("processes", [1, 2])
def test_a_batch_that_devices_do_not_divide_is_refused(tasks, field, processes):
  config = dataclasses.replace(CONFIG, tasks_per_batch=2, utterances_per_task=2)
  with pytest.raises(InputError, match="a multiple of the 4 devices") as raised:
    job(
      dict.fromkeys(tasks, 6),
      config=config,
      own=lambda size: pytest.fail(f"{size} were divided"),
      processes=processes,
      devices=4,
    )
  assert raised.value.where == f"config.data.{field}"


def test_a_process_reads_only_its_own_audio():
  rows = [row for t in "abcd" for row in rows_of(t, count=3)]
  split = FakeSplit(rows)
  parts = [
    loader(split, list("abcd"), own=part_of(p, 4), processes=4)
    for p in range(4)
  ]
  parts[0][0]
  assert len(split.reads) == 3
  assert len({split.tasks[i] for i in split.reads}) == 1


def test_pooled_utterances_are_divided_among_processes():
  config = dataclasses.replace(CONFIG, grouping="pooled", utterances_per_task=8)
  rows = [row for t in "abc" for row in rows_of(t, count=9)]
  whole = loader(rows, [POOLED], config=config)
  assert whole[0].wave_KBS.shape[:2] == (1, 8)
  assert whole.shard_axis == 0
  parts = [
    loader(rows, [POOLED], config=config, own=part_of(p, 4), processes=4)
    for p in range(4)
  ]
  for i in range(len(whole)):
    shards = [part[i] for part in parts]
    for name in Batch._fields[:5]:
      joined = np.concatenate([getattr(s, name) for s in shards], axis=1)
      np.testing.assert_array_equal(joined, getattr(whole[i], name))
    np.testing.assert_array_equal(shards[3].task_K, whole[i].task_K)
  assert parts[0].shard_axis == 1
  texts = [
    tuple(batch.labels_KBU[0, b, : batch.label_lengths_KB[0, b]])
    for batch in (whole[i] for i in range(4))
    for b in range(8)
    if batch.lengths_KB[0, b]
  ]
  expected = [tuple(Characters().encode(row[2])) for row in rows]
  assert sorted(texts) == sorted(expected)


@given(start=st.integers(0, 14), threads=st.integers(1, 4))
@settings(max_examples=8, deadline=None)
def test_resume_gives_the_rest_bit_for_bit(start, threads):
  counts = {"a": 9, "b": 2, "c": 14, "d": 5, "e": 1}
  config = dataclasses.replace(CONFIG, threads=threads, prefetch=3)
  first = list(job(counts, config=config).batches())
  resumed = list(job(counts, config=config).batches(start))
  assert len(first) == len(job(counts, config=config))
  assert len(resumed) == max(len(first) - start, 0)
  for ours, theirs in zip(first[start:], resumed, strict=True):
    assert_same(ours, theirs)


def test_places_hold_distinct_tasks_and_out_of_range_ids():
  own = job({"a": 9, "b": 2, "c": 14, "d": 5, "e": 1}, steps=12)
  empty_places = 0
  for batch in own.batches():
    assert batch.wave_KBS.shape[:2] == batch.lengths_KB.shape == (4, 3)
    assert batch.wave_KBS.shape[2] in BOUNDS
    assert len(set(batch.task_K.tolist())) == 4
    for k, task in enumerate(batch.task_K.tolist()):
      if batch.lengths_KB[k].any():
        assert 0 <= task < 5
        continue
      empty_places += 1
      assert task == 5 + k
      assert not batch.name_hash_K2[k].any()
      assert batch.own_step_K[k] == 0
      assert batch.settings_K.steps[k] == 1
      assert batch.shared_weight_K[k] == 0
      assert not batch.wave_KBS[k].any()
      assert not batch.labels_KBU[k].any()
      assert not batch.augment_KB[k].any()
    past_KBS = np.arange(batch.wave_KBS.shape[2]) >= batch.lengths_KB[..., None]
    assert not batch.wave_KBS[past_KBS].any()
  assert empty_places > 0


def test_batches_have_the_types_and_shapes_of_the_contract():
  own = job({"a": 5, "b": 5})
  batch = own[0]
  assert own.places == 2  # no more places than tasks
  dtypes = [leaf.dtype.name for leaf in jax.tree.leaves(batch)]
  assert dtypes == [
    *("float32", "int32", "int32", "int32", "bool", "int32", "uint32", "int32"),
    *("int32", "float64", "int32", "int32", "int32", "float64", "float64"),
    "float32",
  ]
  assert batch.labels_KBU.shape == (2, 3, 8)
  assert {own[i].wave_KBS.shape[2] for i in range(len(own))} <= set(BOUNDS)


def test_draws_differ_by_step_and_by_place():
  """One recording, listed three times: it never sounds the same twice."""
  own = loader([("a/0", "a", "ab", 900)] * 3, ["a"], steps=8)
  sounds = {wave_S.tobytes() for i in range(8) for wave_S in own[i].wave_KBS[0]}
  assert len(sounds) == 24


def test_unalignable_transcripts_are_left_out_and_named():
  rows = [
    ("a/0", "a", "abab", 900),
    ("a/1", "a", "aabb", 900),
    ("a/2", "a", "abcabcabcabc", 900),
  ]
  config = dataclasses.replace(CONFIG, speed_high=1.0)
  own = loader(
    rows, ["a"], config=config, frames=lambda samples: samples // 200 + 1
  )
  assert own.roster.unalignable == ("a/1", "a/2")
  for batch in own.batches():
    assert batch.label_lengths_KB.tolist() == [[4, 0, 0]]
    assert batch.labels_KBU.shape == (1, 3, 8)  # not wide enough for a/2


def test_transcripts_of_more_labels_than_can_be_said_are_left_out():
  rows = [
    ("a/0", "a", "abab", 900),
    ("a/1", "a", "ab" * 1000, 900),
    ("b/0", "b", "abc", 900),
  ]
  own = loader(rows, ["a", "b"], most_labels=4)
  assert own[0].labels_KBU.shape == (2, 3, 8)
  assert own.roster.unspoken == ("a/1",)
  assert own.roster.balance.own_steps_N.tolist() == [9, 9]
  assert {each for row in own.roster.members for each in row} == {0, 2}
  (line, *_) = own.roster.describe()
  assert line == (
    "left out 1 utterances whose transcripts have more than the 4 labels that the "
    "decoder can say, such as a/1"
  )
  with pytest.raises(InputError, match=r"task 'a'.*at most 3 labels, got none"):
    loader(rows, ["a", "b"], most_labels=3)


def test_alignment_is_judged_at_the_highest_speed():
  """900 samples are 720 at speed 1.25: three frames for four labels."""
  rows = [("a/0", "a", "abab", 900), ("a/1", "a", "aa", 900)]
  for high, expected in [(1.0, ()), (1.25, ("a/0",))]:
    config = dataclasses.replace(CONFIG, speed_high=high)
    own = loader(rows, ["a"], config=config, frames=lambda n: n // 200)
    assert own.roster.unalignable == expected
  with pytest.raises(InputError, match=r"task 'a'.*none among its 1"):
    loader(rows[:1], ["a"], config=config, frames=lambda n: n // 200)


def test_what_the_tokenizer_cannot_spell_is_told():
  rows = [
    ("a/0", "a", "abéß", 900),
    ("a/1", "a", "éa", 900),
    ("a/2", "a", "ab", 900),
  ]
  own = loader(rows, ["a"])
  assert own.roster.describe() == [
    "left out characters that the backbone's tokenizer can't spell: ß é "
    "(2 utterances)"
  ]
  labels = sorted(
    own[0].labels_KBU[0, b, :n].tolist()
    for b, n in enumerate(own[0].label_lengths_KB[0])
  )
  assert labels == [[1], [1, 2], [1, 2]]
  many = "".join(map(chr, range(0x4E00, 0x4E00 + 50)))
  (line,) = loader([("a/0", "a", f"a{many}", 900)], ["a"]).roster.describe()
  assert " and 20 others (1 utterances)" in line


UNBALANCED = dataclasses.replace(
  CONFIG,
  max_task_utterances=8,
  temperature=1.0,
  reference_utterances=4,
  balance=0.5,
)


@given(
  counts=st.lists(st.integers(1, 14), min_size=2, max_size=6),
  shuffle=st.randoms(use_true_random=False),
)
@settings(max_examples=15, deadline=None)
def test_an_unbalanced_task_sees_the_same_alone_and_with_others(
  counts, shuffle
):
  names = [f"speaker-{i}" for i in range(len(counts))]
  rows = {n: rows_of(n, count=c) for n, c in zip(names, counts, strict=True)}
  together = [row for own in rows.values() for row in own]
  shuffle.shuffle(together)
  joint = loader(together, names, config=UNBALANCED, steps=6)
  for place, (name, count) in enumerate(zip(names, counts, strict=True)):
    alone = loader(rows[name], [name], config=UNBALANCED, steps=6)
    seen = history(joint, name, row=place)
    assert sorted(seen) == list(range(max(1, round(6 * min(count, 8) / 4))))
    assert seen == history(alone, name, row=0)


def test_batches_carry_own_steps_and_weights():
  counts = {"a": 2, "b": 4, "c": 20}
  own = job(counts, config=UNBALANCED, steps=6, weights={"b": 3.0})
  balance = own.roster.balance
  assert balance.names == ("a", "b", "c")
  assert balance.own_steps_N.tolist() == [3, 6, 12]
  assert balance.utterances.tolist() == [2, 4, 8]
  assert balance.capped.tolist() == [0, 0, 12]
  np.testing.assert_allclose(
    balance.weight_N, [2**0.5 / 3, 1, 0.5**0.5 / 3], rtol=1e-6
  )
  assert own.roster.describe() == [
    "own steps 3 to 12; caps leave out 12 of 26 utterances; weights 0.236 to 1"
  ]
  seen = 0
  for batch in own.batches():
    for k in np.flatnonzero(batch.task_K < 3):
      task = batch.task_K[k]
      assert batch.settings_K.steps[k] == balance.own_steps_N[task]
      assert batch.shared_weight_K[k] == balance.weight_N[task]
      seen += 1
  assert seen == 3 + 6 + 12


def test_unalignable_utterances_do_not_count_for_own_steps():
  rows = [(f"a/{i}", "a", "abab" if i < 4 else "a" * 8, 900) for i in range(9)]
  config = dataclasses.replace(UNBALANCED, max_task_utterances=0)
  own = loader(
    rows, ["a"], config=config, steps=6, frames=lambda samples: samples // 150
  )
  assert len(own.roster.unalignable) == 5
  assert own.roster.balance.own_steps_N.tolist() == [6]


def test_tasks_that_lose_everything_are_named_together():
  rows = [(f"{t}/{i}", t, "a" * 8, 900) for t in "abcdefg" for i in range(2)]
  message = (
    "7 tasks: 'a', 'b', 'c', 'd', 'e' and 2 others: .*got none among their 14;"
  )
  with pytest.raises(InputError, match=message):
    loader(rows, list("abcdefg"), frames=lambda samples: samples // 150)


def test_a_tempered_pool_repeats_small_tasks_and_keeps_its_steps():
  config = dataclasses.replace(
    CONFIG,
    grouping="pooled",
    temperature=1e9,
    max_task_utterances=12,
    utterances_per_task=8,
  )
  rows = [row for t, n in (("a", 40), ("b", 3)) for row in rows_of(t, count=n)]
  own = loader(rows, [POOLED], config=config, steps=3)
  assert len(own) == 3
  assert own.roster.balance.epoch == 24
  assert own.roster.balance.names == ("a", "b")
  assert own.roster.balance.utterances.tolist() == [12, 3]
  assert own.roster.describe() == [
    "caps leave out 28 of 43 utterances; 15 utterances stand 24 times in the "
    "pool"
  ]
  texts = [
    tuple(own[i].labels_KBU[0, b, : own[i].label_lengths_KB[0, b]].tolist())
    for i in range(3)
    for b in range(8)
  ]
  for _, task, text, _ in rows:
    if task == "b":
      assert texts.count(tuple(Characters().encode(text))) >= 4


def test_shares_of_a_pool_are_as_given():
  config = dataclasses.replace(
    CONFIG, grouping="pooled", utterances_per_task=8, task_shares="shares.json"
  )
  rows = [row for t, n in (("a", 40), ("b", 3)) for row in rows_of(t, count=n)]
  own = loader(rows, [POOLED], config=config, shares={"a": 1.0, "b": 0.3})
  assert own.roster.balance.epoch == 40 + 12
  with pytest.raises(InputError, match=r"task_shares.*share of 'a' is small"):
    loader(rows, [POOLED], config=config, shares={"a": 0.001, "b": 1.0})


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
  """A style of everything, with two noises and a room."""
  folder = tmp_path_factory.mktemp("sounds")
  rng = np.random.default_rng(0)
  for name, samples in (("n/1", 400), ("n/2", 5000), ("r/1", 300)):
    path = folder / f"{name}.wav"
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, 0.1 * rng.standard_normal(samples), 16_000)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("HRA_CACHE", str(folder / "cache"))
    yield MultistyleConfig(
      part=0.5,
      noise="either",
      noise_files=str(folder / "n"),
      noises=2,
      reverb="files",
      responses=str(folder / "r"),
      reverb_probability=0.5,
    )


def test_a_task_sounds_the_same_alone_and_with_others(sounds):
  names = ["anna", "bert", "cleo"]
  rows = {n: rows_of(n, count=7) for n in names}
  together = [row for n in reversed(names) for row in rows[n]]
  config = dataclasses.replace(CONFIG, multistyle=sounds, tasks_per_batch=2)
  parts = {"anna": 0.7, "bert": 0.0}
  joint = loader(together, names[::-1], config=config, parts=parts)
  for place, name in enumerate(reversed(names)):
    own = {name: parts[name]} if name in parts else {}
    alone = loader(rows[name], [name], config=config, parts=own)
    seen = history(joint, name, row=place)
    assert seen == history(alone, name, row=0)
    flags = {
      flag for _, each in seen.values() for wave, _, flag in each if wave
    }
    assert flags == ({True} if name == "bert" else {True, False})


def test_what_is_perturbed_is_not_augmented_and_all_else_is(sounds):
  """Batches tell raw utterances, which are theirs bit for bit, from the others."""
  rows = rows_of("a", count=9)
  style = dataclasses.replace(sounds, part=0.3)
  plain = DataConfig(tasks_per_batch=1, utterances_per_task=3)
  config = dataclasses.replace(plain, multistyle=style)
  raw, own = (
    loader(rows, ["a"], config=each, steps=60) for each in (plain, config)
  )
  perturbed = 0
  for clean, batch in zip(raw.batches(), own.batches(), strict=True):
    assert clean.augment_KB.all()
    same_B = (clean.wave_KBS == batch.wave_KBS)[0].all(-1)
    np.testing.assert_array_equal(batch.augment_KB[0], same_B)
    perturbed += int((~same_B).sum())
  assert 0.2 < perturbed / 180 < 0.4
  both = dataclasses.replace(
    config, multistyle=dataclasses.replace(style, mix="both")
  )
  on_top = loader(rows, ["a"], config=both, steps=60)
  for once, twice in zip(own.batches(), on_top.batches(), strict=True):
    assert twice.augment_KB.all()
    assert_same(once, twice._replace(augment_KB=once.augment_KB))


def test_domains_in_a_pool_have_parts_of_their_own(sounds):
  rows = [row for t in "abc" for row in rows_of(t, count=8)]
  plain = dataclasses.replace(
    CONFIG, grouping="pooled", utterances_per_task=6, speed_low=1.0
  )
  plain = dataclasses.replace(
    plain, speed_high=1.0, multistyle=MultistyleConfig()
  )
  domain = {FakeSplit([row])[0].wave_S.tobytes(): row[1] for row in rows}
  config = dataclasses.replace(plain, multistyle=sounds)
  raw = loader(rows, [POOLED], config=plain, steps=12)
  own = loader(
    rows, [POOLED], config=config, steps=12, parts={"a": 0.0, "b": 1.0}
  )
  seen = {"a": set(), "b": set(), "c": set()}
  for clean, batch in zip(raw.batches(), own.batches(), strict=True):
    for b, length in enumerate(clean.lengths_KB[0]):
      name = domain[clean.wave_KBS[0, b, :length].tobytes()]
      seen[name].add(bool(batch.augment_KB[0, b]))
  assert seen == {"a": {True}, "b": {False}, "c": {True, False}}


def test_sounds_that_cannot_be_used_are_told_before_anything_is_read(sounds):
  style = dataclasses.replace(sounds, responses=sounds.responses + "/gone")
  split = FakeSplit(rows_of("a", count=3))
  with pytest.raises(InputError, match=r"r/gone: .*no such file"):
    loader(split, ["a"], config=DataConfig(multistyle=style))
  assert split.reads == []


def test_a_pool_may_lose_all_of_one_speaker():
  rows = [("a/0", "a", "ab", 900), ("b/0", "b", "a" * 8, 900)]
  config = dataclasses.replace(CONFIG, grouping="pooled")
  own = loader(
    rows, [POOLED], config=config, frames=lambda samples: samples // 150
  )
  assert own.roster.unalignable == ("b/0",)
  assert own.roster.balance.utterances.tolist() == [1, 0]


def test_bad_input_is_named():
  rows = rows_of("a", count=3)
  short = dataclasses.replace(CONFIG, max_seconds=0.01)
  with pytest.raises(InputError, match=r"utterance 'a/.*max_seconds = 0.01"):
    loader(rows, ["a"], config=short)
  with pytest.raises(InputError, match="task 'b'"):
    loader(rows, ["a", "b"])
  with pytest.raises(InputError, match=r"tasks_per_batch.*3 processes"):
    job({"a": 3, "b": 2, "c": 1}, processes=3)
  with pytest.raises(InputError, match=r"position.*got 99"):
    loader(rows, ["a"]).batches(99)
  split = FakeSplit(rows)
  own = loader(split, ["a"])
  split.cut = 1
  with pytest.raises(
    InputError, match=r"utterance 'a/.*prepare the data again"
  ):
    next(own.batches())


def evaluation(rows, table, *, config=CONFIG, **kwargs):
  return EvaluationLoader(
    FakeSplit(rows),
    tokenizer=Characters(),
    table=table,
    bounds=BOUNDS,
    config=config,
    **kwargs,
  )


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_evaluation_serves_every_utterance_once_and_unperturbed(processes):
  rows = [row for t in "abc" for row in rows_of(t, count=7)]
  split = FakeSplit(rows)
  table = ["c", "a", "b"]
  seen = []
  for p in range(processes):
    part = part_of(p, processes)
    own = evaluation(rows, table, own=part)
    batches = list(own.batches())
    for batch, indices_K in batches:
      assert batch.wave_KBS.shape[:2] == (6 // processes, 1)
      assert len(indices_K) == 6
      for k, index in enumerate(indices_K[np.asarray(part(6))].tolist()):
        if index < 0:
          assert batch.task_K[k] == 3 + p * (6 // processes) + k
          assert not batch.wave_KBS[k].any()
          continue
        seen.append(index)
        length = batch.lengths_KB[k, 0]
        np.testing.assert_array_equal(
          batch.wave_KBS[k, 0, :length], split[index].wave_S
        )
        assert table[batch.task_K[k]] == split.tasks[index]
        labels = batch.labels_KBU[k, 0, : batch.label_lengths_KB[k, 0]]
        assert labels.tolist() == Characters().encode(split.texts[index])
    assert len(batches) == len(own) == 4
  assert sorted(seen) == list(range(21))


def test_evaluation_refuses_tasks_outside_the_table():
  rows = [row for t in "abc" for row in rows_of(t, count=2)]
  with pytest.raises(InputError, match=r"2 others \('b' first\)"):
    evaluation(rows, ["a"])
  pooled = dataclasses.replace(CONFIG, grouping="pooled")
  (batch, _), *_ = evaluation(rows, [POOLED], config=pooled).batches()
  assert not batch.task_K.any()


def test_loading_hides_behind_the_step():
  """Reading 6 utterances takes 30 ms, a step 30 ms: together not 60."""
  rows = [row for t in "ab" for row in rows_of(t, count=9)]
  config = dataclasses.replace(CONFIG, threads=2, prefetch=4)
  split = FakeSplit(rows, delay=0.005)
  batches = loader(split, ["a", "b"], config=config, steps=15).batches()
  next(batches)
  steps, waited = 0, 0.0
  while True:
    time.sleep(0.03)
    start = time.perf_counter()
    if next(batches, None) is None:
      break
    waited += time.perf_counter() - start
    steps += 1
  assert steps >= 14
  assert waited / steps < 0.02


def test_closing_stops_the_threads_and_what_they_had_ahead():
  before = threading.active_count()
  config = dataclasses.replace(CONFIG, threads=1, prefetch=8)
  split = FakeSplit(rows_of("a", count=9), delay=0.01)
  batches = loader(split, ["a"], config=config).batches()
  next(batches)
  batches.close()
  deadline = time.monotonic() + 5
  while threading.active_count() > before and time.monotonic() < deadline:
    time.sleep(0.01)
  assert threading.active_count() <= before
  assert len(split.reads) <= 3 * 4


def test_nothing_is_made_ahead_without_prefetch():
  split = FakeSplit(rows_of("a", count=9))
  own = loader(split, ["a"], config=dataclasses.replace(CONFIG, prefetch=0))
  batches = own.batches()
  for step in range(3):
    assert_same(next(batches), own[step])
    assert len(split.reads) == 2 * 3 * (step + 1)
