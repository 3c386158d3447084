"""The study's figures and verdicts, from word errors that are made up."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import study_answers as answers
import study_figures as figures
import study_statistics as statistics
from made_up import CONFIG, RESIDUAL, arms, heard, scores
from study_arms import MULTI, NEWCOMERS, RECURRENCE, SINGLE


@pytest.mark.parametrize(
  ("hra", "verdict", "chosen"),
  [
    # Of an eighth at most the largest counts, whatever a smaller one says.
    ({"hra-8": (500, 0.4), "hra-32": (1000, 0.4)}, "holds", "hra-32"),
    ({"hra-8": (500, 0.4), "hra-32": (1000, 0.6)}, "does not hold", "hra-32"),
    ({"hra-8": (500, 0.6), "hra-32": (1001, 0.4)}, "does not hold", "hra-8"),
    # None is small enough: only that the smallest is worse says something.
    ({"hra-8": (1001, 0.4), "hra-32": (2000, 0.4)}, "undecided", "hra-8"),
    ({"hra-8": (1001, 0.6), "hra-32": (2000, 0.4)}, "does not hold", "hra-8"),
  ],
)
def test_eight_times_fewer_is_judged_by_the_largest_that_are_so_few(
  hra, verdict, chosen
):
  found = answers.smaller(arms(MULTI, RESIDUAL | hra), MULTI, config=CONFIG)
  assert found["reference"] == "residual-8"
  assert found["best"] == "residual-32"
  assert found["verdict"] == verdict
  assert list(found["pairs"]) == ["residual-1", "residual-8", "residual-32"]
  pair = found["pairs"]["residual-8"]
  assert (pair["verdict"], pair["hra"]) == (verdict, chosen)
  assert pair["ratio"] == pytest.approx(8000 / hra[chosen][0])


@pytest.mark.parametrize(
  ("low", "high", "verdict"),
  [
    (-0.05, 0.02, "holds"),
    (-0.01, 0.03, "undecided"),
    (0.001, 0.03, "does not hold"),
    (0.001, 0.01, "holds"),
  ],
)
def test_no_worse_is_by_less_than_the_margin(low, high, verdict):
  gap = {"difference": {"low": low, "high": high}}
  assert answers.no_worse(gap) == verdict


def test_lower_is_lower_in_each_seed():
  gap = {"difference": {"low": -0.05, "high": -0.01}}
  assert answers.better({**gap, "seeds": {"0": -0.06, "1": -0.01}}) == "holds"
  assert answers.better({**gap, "seeds": {"0": -0.1, "1": 0.01}}) == "undecided"
  gap = {"difference": {"low": 0.01, "high": 0.05}}
  told = answers.better({**gap, "seeds": {"0": 0.1, "1": 0.01}})
  assert told == "does not hold"


def test_what_is_shared_counts_by_its_part():
  found = {
    **arms(MULTI, RESIDUAL),
    (MULTI, "hra-8"): heard(MULTI, "hra-8", 0.4, parameters=500, shared=3000),
  }
  pair = answers.smaller(found, MULTI, config=CONFIG)["pairs"]["residual-8"]
  assert pair["ratio"] == 16
  assert pair["ratio_with_shared"] == 8  # of six speakers in a job


def test_explored_families_are_judged_by_themselves_on_other_speakers():
  both = {"hra_both-8": (500, 0.4), "hra_both-32": (1001, 0.4)}
  found = arms(MULTI, RESIDUAL | both | {"hra-32": (1000, 0.6)})
  told = answers.smaller(
    found, MULTI, family="hra_both", seeds=["1"], config=CONFIG
  )
  assert (told["verdict"], told["pairs"]["residual-8"]["hra"]) == (
    "holds",
    "hra_both-8",
  )
  assert set(told["pairs"]["residual-8"]["seeds"]) == {"1"}
  told = answers.smaller(found, MULTI, config=CONFIG)
  assert told["verdict"] == "does not hold"


def test_a_pool_pays_for_all_that_trains():
  pooled = heard(SINGLE, "hra-8", 0.4, parameters=100, shared=30)
  assert pooled.owned == 130
  assert heard(MULTI, "hra-8", 0.4, parameters=100, shared=30).owned == 100


@pytest.mark.parametrize(
  ("wer", "verdict"),
  [(0.3, "holds"), (0.5, "does not hold"), (0.4, "undecided")],
)
def test_an_embedding_is_judged_against_the_row_of_as_many_recordings(
  wer, verdict
):
  found = {
    **arms(
      NEWCOMERS,
      {
        "row-5": (8000, 0.4),
        "embedding-5": (16, wer),
        "row-20": (8000, 0.1),
        "embedding-20": (16, 0.2),
        "mean-embedding": (16, 0.5),
        "warm_row-5": (8000, 0.3),
      },
    )
  }
  told = answers.less_data(found, config=CONFIG)
  assert told["verdict"] == verdict
  assert set(told["against_row"]) == {
    "embedding-5",
    "warm_row-5",
    "embedding-20",
  }
  assert set(told["against_controls"]) == {"mean-embedding", "warm_row-5"}
  mean = told["against_controls"]["mean-embedding"]["difference"]["wer"]
  assert mean == pytest.approx(wer - 0.5)
  later = told["against_row"]["embedding-20"]
  assert later["difference"]["wer"] == pytest.approx(0.1)
  assert later["verdict"] == "does not hold"


def test_recurrence_is_judged_against_the_arm_without_it():
  found = arms(MULTI, {"hra-32": (1000, 0.4)}) | arms(
    RECURRENCE, {"gru": (1000, 0.4), "no-recurrence": (1000, 0.5)}
  )
  told = answers.recurrence(found, config=CONFIG)
  assert told["verdict"] == "holds"
  assert told["reference_less"]["gru"]["verdict"] == "undecided"


def test_what_was_not_run_has_no_verdict():
  assert answers.smaller({}, MULTI, config=CONFIG) is None
  assert answers.less_data({}, config=CONFIG) is None
  assert answers.recurrence({}, config=CONFIG) is None
  assert answers.together([]) is None


def test_an_arm_is_told_by_seed_by_severity_and_against_its_reference():
  arm = heard(MULTI, "hra-8", 0.3, spread=1)
  other = heard(MULTI, "residual-8", 0.4)
  told = figures.arm_figures(
    arm, other, dev={"low": 3, "middle": 5}, tuned=True, config=CONFIG
  )
  assert told["rate"] == 0.1
  assert told["rate_at_end"] is True
  assert told["dev_errors"] == {"0.1": 3, "0.2": 5}
  assert set(told["seeds"]) == {"0", "1"}
  assert set(told["terciles"]) == set(statistics.TERCILES)
  assert told["versus"]["reference"] == "residual-8"
  assert told["versus"]["difference"]["wer"] == pytest.approx(told["wer"] - 0.4)
  mean = np.mean([each["wer"] for each in told["terciles"].values()])
  assert mean == pytest.approx(told["wer"])  # as many words in each
  middle = heard(MULTI, "hra-8", 0.3, label="middle")
  told = figures.arm_figures(middle, other, dev={}, tuned=True, config=CONFIG)
  assert told["rate_at_end"] is False
  # Also of a rate that another arm chose, but not where none was.
  told = figures.arm_figures(arm, other, dev={}, tuned=True, config=CONFIG)
  assert told["rate_at_end"] is True
  told = figures.arm_figures(arm, other, dev={}, tuned=False, config=CONFIG)
  assert told["rate_at_end"] is None
  control = arm._replace(arm=arm.arm._replace(rates={"": {}}), label="")
  told = figures.arm_figures(control, other, dev={}, tuned=True, config=CONFIG)
  assert (told["rate_at_end"], told["rate"]) == (False, None)


@pytest.mark.parametrize("pooled", [False, True])
def test_the_backbone_serves_whom_dev_found_no_better_adapted(tmp_path, pooled):
  worse = "pooled" if pooled else "s01"
  told = {worse: {"verdict": "not better"}, "s00": {"verdict": "better"}}
  (tmp_path / "verdicts.json").write_text(json.dumps({"tasks": told}))
  job = SimpleNamespace(seed=1, run=SimpleNamespace(folder=tmp_path))
  arm, frozen = scores(0.3), scores(0.8)
  served = figures._served(arm, frozen, job)
  back = (arm.speakers == "1/s01") | pooled
  assert back.any()
  np.testing.assert_array_equal(served.errors[back], frozen.errors[back])
  np.testing.assert_array_equal(served.errors[~back], arm.errors[~back])


def test_references_are_fixed_before_anything_is_run():
  found = arms(MULTI, RESIDUAL) | arms(
    NEWCOMERS, {"row-5": (1, 0.1), "row-20": (1, 0.1), "shared-only": (0, 0.1)}
  )

  def name(experiment, arm):
    reference = figures.reference_of((experiment, arm), found)
    return reference and reference.arm.name

  assert name(MULTI, "hra-8") == "residual-8"
  assert name(NEWCOMERS, "nearest-head-20") == "row-20"
  assert name(NEWCOMERS, "mean-embedding") == "shared-only"
  assert name(RECURRENCE, "gru") is None
