"""Disturbed copies of a split, and what is told of arms heard on them."""

import augmentation
import corpus
import numpy as np
import pytest
import study_statistics as statistics

from hra.data import sounds
from hra.data.dataset import open_split


@pytest.fixture(scope="module")
def split(tmp_path_factory):
  data = corpus.prepared(tmp_path_factory.mktemp("augmentation"))
  return open_split(data, "train")


@pytest.fixture(scope="module")
def babble():
  wave_S = np.random.default_rng(0).standard_normal(30_000, np.float32)
  return sounds.Bank(wave_S, (10_000, 30_000), "")


@pytest.mark.parametrize("condition", ["noise", "babble"])
def test_a_copy_is_ten_decibels_louder_than_what_disturbs_it(
  split, babble, condition
):
  copy = augmentation.Disturbed(split, condition, babble=babble)
  assert (copy.ids, copy.texts) == (split.ids, split.texts)
  for index in range(4):
    clean_S, heard_S = split[index].wave_S, copy[index].wave_S
    power = np.mean(np.square(clean_S, dtype=np.float64))
    noise = np.mean(np.square(heard_S - clean_S, dtype=np.float64))
    assert 10 * np.log10(power / noise) == pytest.approx(
      augmentation.SNR, abs=0.01
    )
    np.testing.assert_array_equal(heard_S, copy[index].wave_S)


def _heard(rates):
  """Of two seeds, one voice each, ten words in each of four utterances."""
  return augmentation.joined(
    {
      arm: {
        condition: [
          statistics.scores(
            [f"{seed}/voice"] * 4,
            utterances=list("abcd"),
            errors=[errors + seed] * 4,
            words=[10] * 4,
          )
          for seed in (0, 1)
        ]
        for condition in (augmentation.CLEAN, *augmentation.CONDITIONS)
      }
      for arm, errors in rates.items()
    }
  )


def test_arms_are_told_by_condition_and_beside_one_another():
  rates = {"none": 6, "fixed": 5, "adaptive": 4, "mtr": 2, "both": 3, "mix": 1}
  found = augmentation.figures(_heard(rates))
  clean = found["arms"]["fixed"][augmentation.CLEAN]
  assert clean["wer"] == pytest.approx(0.55)
  assert clean["seeds"] == pytest.approx([0.5, 0.6])
  assert clean["less_none"]["wer"] == pytest.approx(-0.1)
  told = {(pair["arm"], pair["other"]): pair for pair in found["pairs"]}
  both = told["both", "mtr"][augmentation.DISTURBED]
  assert both["low"] == both["wer"] == both["high"] == pytest.approx(0.1)


def test_all_disturbed_copies_are_one_condition():
  heard = _heard({"none": 6})
  together = heard.scores["none"][augmentation.DISTURBED]
  assert len(together.words) == 2 * 4 * len(augmentation.CONDITIONS)
  assert heard.seeds["none"][augmentation.DISTURBED] == pytest.approx(
    [0.6, 0.7]
  )
