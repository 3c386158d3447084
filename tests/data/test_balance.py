"""Caps, temperature, weights: each task's own, whoever else is there."""

import dataclasses
import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hra import config_tree
from hra.config import Config, DataConfig
from hra.data import balance
from hra.dims import SAMPLE_RATE
from hra.errors import InputError

COUNTS = st.dictionaries(
  st.sampled_from(["anna", "bert", "cleo", "dora"]),
  st.integers(1, 40),
  min_size=1,
)


def utterances(counts, *, seed=0):
  """(ids, tasks, samples), shuffled; a task's own are the same in any corpus."""
  told = []
  for name, count in counts.items():
    rng = np.random.default_rng([seed, *name.encode()])
    lengths = rng.integers(SAMPLE_RATE // 2, 4 * SAMPLE_RATE, count)
    told += [(f"{name}/{i}", name, int(n)) for i, n in enumerate(lengths)]
  np.random.default_rng(seed).shuffle(told)
  ids, tasks, samples = zip(*told, strict=True)
  return list(ids), list(tasks), np.asarray(samples, np.int64)


def used_ids(counts, *, seed=0, **caps):
  ids, tasks, samples = utterances(counts)
  selection = balance.select(ids, tasks, names=sorted(counts))
  used = selection.where(
    balance.within_caps(
      selection,
      ids=ids,
      samples=samples,
      config=DataConfig(**caps),
      seed=seed,
    )
  )
  chosen = [ids[i] for i in used.indices]
  assert chosen == sorted(chosen)
  seconds = dict.fromkeys(counts, 0.0)
  for i in used.indices:
    seconds[tasks[i]] += samples[i] / SAMPLE_RATE
  return set(chosen), seconds


def of(ids, name):
  return {each for each in ids if each.startswith(f"{name}/")}


@given(COUNTS, st.integers(0, 12), st.sampled_from([0.0, 0.1, 5.0, 20.0]))
@settings(max_examples=60, deadline=None)
def test_caps_hold_for_each_task_by_itself(counts, most, seconds):
  caps = {"max_task_utterances": most, "max_task_seconds": seconds}
  used, spoken = used_ids(counts, **caps)
  for name, count in counts.items():
    own = of(used, name)
    assert 1 <= len(own) <= (most or count)
    assert spoken[name] <= (seconds or np.inf) or len(own) == 1
    alone, _ = used_ids({name: count}, **caps)
    assert alone == own


@given(COUNTS, st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_a_larger_cap_keeps_what_a_smaller_one_chose(counts, low, more):
  for cap in ("max_task_utterances", "max_task_seconds"):
    small, _ = used_ids(counts, **{cap: low})
    large, _ = used_ids(counts, **{cap: low + more})
    assert small <= large


def test_caps_fill_up_and_another_seed_chooses_others():
  counts = {"anna": 40, "bert": 3}
  used, _ = used_ids(counts, max_task_utterances=10)
  assert (len(of(used, "anna")), len(of(used, "bert"))) == (10, 3)
  other, _ = used_ids(counts, max_task_utterances=10, seed=1)
  assert used != other
  first = {f"anna/{i}" for i in sorted(map(str, range(40)))[:10]}
  assert of(used, "anna") != first  # by hash, not by id
  _, spoken = used_ids(counts, max_task_seconds=30.0)
  assert 26 < spoken["anna"] <= 30


def steps_of(counts, *, steps=200, **changes):
  config = DataConfig(**changes)
  return balance.own_steps(np.asarray(counts), steps=steps, config=config)


def test_own_steps_follow_the_data_by_the_temperature():
  counts = [1, 25, 100, 400]
  assert steps_of(counts).tolist() == [200] * 4
  assert steps_of(counts, temperature=1.0).tolist() == [2, 50, 200, 800]
  assert steps_of(counts, temperature=2.0).tolist() == [20, 100, 200, 400]
  assert steps_of(counts, temperature=1e9).tolist() == [200] * 4
  assert steps_of([1], steps=3, temperature=1.0).tolist() == [1]
  assert steps_of([25], temperature=1.0, reference_utterances=50) == [100]
  assert steps_of(counts, steps=0, temperature=1.0).tolist() == [0] * 4
  pooled = steps_of([525], temperature=1.0, grouping="pooled")
  assert pooled.tolist() == [200]


def _repeats(selection, ids, config, *, names=("anna", "bert"), shares=None):
  return balance.repeats(
    selection,
    ids=ids,
    names=names,
    shares=shares or {},
    config=config,
    seed=0,
  )


@pytest.mark.parametrize("temperature", [1.0, 1.5, 3.0, 1e9])
def test_shares_of_a_pool_follow_the_temperature(temperature):
  counts = {"anna": 4000, "bert": 900, "cleo": 250, "dora": 60}
  ids, tasks, _ = utterances(counts)
  names = sorted(counts)
  selection = balance.select(ids, tasks, names=names)
  config = DataConfig(grouping="pooled", temperature=temperature)
  times = _repeats(selection, ids, config, names=names)
  assert times.min() == 1  # nothing is left out
  own_n = selection.counts(names)
  exact = (own_n / own_n.max()) ** (1 / temperature - 1)
  epoch = selection.where(times)
  found = epoch.counts(names) / own_n
  np.testing.assert_allclose(found, exact, atol=2.5 / np.sqrt(own_n).min())
  for name, rate in zip(range(4), exact, strict=True):
    own = times[selection.owners == name]
    assert set(own) <= {int(rate), int(rate) + 1}
  share = epoch.counts(names) / len(epoch.indices)
  expected = own_n ** (1 / temperature)
  np.testing.assert_allclose(share, expected / expected.sum(), rtol=0.06)


def test_a_pool_is_left_alone_without_a_temperature():
  ids, tasks, _ = utterances({"anna": 9, "bert": 2})
  selection = balance.select(ids, tasks, names=["anna", "bert"])
  for config in (
    DataConfig(grouping="pooled"),
    DataConfig(grouping="pooled", temperature=1.0),
    DataConfig(temperature=3.0),
  ):
    times = _repeats(selection, ids, config)
    assert times.tolist() == [1] * 11


@pytest.mark.parametrize(
  "shares",
  [
    {"anna": 1.0, "bert": 1.0, "cleo": 1.0},
    {"anna": 0.9, "bert": 0.09, "cleo": 0.01},
    {"anna": 1e-300, "bert": 3e-300, "cleo": 2e-300},
  ],
)
def test_shares_of_a_pool_are_as_given(shares):
  counts = {"anna": 4000, "bert": 900, "cleo": 250}
  ids, tasks, _ = utterances(counts)
  names = sorted(counts)
  selection = balance.select(ids, tasks, names=names)
  config = DataConfig(grouping="pooled", task_shares="s.json")
  times = _repeats(selection, ids, config, names=names, shares=shares)
  assert times.min() == 1  # nothing is left out
  found = selection.where(times).counts(names)
  expected = np.asarray([shares[name] for name in names])
  np.testing.assert_allclose(
    found / found.sum(), expected / expected.sum(), atol=0.01
  )


def test_a_pool_grows_within_bounds():
  ids, tasks, _ = utterances({"anna": 400, "bert": 2})
  names = ["anna", "bert"]
  selection = balance.select(ids, tasks, names=names)
  config = DataConfig(grouping="pooled", task_shares="s.json")

  def repeats(**shares):
    return _repeats(selection, ids, config, shares=shares)

  assert repeats(anna=1.0, bert=90.0).sum() == pytest.approx(91 * 400, rel=0.01)
  for share in (101.0, 1e300):
    with pytest.raises(InputError, match=r"100 times at most.*of 'anna'"):
      repeats(anna=1.0, bert=share)
  with pytest.raises(InputError, match="100 times at most"):
    repeats(anna=5e-324, bert=1.0)


def test_tasks_without_data_do_not_count_for_shares():
  ids, tasks, _ = utterances({"anna": 40, "bert": 20})
  names = ["anna", "bert", "cleo"]
  selection = balance.select(ids, tasks, names=names)
  config = DataConfig(grouping="pooled", task_shares="s.json")
  shares = {"anna": 1.0, "bert": 1.0, "cleo": 1e-9}
  times = _repeats(selection, ids, config, names=names, shares=shares)
  assert selection.where(times).counts(names).tolist() == [40, 40, 0]


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ('{"anna": 1}', r"shares of all 2 tasks.*none of 'bert' \(1 are absent"),
    (
      '{"anna": 1, "bert": 0}',
      "'bert': expected a finite share above 0, got 0",
    ),
    ('{"anna": 1, "bert": 1e999}', "expected a finite share above 0, got inf"),
    ('{"anna": 1, "cleo": 1}', "expected names of the 2 tasks, got 'cleo'"),
  ],
)
def test_shares_are_of_all_tasks_of_a_pool(tmp_path, text, message):
  path = tmp_path / "shares.json"
  path.write_text(text)
  with pytest.raises(InputError, match=message):
    balance.read_shares(path, tasks=["anna", "bert"])
  path.write_text('{"anna": 1, "bert": 0.5}')
  told = balance.read_shares(path, tasks=["anna", "bert"])
  assert told == {"anna": 1.0, "bert": 0.5}
  assert balance.read_shares("", tasks=["anna"]) == {}


def test_weights_are_the_given_ones_times_the_balance():
  names, own_n = ["a", "b", "c"], np.asarray([25, 100, 400])
  weights = balance.shared_weights(
    names, own_n, given={"a": 0.5, "c": 0.0}, config=DataConfig()
  )
  assert weights.dtype == np.float32
  assert weights.tolist() == [0.5, 1, 0]
  for power, expected in ((1.0, [1, 0.5, 0.125]), (0.5, [1, 1, 0.5])):
    weights = balance.shared_weights(
      names, own_n, given={"a": 0.5}, config=DataConfig(balance=power)
    )
    np.testing.assert_allclose(weights, expected)


@pytest.mark.parametrize("factor", [3.0, 1e39, 1e-300])
def test_a_common_factor_of_weights_changes_nothing(factor):
  names, own_n = ["a", "b", "c"], np.asarray([25, 100, 400])
  config = DataConfig(balance=1.0)
  given = {"a": 0.5, "b": 1.0, "c": 4.0}
  scaled = {name: factor * weight for name, weight in given.items()}
  np.testing.assert_allclose(
    balance.shared_weights(names, own_n, given=scaled, config=config),
    balance.shared_weights(names, own_n, given=given, config=config),
    rtol=1e-6,
  )
  alike = dict.fromkeys(names, factor)
  weights = balance.shared_weights(
    names, own_n, given=alike, config=DataConfig()
  )
  assert weights.tolist() == [1, 1, 1]


@pytest.mark.parametrize("given", [{"b": 1e39}, {"a": 1e-45}, {"b": 1e308}])
def test_weights_too_far_apart_are_refused(given):
  names, own_n = ["a", "b"], np.asarray([100, 100])
  message = "task 'a'.*float32 can hold, got .* of that of task 'b'; bring"
  with pytest.raises(InputError, match=message):
    balance.shared_weights(names, own_n, given=given, config=DataConfig())


def test_with_steps_by_data_the_balance_gives_tasks_the_same_say():
  own_n = np.asarray([20, 100, 3000])
  config = DataConfig(temperature=1.0, balance=1.0)
  steps = balance.own_steps(own_n, steps=200, config=config)
  weights = balance.shared_weights(
    ["a", "b", "c"], own_n, given={}, config=config
  )
  np.testing.assert_allclose(steps * weights, steps[0], rtol=1e-6)


def test_weights_are_read(tmp_path):
  path = tmp_path / "weights.json"
  path.write_text(json.dumps({"anna": 0.5, "bert": 2}))
  weights = balance.read_weights(path, tasks=["anna", "bert", "cleo"])
  assert weights == {"anna": 0.5, "bert": 2.0}
  assert balance.read_weights("", tasks=["anna"]) == {}


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ('{"ana": 1}', "names of the 2 tasks, got 'ana'; did you mean 'anna'"),
    ('{"anna": -1}', "'anna': expected a finite weight of at least 0, got -1"),
    ('{"anna": NaN}', "'anna': expected a finite weight.*got nan"),
    ('{"anna": Infinity}', "'anna': expected a finite weight.*got inf"),
    ('{"anna": true}', "'anna': expected a finite weight.*got True"),
    ('{"anna": "2"}', "'anna': expected a finite weight.*got '2'"),
    ('{"anna": 1, "anna": 2}', "expected each name once, got 'anna' twice"),
    ("[1, 2]", "expected a JSON object of task names and weights, got list"),
    ('{"anna": 1', "expected a JSON object.*got Expecting"),
    ("\udcff", "expected a JSON object.*got 'utf-8'"),
    (None, "expected a JSON object.*got no such file"),
    (f'{{"anna": 1{"0" * 400}}}', "'anna': expected a finite weight.*got 1000"),
    (f'{{"anna": {"9" * 5000}}}', "expected a JSON object.*got Exceeds"),
    ("[" * 100_000, "expected a JSON object.*got maximum recursion depth"),
  ],
)
def test_a_bad_file_of_weights_is_one_line(tmp_path, text, message):
  path = tmp_path / "weights.json"
  if text is not None:
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
  with pytest.raises(InputError, match=rf"weights\.json.*{message}") as error:
    balance.read_weights(path, tasks=["anna", "bert"])
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"temperature": -1.0}, r"data\.temperature: expected 0 \(none\), or 1"),
    ({"temperature": 0.5}, r"data\.temperature: expected 0 \(none\), or 1"),
    ({"temperature": float("nan")}, r"data\.temperature: expected a finite"),
    ({"balance": -0.1}, r"data\.balance: expected a number between 0 and 1"),
    ({"balance": 2.0}, r"data\.balance: expected a number between 0 and 1"),
    ({"reference_utterances": 0}, r"reference_utterances: expected at least 1"),
    ({"max_task_utterances": -1}, "max_task_utterances: expected at least 0"),
    ({"max_task_seconds": -1.0}, "max_task_seconds: expected at least 0"),
    (
      {"grouping": "pooled", "task_weights": "w.json"},
      "task_weights: expected none with data.grouping 'pooled' .*temperature",
    ),
    (
      {"grouping": "pooled", "balance": 1.0},
      "balance: expected 0 with data.grouping 'pooled' .*temperature",
    ),
  ],
)
def test_a_setting_that_cannot_stand_is_named(changes, message):
  config = Config()
  config.data = dataclasses.replace(config.data, **changes)
  with pytest.raises(config_tree.ConfigError, match=message):
    config_tree.validate(config)


def test_what_is_alike_says_nothing():
  same = balance.Balance(
    names=("a", "b"),
    utterances=np.asarray([10, 20]),
    seconds=np.asarray([30.0, 50.0]),
    capped=np.zeros(2, np.int64),
    epoch=30,
    steps=9,
    own_steps_N=np.asarray([9, 9]),
    weight_N=np.ones(2, np.float32),
  )
  assert same.describe() == ""
  other = same._replace(
    own_steps_N=np.asarray([20, 2600]),
    capped=np.asarray([0, 1203]),
    weight_N=np.asarray([0.2, 3], np.float32),
  )
  assert other.describe() == (
    "own steps 20 to 2,600; caps leave out 1,203 of 1,233 utterances; "
    "weights 0.2 to 3"
  )
  assert same._replace(steps=8).describe() == "own steps 9"
  pool = same._replace(epoch=45)
  assert pool.describe() == "30 utterances stand 45 times in the pool"


def test_a_million_utterances_are_chosen_in_seconds():
  """A fifth of them here: 200,000 of 2,000 tasks."""
  ids = [f"speaker-{i % 2000}/{i}" for i in range(200_000)]
  tasks = [each.partition("/")[0] for each in ids]
  names = sorted(set(tasks))
  start = time.process_time()
  selection = balance.select(ids, tasks, names=names)
  config = DataConfig(max_task_utterances=10)
  used = selection.where(
    balance.within_caps(
      selection,
      ids=ids,
      samples=np.full(len(ids), 16_000),
      config=config,
      seed=0,
    )
  )
  assert time.process_time() - start < 4
  assert (used.counts(names) == 10).all()
