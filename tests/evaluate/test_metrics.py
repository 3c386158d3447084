"""Scoring: against jiwer, closed forms, brute force and coverage."""

import dataclasses
import itertools
import json
import subprocess
import sys

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hra import config_tree
from hra.config import EvalConfig
from hra.errors import InputError
from hra.evaluate.metrics import (
  Transcript,
  count_edits,
  resample,
  score,
  worst,
)

PARAMETERS = {"backbone": 1000, "shared": 10, "per_task": 5}
_TEXT = st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=6).map(
  " ".join
)


def _transcript(
  id: str, reference: str, heard: str, alone: str | None, task: str = "anna"
) -> Transcript:
  return Transcript(id, task, reference, heard, alone, seconds=1.0)


def _score(transcripts, **changes):
  return score(
    transcripts,
    dataclasses.replace(EvalConfig(bootstrap=200), **changes),
    split="test",
    parameters=PARAMETERS,
    adapter="hra",
    train_utterances={"anna": 40},
  )


def _noisy(rng, utterances, *, rate, alone_rate, task="anna", length=6):
  """Word errors with a difficulty per utterance that both systems share."""

  def heard(probabilities):
    drop = rng.random(length) < probabilities
    return " ".join("x" if bad else "w" for bad in drop)

  transcripts = []
  for index in range(utterances):
    hard = rng.beta(0.5, 0.5) * 2
    transcripts.append(
      _transcript(
        f"{task}-{index:04d}",
        " ".join(["w"] * length),
        heard(min(1, rate * hard)),
        heard(min(1, alone_rate * hard)),
        task,
      )
    )
  return transcripts


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_TEXT, _TEXT), min_size=1, max_size=5))
def test_count_edits_agrees_with_jiwer_utterance_by_utterance(pairs):
  references, hypotheses = zip(*pairs, strict=True)
  for unit, process in (
    ("word", jiwer.process_words),
    ("character", jiwer.process_characters),
  ):
    edits = count_edits(references, hypotheses, unit=unit)
    for index, (reference, hypothesis) in enumerate(pairs):
      output = process(reference, hypothesis)
      assert edits.substitutions[index] == output.substitutions
      assert edits.deletions[index] == output.deletions
      assert edits.insertions[index] == output.insertions
      assert edits.length[index] == (
        output.hits + output.substitutions + output.deletions
      )


def test_rates_are_sums_over_sums_and_equal_jiwer():
  references = ["a b c", "d", "e f g h"]
  heard = ["a x c", "d d", "e f"]
  alone = ["", "q", "e f g h"]
  results = _score(
    [
      _transcript(str(index), *texts)
      for index, texts in enumerate(zip(references, heard, alone, strict=True))
    ]
  )
  overall = results["overall"]
  assert overall["wer"] == pytest.approx(jiwer.wer(references, heard))
  assert overall["backbone_wer"] == pytest.approx(jiwer.wer(references, alone))
  assert overall["cer"] == pytest.approx(jiwer.cer(references, heard))
  assert overall["wer"] == pytest.approx(4 / 8)
  assert overall["difference"] == pytest.approx(4 / 8 - 4 / 8)
  assert (
    overall["substitutions"],
    overall["deletions"],
    overall["insertions"],
  ) == (1, 2, 1)
  assert (overall["words"], overall["utterances"]) == (8, 3)


def test_results_hold_the_published_schema_and_are_json():
  rng = np.random.default_rng(0)
  results = _score(
    _noisy(rng, 9, rate=0.1, alone_rate=0.5)
    + _noisy(rng, 9, rate=0.1, alone_rate=0.5, task="bert")
  )
  assert {"split", "overall", "tasks", "parameters", "adapter"} <= set(results)
  assert set(results["tasks"]) == {"anna", "bert"}
  assert {
    "wer",
    "wer_low",
    "wer_high",
    "backbone_wer",
    "words",
    "utterances",
    "train_utterances",
  } <= set(results["tasks"]["anna"])
  assert results["tasks"]["anna"]["train_utterances"] == 40
  assert results["tasks"]["bert"]["train_utterances"] is None
  assert results["parameters"] == PARAMETERS
  assert results["normalizer"].startswith("basic")
  scoring = config_tree.from_dict(EvalConfig, results["scoring"])
  assert scoring == EvalConfig(bootstrap=200)
  assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_mean_task_wer_weighs_tasks_alike():
  results = _score(
    [
      _transcript("1", "a b c d", "a b c d", "a b c d"),
      _transcript("2", "a", "x", "a", "bert"),
    ]
  )
  assert results["overall"]["wer"] == pytest.approx(1 / 5)
  assert results["overall"]["mean_task_wer"] == pytest.approx(1 / 2)
  assert results["overall"]["mean_task_backbone_wer"] == 0


def test_text_is_normalised_before_it_is_compared():
  results = _score([_transcript("1", "Hello, World.", "hello world", "HELLO")])
  assert results["overall"]["wer"] == 0
  assert results["overall"]["backbone_wer"] == pytest.approx(1 / 2)
  assert results["overall"]["relative_reduction"] == pytest.approx(1)


def test_an_empty_reference_counts_insertions_as_errors():
  results = _score(
    [
      _transcript("1", "a b", "a b", "a b"),
      _transcript("2", "...", "one two three", ""),
    ]
  )
  assert results["overall"]["wer"] == pytest.approx(3 / 2)
  assert results["overall"]["insertions"] == 3
  assert np.isfinite(results["overall"]["wer_high"])


def test_a_task_without_words_has_no_rate_and_harms_no_other():
  silent = [
    _transcript("1", "", "noise", "", "silent"),
    _transcript("2", "", "", "", "silent"),
  ]
  spoken = [_transcript("1", "a b", "a x", "x x")]
  results = _score(silent + spoken)
  task = results["tasks"]["silent"]
  for key in (
    "wer",
    "wer_low",
    "wer_high",
    "cer",
    "backbone_wer",
    "difference",
  ):
    assert task[key] is None
  assert task["insertions"] == 1
  assert results["overall"]["mean_task_wer"] == pytest.approx(1 / 2)


def test_without_a_backbone_its_figures_are_absent():
  results = _score([_transcript("1", "a b", "a x", None)])
  for key in ("backbone_wer", "difference", "relative_reduction"):
    assert results["overall"][key] is None
  assert results["overall"]["mean_task_backbone_wer"] is None
  assert results["overall"]["wer"] == pytest.approx(1 / 2)


@pytest.mark.parametrize(
  ("transcripts", "message"),
  [
    ([], "at least one utterance"),
    ([_transcript("1", "a", "a", "a")] * 2, "each utterance once"),
    (
      [_transcript("1", "a", "a", "a"), _transcript("2", "a", "a", None)],
      "for every utterance or for none",
    ),
  ],
)
def test_unusable_transcripts_are_refused(transcripts, message):
  with pytest.raises(InputError, match=message):
    _score(transcripts)


def test_the_order_of_utterances_changes_nothing():
  transcripts = _noisy(np.random.default_rng(1), 12, rate=0.2, alone_rate=0.4)
  assert _score(transcripts) == _score(transcripts[::-1])


def test_other_tasks_do_not_move_a_task_and_seeds_do():
  rng = np.random.default_rng(2)
  anna = _noisy(rng, 12, rate=0.2, alone_rate=0.4)
  other = _noisy(rng, 30, rate=0.2, alone_rate=0.4, task="aaron")
  alone = _score(anna)["tasks"]["anna"]
  assert _score(other + anna)["tasks"]["anna"] == alone
  assert _score(anna, seed=1)["tasks"]["anna"] != alone


def test_resample_draws_whole_utterances_with_replacement():
  values = np.array([[1, 10], [2, 20], [4, 40]])
  sums = resample(values, np.random.default_rng(0), resamples=6000)
  np.testing.assert_array_equal(sums[:, 1], 10 * sums[:, 0])
  exact = [sum(drawn) for drawn in itertools.product((1, 2, 4), repeat=3)]
  for total in set(exact):
    assert np.mean(sums[:, 0] == total) == pytest.approx(
      exact.count(total) / len(exact), abs=0.025
    )


def test_resample_in_chunks_equals_the_whole(monkeypatch):
  values = np.random.default_rng(0).integers(0, 9, (7, 2))
  whole = resample(values, np.random.default_rng(1), resamples=50)
  monkeypatch.setattr("hra.evaluate.metrics._CHUNK", 21)
  chunked = resample(values, np.random.default_rng(1), resamples=50)
  np.testing.assert_array_equal(whole, chunked)


def test_interval_equals_the_exact_bootstrap_of_three_utterances():
  errors, words = np.array([0, 1, 3]), np.array([4, 2, 3])
  transcripts = [
    _transcript("1", "w w w w", "w w w w", "w w w w"),
    _transcript("2", "w w", "x w", "w w"),
    _transcript("3", "w w w", "x x x", "w w w"),
  ]
  draws = np.array(list(itertools.product(range(3), repeat=3)))
  exact = errors[draws].sum(1) / words[draws].sum(1)
  task = _score(transcripts, bootstrap=20000, confidence=0.5)["tasks"]["anna"]
  # The 27 draws are the whole distribution: quantiles are atoms of it.
  low, high = np.quantile(exact, [0.25, 0.75], method="inverted_cdf")
  assert task["wer_low"] == pytest.approx(low)
  assert task["wer_high"] == pytest.approx(high)


def test_one_utterance_has_no_interval():
  task = _score([_transcript("1", "a b", "a x", "a b")])["tasks"]["anna"]
  assert task["wer"] == pytest.approx(1 / 2)
  assert task["wer_low"] is None
  assert task["difference_high"] is None


def test_intervals_cover_the_true_rate_about_as_often_as_they_say():
  rng = np.random.default_rng(3)
  trials, rate, covered, covered_difference = 200, 0.2, 0, 0
  for _ in range(trials):
    task = _score(_noisy(rng, 60, rate=rate, alone_rate=0.4), confidence=0.9)[
      "tasks"
    ]["anna"]
    covered += task["wer_low"] <= rate <= task["wer_high"]
    covered_difference += (
      task["difference_low"] <= rate - 0.4 <= task["difference_high"]
    )
  # Binomial(200, 0.9): sd 4.2; percentile intervals run a little short.
  assert 163 <= covered <= 195
  assert 163 <= covered_difference <= 195


def test_pairing_narrows_the_interval_of_correlated_systems():
  transcripts = _noisy(np.random.default_rng(4), 80, rate=0.3, alone_rate=0.4)
  overall = _score(transcripts, bootstrap=1000)["overall"]
  unpaired = np.hypot(*(_spread(transcripts, key) for key in (True, False)))
  paired = overall["difference_high"] - overall["difference_low"]
  assert paired < 0.7 * unpaired


def _spread(transcripts, adapted: bool) -> float:
  heard = [
    transcript
    if adapted
    else dataclasses.replace(
      transcript, hypothesis=transcript.backbone_hypothesis
    )
    for transcript in transcripts
  ]
  overall = _score(heard, bootstrap=1000)["overall"]
  return overall["wer_high"] - overall["wer_low"]


def test_overall_interval_is_stratified_by_task():
  # Two tasks, each without variance inside: nothing is left to be unsure of.
  rows = [
    _transcript(f"{task}{index}", "a b", heard, "a b", task)
    for task, heard in (("anna", "a b"), ("bert", "x x"))
    for index in range(10)
  ]
  overall = _score(rows)["overall"]
  assert overall["wer_low"] == overall["wer_high"] == pytest.approx(1 / 2)


def test_tasks_are_resampled_independently_of_one_another():
  # Sixteen like tasks: a sixteenth of the variance, if draws aren't shared.
  one = _noisy(np.random.default_rng(5), 40, rate=0.3, alone_rate=0.4)
  rows = [
    dataclasses.replace(row, id=f"{task}-{row.id}", task=f"task{task}")
    for task in range(16)
    for row in one
  ]
  spreads = [
    figures["wer_high"] - figures["wer_low"]
    for figures in (
      _score(one, bootstrap=2000)["overall"],
      _score(rows, bootstrap=2000)["overall"],
    )
  ]
  assert spreads[0] / spreads[1] == pytest.approx(4, rel=0.2)


def test_worst_takes_the_most_errors_and_spreads_over_tasks():
  rows = [
    _transcript("1", "a b c", "x x x", None),
    _transcript("2", "a b c", "x x c", None),
    _transcript("3", "a b", "x x", None),
    _transcript("4", "a b c", "a b x", None, "bert"),
    _transcript("5", "a b c", "a b c", None, "carl"),
  ]
  chosen = worst(rows, EvalConfig(), count=5, per_task=2)
  assert [transcript.id for transcript in chosen] == ["1", "3", "4"]
  assert [item.id for item in worst(rows[::-1], EvalConfig(), count=1)] == ["1"]


def test_scoring_and_reporting_do_not_load_jax():
  code = (
    "import sys, hra.evaluate.metrics, hra.evaluate.report;"
    "sys.exit('jax' in sys.modules or 'matplotlib' in sys.modules)"
  )
  assert (
    subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
  )
