"""What a few serial jobs are told to say of all of them; and the gate before it."""

import math

import numpy as np
import one_job
import one_job_figures as figures
import one_job_losses as losses
import pytest

from hra.config import AdapterConfig
from hra.errors import InputError
from hra.submodels import Submodel, shared_fingerprint


def job(wall, *, compiled=0, steps=1.0):
  parts = dict.fromkeys(figures.PARTS, 0.0)
  parts |= {"start": wall - steps, "steps": steps}
  return figures.Job(wall, 2 * wall, parts, 2**30, compiled)


JOINT = job(100.0, compiled=9, steps=60.0)
ALONE = (
  job(30.0, compiled=5),
  job(10.0, steps=2.0),
  job(14.0, steps=4.0),
  job(20.0, compiled=1),
)


def heard(**changed):
  row = {
    "speaker": "speaker-00",
    "backbone_loss": 2.0,
    "joint_loss": 1.0,
    "alone_loss": 1.0 + 1e-5,
    "joint_wer": 0.3,
    "alone_wer": 0.3,
    "rows_apart": 1e-5,
  }
  return {**row, **changed}


def compared(**changed):
  row = figures.compared(JOINT, ALONE, speakers=10)
  return {**row, "speakers_heard": [heard()], "contained": True, **changed}


def test_parts_are_all_of_a_job():
  seconds = {"start": 1.0, "compile": 8.0, "step": 3.0, "data": 2.0}
  ledger = {
    "started": 107.0,
    "seconds": {**seconds, "evaluation": 0.5, "save": 0.25},
  }
  found = figures.parts_of(ledger, began=100.0, wall=25.0)
  assert tuple(found) == figures.PARTS
  assert found == {
    "start": 8.0,
    "compiling": 8.0,
    "steps": 5.0,
    "evaluation": 0.75,
    "end": 3.25,
  }


def test_who_compiled_counts_once():
  # 30 and 20 as they were, and eight more of 10 to 14 seconds.
  found = figures.extrapolated([30, 10, 14, 20], [True, False, False, True], 10)
  assert found == figures.Guess(50 + 8 * 12, 50 + 8 * 10, 50 + 8 * 14)


def test_without_a_warm_job_all_but_the_first_stand_for_the_others():
  found = figures.extrapolated([30, 20, 22], [True] * 3, 11)
  assert found == figures.Guess(30 + 10 * 21, 30 + 10 * 20, 30 + 10 * 22)


def test_a_sample_of_all_is_their_sum():
  found = figures.extrapolated([30, 10, 14], [True, False, False], 3)
  assert found.middle == pytest.approx(54)


def test_ratios_are_of_all_speakers():
  found = figures.compared(JOINT, ALONE, speakers=10)
  assert found["ratio"]["wall"]["middle"] == pytest.approx(1.46)
  assert found["ratio"]["cpu"]["middle"] == pytest.approx(1.46)
  assert found["ratio"]["steps"]["middle"] == pytest.approx((2 + 8 * 3) / 60)
  assert found["joint"]["submodels_per_hour"] == pytest.approx(360)
  assert found["alone"]["submodels_per_hour"] == pytest.approx(36000 / 146)
  assert found["alone"]["mean_parts"]["steps"] == pytest.approx(3)


ABOUT = {
  "command": "python benchmarks/one_job.py",
  "date": "2026-01-02",
  "hardware": "2 cores",
  "versions": "jax 1",
  "setting": "10 speakers",
}


def test_the_page_says_where_no_job_found_every_program():
  cold = figures.compared(JOINT, [job(30.0, compiled=1)] * 3, speakers=10)
  row = {**cold, "speakers_heard": [heard()], "contained": True}
  page = figures.page(ABOUT, {"residual": row})
  assert "all 3 sampled jobs compiled something" in page
  assert "stand for 9 speakers" in page


def test_the_page_has_both_ways_and_says_how_many_were_run():
  page = figures.page(
    ABOUT, {"residual": compared(), "hra": compared(contained=False)}
  )
  assert "| residual, one job for 10 | 360 | 100 | 200 | 60 |" in page
  assert "| residual, one job each (by 4) | 247 | 146 (130-162) |" in page
  assert "| residual | 1.5 (1.3-1.6) |" in page
  assert "residual: 2 of 4 sampled jobs compiled something" in page
  assert "2 stand for 8 speakers" in page
  (hra,) = (line for line in page.splitlines() if "another controller" in line)
  assert hra.startswith("| hra | 1 |")


def test_speakers_who_end_alike_pass():
  one_job.check_equal([heard(), heard(speaker="speaker-01")])


@pytest.mark.parametrize(
  "spoilt",
  [{"alone_loss": 1.02}, {"alone_loss": math.nan}, {"rows_apart": 0.02}],
)
def test_one_who_ends_otherwise_is_told(spoilt):
  with pytest.raises(InputError, match="speaker-07"):
    one_job.check_equal([heard(), heard(speaker="speaker-07", **spoilt)])


def test_rows_are_apart_by_their_norm():
  def submodel(*values):
    row = {"a": np.asarray(values[:1]), "b": np.asarray(values[1:])}
    none = shared_fingerprint({})
    return Submodel("x", AdapterConfig(), row, {}, "", none, {})

  assert losses.apart(submodel(3.0, 4.0), submodel(3.0, 4.0)) == 0
  assert losses.apart(submodel(3.0, 5.0), submodel(3.0, 4.0)) == (
    pytest.approx(0.2)
  )
