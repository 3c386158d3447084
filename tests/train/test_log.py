"""metrics.jsonl and TensorBoard events: what is kept, dropped, and refused."""

import json

import pytest
from etils import epath
from tensorboard.backend.event_processing.event_file_loader import (
  LegacyEventFileLoader,
)

from hra.errors import StorageError
from hra.train import log
from hra.train.log import MetricsLog


def _lines(workdir):
  return [
    json.loads(line)
    for line in (workdir / "metrics.jsonl").read_text().splitlines()
  ]


def _events(path):
  """The events of a file as TensorBoard reads them, checksums included."""
  return list(LegacyEventFileLoader(str(path)).Load())


@pytest.fixture
def workdir(tmp_path):
  return epath.Path(tmp_path)


def test_lines_after_the_checkpoint_are_written_again(workdir):
  first = MetricsLog(workdir, 0)
  for step in (2, 4, 6):
    first.write({"step": step, "loss": float(step)})
  with (workdir / "metrics.jsonl").open("a") as file:
    file.write('{"step": 8, "lo')
  again = MetricsLog(workdir, 4)
  again.write({"step": 6, "loss": 0.5})
  assert _lines(workdir) == [
    {"step": 2, "loss": 2.0},
    {"step": 4, "loss": 4.0},
    {"step": 6, "loss": 0.5},
  ]


def test_what_was_scored_is_remembered(workdir):
  first = MetricsLog(workdir, 0)
  first.write({"step": 2, "loss": 1.0})
  first.write({"step": 2, "dev_wer": 0.5})
  first.write({"step": 4, "dev_wer": 0.5})
  assert (first.scored(2), first.scored(3), first.scored(4)) == (1, 0, 1)
  again = MetricsLog(workdir, 2)
  assert (again.scored(2), again.scored(4)) == (1, 0)


def test_events_are_those_of_tensorboard(workdir):
  written = MetricsLog(workdir, 6)
  written.write({"step": 8, "loss": 0.5, "name": "not a number"})
  (path,) = (workdir / "tensorboard").iterdir()
  assert path.name.startswith("events.out.tfevents.")
  version, start, event = _events(path)
  assert version.file_version == "brain.Event:2"
  assert (start.step, start.session_log.status) == (7, 1)
  (value,) = event.summary.value
  assert (event.step, value.tag, value.simple_value) == (8, "loss", 0.5)


def test_two_starts_in_a_second_write_two_files(workdir):
  MetricsLog(workdir, 0)
  MetricsLog(workdir, 0)
  assert len(list((workdir / "tensorboard").iterdir())) == 2


def test_a_bucket_cannot_append(workdir, monkeypatch):
  """There, each line writes the file anew: nothing is lost or doubled."""
  opened = []
  forbidden = type(workdir).open
  monkeypatch.setattr(log, "is_remote", lambda path: True)
  monkeypatch.setattr(
    type(workdir),
    "open",
    lambda self, mode="r", **kwargs: (
      opened.append(mode) or forbidden(self, mode, **kwargs)
    ),
  )
  first = MetricsLog(workdir, 0)
  for step in (2, 4, 6):
    first.write({"step": step, "loss": 1.0})
  again = MetricsLog(workdir, 4)
  again.write({"step": 6, "loss": 2.0})
  assert not [mode for mode in opened if "a" in mode]
  assert [(line["step"], line["loss"]) for line in _lines(workdir)] == [
    (2, 1.0),
    (4, 1.0),
    (6, 2.0),
  ]
  longest = max(
    (workdir / "tensorboard").iterdir(), key=lambda p: p.stat().length
  )
  assert [event.step for event in _events(longest)] == [0, 1, 2, 4, 6]


def test_a_full_disk_is_told_where(workdir, monkeypatch):
  written = MetricsLog(workdir, 0)

  def full(number):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(log.os, "fsync", full)
  with pytest.raises(StorageError, match=r"metrics\.jsonl: .*No space left"):
    written.write({"step": 2, "loss": 1.0})
