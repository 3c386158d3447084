"""The study's page: every verdict and number in it is one of the figures."""

import copy

import pytest

pytest.importorskip("matplotlib")
import study_answers as answers
import study_figures as figures
import study_page as page
import study_tables as tables
from etils import epath
from made_up import CONFIG, RESIDUAL, arms
from study_arms import EXPLORED, MULTI, NEWCOMERS, RECURRENCE

FOUND = arms(
  MULTI, RESIDUAL | {"hra-8": (500, 0.6), "hra-32": (1000, 0.4)}
) | arms(
  NEWCOMERS,
  {
    "row-5": (8000, 0.4),
    "embedding-5": (16, 0.3),
    "mean-embedding": (16, 0.5),
    "shared-only": (0, 0.5),
  },
)


@pytest.fixture
def told():
  every: dict = {}
  for key, each in FOUND.items():
    every.setdefault(key[0], {})[key[1]] = figures.arm_figures(
      each,
      figures.reference_of(key, FOUND),
      dev={"low": 1, "high": 2},
      tuned=True,
      config=CONFIG,
    )
  spent = {"runs": 2, "cpu_seconds": 7200.0, "wall_seconds": 1.0}
  return {
    "command": "python benchmarks/study.py",
    "measured": {
      letter: {"date": date, "hardware": "2 cores", "versions": "Python"}
      for letter, date in (("a", "2026-01-01"), ("b", "2026-01-02"))
    },
    "seeds": [0, 1],
    "tuned": True,
    "missing": [],
    "arms": every,
    "questions": {
      "a": answers.smaller(FOUND, MULTI, config=CONFIG),
      "e": None,
      **dict.fromkeys(EXPLORED),
      "b": answers.less_data(FOUND, config=CONFIG),
      "c": None,
      "d": None,
    },
    "backbone": None,
    "cost": {MULTI: spent, NEWCOMERS: spent},
  }


def line_of(text, beginning):
  (line,) = [each for each in text.split("\n") if each.startswith(beginning)]
  return line


def test_answers_follow_the_figures(told):
  text = tables.markdown(told, {})
  answer = line_of(
    text, "- (a) 8 times fewer numbers than a residual adapter, multi"
  )
  assert "**holds**" in answer
  pair = line_of(text, "  - residual-8 (8,000)")
  assert "hra-32 (1,000; 8.0 times fewer" in pair
  assert pair.endswith(": holds")
  assert "beats a fresh row: **holds** (-10.0 (" in line_of(text, "- (b)")
  assert line_of(text, "- (c)").endswith("not run.")
  changed = copy.deepcopy(told)
  changed["questions"]["a"]["verdict"] = "undecided"
  changed["questions"]["b"]["verdict"] = "does not hold"
  text = tables.markdown(changed, {})
  answer = line_of(
    text, "- (a) 8 times fewer numbers than a residual adapter, multi"
  )
  assert "is **undecided**" in answer
  assert "**does not hold**" in line_of(text, "- (b)")


def test_every_arm_has_a_line_with_its_rate_and_interval(told):
  text = tables.markdown(told, {})
  for (experiment, name), _ in FOUND.items():
    arm = told["arms"][experiment][name]
    lines = [
      each for each in text.split("\n") if each.startswith(f"| {name} |")
    ]
    assert f"{100 * arm['wer']:.1f} (" in lines[0]
    assert "0.1 \\*" in lines[0]
  assert "end of the grid" in text
  assert "| together | 4 | 4.00 |" in text


def test_each_question_says_when_it_was_measured(told):
  text = tables.markdown(told, {})
  assert "(a) 2026-01-01, 2 cores, Python; (b) 2026-01-02, 2 cores" in text
  told["measured"]["b"] = told["measured"]["a"]
  assert "(a, b) 2026-01-01, 2 cores" in tables.markdown(told, {})


def test_arms_are_listed_by_family_and_size():
  names = ["hra-16", "full", "hra-4", "hra_both-8", "embedding-40", "hra-32"]
  assert sorted(names, key=page._by_size) == [
    *("embedding-40", "full", "hra-4", "hra-16", "hra-32", "hra_both-8"),
  ]


def test_what_is_not_complete_is_said(told):
  told["missing"] = ["multi_task/full"]
  assert "Not complete: multi_task/full." in tables.markdown(told, {})


def test_plots_are_drawn_of_what_is_there(told, tmp_path):
  drawn = page.draw(told, folder=epath.Path(tmp_path / "study"))
  assert drawn == {
    MULTI: "study/parameters.png",
    NEWCOMERS: "study/recordings.png",
  }
  for path in drawn.values():
    assert (tmp_path / path).stat().st_size > 10_000
  assert "](study/recordings.png)" in tables.markdown(told, drawn)
  assert RECURRENCE not in drawn
