"""Transcripts that can be used: what stands there twice is said to."""

import pytest

from hra.config import PrepareConfig
from hra.data.records import Problems, Record
from hra.data.transcripts import usable


def _usable(*records):
  problems = Problems("m", expected="records")
  kept = usable(records, problems, tokenizer=None, config=PrepareConfig())
  return [record.id for record in kept], [str(problem) for problem in problems]


def _record(line, *, task="ann", offset=None, duration=None, path="x.wav"):
  return Record(
    id=f"id {line}",
    path=path,
    text="words",
    task=task,
    offset=offset,
    duration=duration,
    where=f"m:{line}",
  )


def test_other_segments_of_a_recording():
  segments = [
    _record(1, offset=0, duration=1),
    _record(2, offset=0, duration=2),
    _record(3, offset=0, duration=2, task="ben"),
    _record(4, offset=0),
    _record(5, offset=1, duration=1),
  ]
  assert _usable(*segments) == ([record.id for record in segments], [])


@pytest.mark.parametrize(
  ("fields", "shown"),
  [
    ({}, "'x.wav'"),
    ({"offset": 0, "duration": 2}, "'x.wav' from 0 s for 2 s"),
    ({"offset": 1.5}, "'x.wav' from 1.5 s on"),
  ],
)
def test_the_same_recording_again(fields, shown):
  kept, (problem,) = _usable(_record(1, **fields), _record(2, **fields))
  assert kept == ["id 1"]
  assert problem == (
    f"m:2: expected a new recording, got {shown} again; see m:1"
  )


def test_a_whole_recording_is_one_whatever_its_task_and_length():
  kept, (problem,) = _usable(
    _record(1, duration=1), _record(2, duration=2, task="ben")
  )
  assert kept == ["id 1"]
  assert "'x.wav' again" in problem
