"""The study's experiments: every run can be planned, and they fit together."""

import itertools
from pathlib import Path

import pytest

from hra.commands import configs
from hra.data.synthetic import corpus
from hra.sweeps import plan

STUDY = Path(__file__).parents[2] / "experiments" / "study"
RUNS = {
  "multi_task": 100,
  "single_task": 35,
  "alone": 9,
  "recurrence": 20,
  "training_speakers": 15,
  "newcomers": 20,
}


def planned(name):
  path = str(STUDY / f"{name}.py")
  module = configs.load_module(path)
  return plan.make(
    configs.load(path),
    experiment=path,
    workdir="runs",
    declared=module.sweep(),
  ).runs


@pytest.fixture(scope="module")
def runs():
  return {name: planned(name) for name in RUNS}


def test_every_run_of_every_sweep_can_be_planned(runs):
  assert {name: len(found) for name, found in runs.items()} == RUNS
  files = {path.stem for path in STUDY.glob("*.py")} - {"backbone"}
  assert files == set(RUNS)


def test_every_arm_is_tuned_alike(runs):
  for name in set(RUNS) - {"alone"}:
    arms = {}
    for run in runs[name]:
      arm = run.label.rsplit("-", 1)[0]
      train = run.config.train
      rates = (train.rows.learning_rate, train.shared.learning_rate)
      arms.setdefault(arm, []).append(rates)
    for each in arms.values():
      for rates in zip(*each, strict=True):
        ratios = [after / before for before, after in itertools.pairwise(rates)]
        assert ratios == pytest.approx([2.5] * 4)


def test_the_arms_of_a_question_differ_in_what_it_asks_alone(runs):
  asked = {
    "multi_task": ("adapter.", "space."),
    "single_task": ("adapter.",),
    "recurrence": ("adapter.",),
    "training_speakers": ("adapter.", "space."),
    "alone": ("data.tasks",),
    "newcomers": ("synthetic.",),
  }
  for name, fields in asked.items():
    for run in runs[name]:
      for field in run.overrides:
        assert field.startswith((*fields, "train.rows.", "train.shared.")), (
          run.name
        )


def test_evaluation_speakers_are_no_training_speakers(runs):
  training, newcomers, joint = (
    corpus.cast(runs[name][-1].config.synthetic)
    for name in ("training_speakers", "newcomers", "multi_task")
  )
  assert len(training) >= 200
  assert not set(training) & set(joint)
  assert set(newcomers) <= set(joint)
  assert all(newcomers[name] == joint[name] for name in newcomers)


def test_budgets_of_recordings_are_what_they_are_called(runs):
  budgets = set()
  for run in runs["newcomers"]:
    spec = run.config.synthetic
    budget = spec.train_utterances + spec.dev_utterances
    assert run.label.split("-")[1] == str(budget)
    budgets.add(budget)
  assert budgets == {5, 10, 20, 40}


def test_alone_a_speaker_is_trained_as_in_the_job(runs):
  joint, *alone = (run.config for run in runs["alone"])
  assert [config.data.tasks for config in alone] == [
    (name,) for name in corpus.cast(joint.synthetic)
  ]
  for config in alone:
    assert config.data.bucket_seconds == joint.data.bucket_seconds != ()
    assert config.train == joint.train
    assert config.adapter == joint.adapter
