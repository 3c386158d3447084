"""The plain-text table of results."""

from hra.config import EvalConfig
from hra.evaluate.metrics import Transcript, score
from hra.evaluate.table import table


def _results(tasks, *, alone: str | None = "x x x x", verdicts=None):
  rows = [
    Transcript(f"{name}{index}", name, "a b c d", heard, alone, 1.0)
    for name, heard in tasks.items()
    for index in range(4)
  ]
  return score(
    rows,
    EvalConfig(bootstrap=100),
    split="test",
    parameters={"backbone": 1, "shared": 1, "per_task": 1},
    adapter="hra",
    train_utterances=dict.fromkeys(tasks, 1_234_567),
    verdicts=lambda figures: verdicts or {},
  )


def test_worst_task_first_and_all_tasks_last():
  lines = table(_results({"good": "a b c d", "bad": "x x c d"})).splitlines()
  assert lines[0].split()[0] == "task"
  assert lines[2].split() == (
    ["bad", "1,234,567", "16", "100.0", "50.0", "50.0-50.0", "-50.0*"]
  )
  assert lines[3].startswith("good")
  assert lines[-1].split()[:2] == ["all", "2"]
  assert "25.0" in lines[-1]


def test_columns_align_and_fit_even_with_hostile_names():
  names = {
    "n" * 200: "a b c d",
    "\u6771\u4eac" * 30: "x b c d",
    "\x1b[31mred\n": "x x c d",
    "short": "x " * 400,
  }
  text = table(_results(names))
  lines = text.splitlines()
  assert "\x1b" not in text
  assert len(lines) == len(names) + 4
  assert max(map(_columns, lines)) <= 100
  rows = [*lines[2:-2], lines[-1]]
  assert len({_columns(row.rstrip("*")) for row in rows}) == 1


def _columns(line: str) -> int:
  return sum(2 if "\u4e00" <= mark <= "\u9fff" else 1 for mark in line)


def test_many_tasks_are_cut_with_a_count():
  lines = table(
    _results({f"t{index:03d}": "a b c d" for index in range(30)}), limit=10
  ).splitlines()
  assert len(lines) == 10 + 5
  assert "20 tasks" in lines[-3]


def test_absent_figures_show_as_dashes():
  line = table(_results({"anna": "a b c d"}, alone=None)).splitlines()[2]
  assert line.split()[3] == "-"
  assert line.split()[-1] == "-"


def test_who_the_backbone_answers_for_is_told():
  tasks = {"good": "a b c d", "bad": "x x x x y"}
  verdicts = {"good": "better", "bad": "not better"}
  told = table(_results(tasks, alone="x x x d", verdicts=verdicts))
  assert "the backbone answers: bad; as served, WER is 37.5" in told
  assert "answers" not in table(_results(tasks, alone="x x x d"))
