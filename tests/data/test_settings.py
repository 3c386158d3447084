"""Settings of single tasks: what a file may say, and whom it concerns."""

import json

import numpy as np
import pytest

from hra.config import OptimizerConfig
from hra.data import settings
from hra.errors import InputError

TASKS = ("anna", "bert", "cleo")
DEFAULT = OptimizerConfig(learning_rate=0.01, warmup_steps=2)


def _read(folder, told):
  path = folder / "settings.json"
  path.write_text(told if isinstance(told, str) else json.dumps(told))
  return settings.read_settings(path, tasks=TASKS)


@pytest.mark.parametrize(
  ("told", "message"),
  [
    ("{", "expected a JSON object"),
    ("[]", "got list"),
    ({"annna": {}}, "did you mean 'anna'"),
    ({"anna": 3}, "expected {setting: value}, got 3"),
    ({"anna": {"learningrate": 1}}, "did you mean 'learning_rate'"),
    ({"anna": {"b1": 0.5}}, "settings among learning_rate, schedule"),
    ({"anna": {"learning_rate": "fast"}}, "'anna'.learning_rate"),
    ({"anna": {"learning_rate": -1.0}}, "'anna'.learning_rate"),
    ({"anna": {"clip_norm": -0.5}}, "'anna'.clip_norm"),
    ({"anna": {"warmup_steps": 1.5}}, "'anna'.warmup_steps"),
    ({"anna": {"warmup_steps": -1}}, "'anna'.warmup_steps"),
    ({"anna": {"schedule": "sine"}}, "'anna'.schedule"),
    ({"anna": {"steps": 0}}, "a whole number from 1 to 2,147,483,647, got 0"),
    (
      {"anna": {"steps": True}},
      "a whole number from 1 to 2,147,483,647, got True",
    ),
    (
      {"anna": {"steps": 2.0}},
      "a whole number from 1 to 2,147,483,647, got 2.0",
    ),
    (
      {"anna": {"patience": -1}},
      "a whole number from 0 to 2,147,483,647, got -1",
    ),
  ],
)
def test_what_can_t_be_is_one_clear_line(tmp_path, told, message):
  with pytest.raises(InputError) as refused:
    _read(tmp_path, told)
  line = str(refused.value)
  assert message in line
  assert "settings.json" in line
  assert "\n" not in line


def test_a_file_that_is_not_there_is_named(tmp_path):
  with pytest.raises(InputError, match=r"nowhere\.json"):
    settings.read_settings(tmp_path / "nowhere.json", tasks=TASKS)


def test_no_path_is_no_settings():
  assert settings.read_settings("", tasks=TASKS) == {}


@pytest.mark.parametrize(
  ("field", "value", "told"),
  [
    ("learning_rate", 0.5, 0.5),
    ("schedule", "linear", settings.SCHEDULES.index("linear")),
    ("warmup_steps", 7, 7),
    ("weight_decay", 0.25, 0.25),
    ("clip_norm", 0, 0.0),
  ],
)
def test_a_setting_is_one_task_s_alone(tmp_path, field, value, told):
  given = _read(tmp_path, {"bert": {field: value}})
  everyone, some = (
    settings.of_tasks(TASKS, DEFAULT, steps_N=[5, 6, 7], given=each)
    for each in ({}, given)
  )
  for name in settings.Settings._fields:
    expected = getattr(everyone, name).copy()
    if name == field:
      assert expected[1] != told
      expected[1] = told
    np.testing.assert_array_equal(getattr(some, name), expected)


@pytest.mark.parametrize("field", ["steps", "patience"])
def test_counts_are_one_task_s_alone(tmp_path, field):
  given = _read(tmp_path, {"bert": {field: 9}})
  counted = settings.counts(TASKS, field, [5, 6, 7], given=given)
  assert counted.tolist() == [5, 9, 7]
  other = {"steps": "patience", "patience": "steps"}[field]
  assert settings.counts(TASKS, other, [5, 6, 7], given=given).tolist() == [
    5,
    6,
    7,
  ]
