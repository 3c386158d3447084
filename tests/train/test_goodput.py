"""The ledger of a run's time, over restarts."""

import json

import pytest
from etils import epath

from hra.train import goodput


def _ledger(folder, now, *, position, **given):
  return goodput.Goodput(
    epath.Path(folder),
    position=position,
    began=now[0],
    now=lambda: now[0],
    **given,
  )


def test_steps_that_a_restart_does_again_count_no_more(tmp_path):
  now = [1000.0]
  ledger = _ledger(tmp_path, now, position=0)
  ledger.spend("compile", 20.0)
  ledger.spend("step", 30.0)
  ledger.mark(10)
  ledger.spend("step", 15.0)
  ledger.mark(15)  # a save that a kill will cut off
  ledger.spend("step", 15.0)
  now[0] = 1080.0
  ledger.keep()
  assert ledger.share() == pytest.approx(60 / 80)
  now[0] = 1100.0
  ledger = _ledger(tmp_path, now, position=12)
  assert ledger.seconds == {
    **dict.fromkeys(ledger.seconds, 0.0),
    "compile": 20.0,
    "step": 30.0,
    "redone": 30.0,
    "away": 20.0,
  }
  ledger.spend("step", 100.0)
  assert ledger.share() == pytest.approx(130 / 200)
  ledger.mark(20)
  told = json.loads((tmp_path / goodput.NAME).read_text())
  assert (told["started"], told["starts"]) == (1000.0, 2)
  assert told["marks"] == [[10, 30.0], [20, 130.0]]


def test_the_file_is_not_written_at_every_line(tmp_path):
  now = [0.0]
  ledger = _ledger(tmp_path, now, position=0)
  ledger.keep()
  assert not (tmp_path / goodput.NAME).exists()
  now[0] = 11.0
  other = _ledger(tmp_path, [0.0], position=0, writes=False)
  other.mark(3)
  assert not (tmp_path / goodput.NAME).exists()
  ledger.keep()
  assert (tmp_path / goodput.NAME).exists()


@pytest.mark.parametrize(
  "damage",
  [
    "{",
    "{}",
    "[]",
    '{"marks": [[1]]}',
    '{"marks": 3}',
    '{"seconds": {"step": "x"}}',
  ],
)
def test_a_damaged_file_is_told_and_begun_anew(tmp_path, capsys, damage):
  path = tmp_path / goodput.NAME
  _ledger(tmp_path, [0.0], position=0).mark(3)
  try:
    change = dict(json.loads(damage))
  except ValueError:
    change = {}
  path.write_text(
    json.dumps(json.loads(path.read_text()) | change) if change else damage
  )
  assert _ledger(tmp_path, [0.0], position=0, writes=False).share() == 0
  assert capsys.readouterr().err == ""
  ledger = _ledger(tmp_path, [7.0], position=5)
  (line,) = capsys.readouterr().err.splitlines()
  assert "is begun anew" in line
  ledger.mark(5)
  assert json.loads(path.read_text())["started"] == 7.0
