"""The study's comparisons: closed forms, brute force, coverage, a run's files."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import study_statistics as study

from hra.config import EvalConfig
from hra.errors import InputError
from hra.evaluate.metrics import Transcript, score

CONFIG = EvalConfig(bootstrap=400)


def made(errors, *, words=6):
  """Scores of [speakers, utterances] errors."""
  places = list(np.ndindex(*np.shape(errors)))
  return study.scores(
    [f"s{speaker:02d}" for speaker, _ in places],
    utterances=[f"u{place:02d}" for _, place in places],
    errors=np.ravel(errors),
    words=np.full(len(places), words),
  )


def drawn(rng, *, speakers, utterances, gap, spread):
  """Two arms of paired errors; the first's expected WER is `gap` higher.

  A speaker's own gap is Gaussian; arms share each utterance's difficulty.
  """
  base = rng.uniform(0.3, 0.5, speakers)
  own = base + gap + rng.normal(0, spread, speakers)
  hard = rng.normal(0, 0.1, (speakers, utterances, 1))
  chance = rng.random((2, speakers, utterances, 6)) - hard
  return (
    made((chance[0] < own[:, None, None]).sum(axis=2)),
    made((chance[1] < base[:, None, None]).sum(axis=2)),
  )


def test_a_rate_is_all_errors_over_all_words_whatever_their_order():
  arm = study.scores(
    ["b", "a", "b"],
    utterances=["0", "0", "1"],
    errors=[1, 4, 0],
    words=[2, 5, 3],
  )
  back = study.scores(
    ["b", "b", "a"],
    utterances=["1", "0", "0"],
    errors=[0, 1, 4],
    words=[3, 2, 5],
  )
  rate = study.rate(arm, config=CONFIG)
  assert rate.wer == pytest.approx(5 / 10)
  assert rate.low <= rate.wer <= rate.high
  assert study.rate(back, config=CONFIG) == rate


def test_intervals_are_quantiles_of_every_way_to_draw():
  """2 speakers x 2 utterances: 2^2 draws of speakers, 2^2 of each one's own."""
  errors = np.array([[0, 3], [1, 6]])
  rates = [
    (errors[first, list(mine)].sum() + errors[second, list(theirs)].sum()) / 24
    for first, second in itertools.product(range(2), repeat=2)
    for mine in itertools.product(range(2), repeat=2)
    for theirs in itertools.product(range(2), repeat=2)
  ]
  config = dataclasses.replace(CONFIG, bootstrap=40_000)
  arm = made(errors)
  values = np.stack([arm.errors, arm.words], axis=1)
  samples = study._bootstrap(arm, values, config)
  found = samples[:, 0] / samples[:, 1]
  for value in set(rates):
    share = rates.count(value) / len(rates)
    assert np.mean(found == value) == pytest.approx(share, abs=0.01)
  rate = study.rate(arm, config=config)
  assert (rate.low, rate.high) == pytest.approx(
    tuple(np.quantile(rates, [0.025, 0.975])), abs=1 / 24
  )


def test_the_spread_of_a_difference_has_its_closed_form():
  """Var = (var between speakers' means + mean var within / U) / S, by draws."""
  rng = np.random.default_rng(0)
  arm, other = drawn(rng, speakers=20, utterances=10, gap=0.1, spread=0.1)
  config = dataclasses.replace(CONFIG, bootstrap=8000)
  gap = ((arm.errors - other.errors) / 6).reshape(20, 10)
  between = gap.mean(axis=1).var()
  within = gap.var(axis=1).mean() / 10
  deviation = np.sqrt((between + within) / 20)
  found = study.compare(arm, other, config=config).difference
  assert (found.high - found.low) / (2 * 1.96) == pytest.approx(
    deviation, rel=0.05
  )


def test_pairing_narrows_and_a_constant_gap_has_no_width():
  rng = np.random.default_rng(1)
  hard = rng.integers(0, 5, (12, 8))
  found = study.compare(made(hard + 1), made(hard), config=CONFIG)
  assert found.difference == pytest.approx((1 / 6, 1 / 6, 1 / 6))
  assert found.arm.high - found.arm.low > 0.05
  assert found.arm.wer - found.other.wer == pytest.approx(1 / 6)
  assert (found.speakers, found.better, found.worse) == (12, 0, 12)


def test_swapping_the_arms_swaps_the_signs():
  arm, other = drawn(
    np.random.default_rng(2), speakers=9, utterances=7, gap=0.05, spread=0.1
  )
  there = study.compare(arm, other, config=CONFIG)
  back = study.compare(other, arm, config=CONFIG)
  assert back.difference == pytest.approx(
    (-there.difference.wer, -there.difference.high, -there.difference.low)
  )
  assert (back.arm, back.other) == (there.other, there.arm)
  assert (back.better, back.worse) == (there.worse, there.better)


@pytest.mark.parametrize("spread", [0.0, 0.08])
def test_intervals_hold_the_truth_as_often_as_they_say(spread):
  rng = np.random.default_rng(3)
  config = dataclasses.replace(CONFIG, bootstrap=200)
  trials = 400
  held = 0
  for _ in range(trials):
    arm, other = drawn(rng, speakers=24, utterances=12, gap=0.03, spread=spread)
    found = study.compare(arm, other, config=config).difference
    held += found.low <= 0.03 <= found.high
  assert held / trials >= 0.93  # 0.95 less 1.8 standard errors
  if spread:
    assert held / trials < 1.0


def test_utterances_of_one_speaker_are_not_counted_as_independent():
  """Who speaks decides everything here: 40 times the utterances tell no more."""
  rng = np.random.default_rng(4)
  own = rng.integers(0, 7, (10, 1))
  few = study.rate(made(own), config=CONFIG)
  many = study.rate(made(np.repeat(own, 40, axis=1)), config=CONFIG)
  assert many == pytest.approx(few)


def test_seeds_add_speakers_and_compare_by_group():
  rng = np.random.default_rng(5)
  parts = {
    str(seed): drawn(rng, speakers=8, utterances=6, gap=gap, spread=0.02)
    for seed, gap in enumerate((0.2, -0.2))
  }
  named = {
    seed: [
      arm._replace(speakers=np.array([f"{seed}/{s}" for s in arm.speakers]))
      for arm in pair
    ]
    for seed, pair in parts.items()
  }
  arm, other = (
    study.joined([pair[i] for pair in named.values()]) for i in (0, 1)
  )
  groups = {name: name.split("/")[0] for name in arm.speakers}
  found = study.by_group(arm, other, groups=groups, config=CONFIG)
  assert list(found) == ["0", "1"]
  for seed, pair in named.items():
    assert found[seed] == study.compare(*pair, config=CONFIG)
  assert found["0"].difference.low > 0 > found["1"].difference.high
  assert study.compare(arm, other, config=CONFIG).speakers == 16
  with pytest.raises(InputError, match="s00"):
    study.joined([parts["0"][0], parts["1"][0]])


def test_terciles_are_thirds_of_the_speakers():
  severity = {f"s{i}": value for i, value in enumerate([5, 1, 4, 1, 3, 9, 2])}
  found = study.terciles(severity)
  assert [
    [name for name in found if found[name] == label] for label in study.TERCILES
  ] == [["s1", "s3", "s6"], ["s4", "s2"], ["s0", "s5"]]
  with pytest.raises(InputError, match="at least 3"):
    study.terciles({"a": 1.0, "b": 2.0})


@pytest.mark.parametrize("field", ["speakers", "utterances", "words"])
def test_arms_of_other_utterances_are_not_compared(field):
  arm = made([[1, 2], [0, 3]])
  values = getattr(arm, field).copy()
  values[-1] = 7 if field == "words" else "other"
  with pytest.raises(InputError, match=field):
    study.compare(arm, arm._replace(**{field: values}), config=CONFIG)


def test_scores_that_say_nothing_are_refused():
  with pytest.raises(InputError, match="at least one utterance"):
    study.joined([])
  with pytest.raises(InputError, match="'u' of 'a' twice"):
    study.scores(["a", "a"], utterances=["u", "u"], errors=[0, 1], words=[1, 1])
  with pytest.raises(InputError, match="references with words"):
    study.rate(made([[1, 2]], words=0), config=CONFIG)
  arm = made([[1], [2]])
  with pytest.raises(InputError, match="a group of 's01'"):
    study.by_group(arm, arm, groups={"s00": "x"}, config=CONFIG)


def write_run(folder, *, alone):
  folder.mkdir()
  transcripts = [
    Transcript("a-0", "anna", "one two three", "one too", alone, seconds=1.0),
    Transcript("b-0", "bert", "four five", "FOUR, five!", alone, seconds=1.0),
  ]
  results = score(
    transcripts,
    EvalConfig(bootstrap=100),
    split="test",
    parameters={"backbone": 9, "shared": 4, "per_task": 2},
    adapter="hra",
    train_utterances={},
  )
  (folder / "results.json").write_text(json.dumps(results))
  lines = [json.dumps(dataclasses.asdict(item)) for item in transcripts]
  (folder / "transcripts.jsonl").write_text("\n".join(lines) + "\n")
  (folder / "config.json").write_text("{}")
  (folder / "tasks.json").write_text('{"tasks": ["anna", "bert"]}')
  (folder / "metrics.jsonl").write_text("")
  return results


def test_a_run_is_read_as_it_was_scored(tmp_path):
  results = write_run(tmp_path / "run", alone="four")
  scored = study.read(tmp_path / "run", seed=2)
  assert scored.arm.speakers.tolist() == ["2/anna", "2/bert"]
  assert scored.arm.errors.tolist() == [2, 0]
  assert scored.frozen.errors.tolist() == [3, 1]
  assert scored.parameters == results["parameters"]
  rate = study.rate(scored.arm, config=CONFIG)
  assert rate.wer == pytest.approx(results["overall"]["wer"])
  write_run(tmp_path / "other", alone=None)
  assert study.read(tmp_path / "other", seed=2).frozen is None
  (tmp_path / "run" / "transcripts.jsonl").unlink()
  with pytest.raises(InputError, match=r"transcripts\.jsonl"):
    study.read(tmp_path / "run", seed=2)


def test_figures_are_json():
  arm, other = made([[1, 2]]), made([[0, 2]])
  found = study.figures(study.compare(arm, other, config=CONFIG))
  assert json.loads(json.dumps(found)) == found
  assert found["difference"]["wer"] == pytest.approx(1 / 12)
