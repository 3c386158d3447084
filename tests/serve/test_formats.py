"""Answers as texts with times."""

import pytest

from hra.evaluate.segments import Segment
from hra.serve.http import events, formats
from hra.serve.interface import Answer, Receipt, Spent

LATE = (
  Segment(59.9996, 61.5, "one"),
  Segment(3_599.5, 3_723.0415, "two \n\n three"),
)


def _answer(text="", segments=()):
  return Answer(
    text=text,
    seconds=1.0,
    segments=segments,
    words=None,
    receipt=Receipt(None, "backbone", None, None, "asked"),
    spent=Spent(0.0, 0.0, 0.0),
  )


def test_srt():
  assert formats.srt(_answer(segments=LATE)) == (
    "1\n00:01:00,000 --> 00:01:01,500\none\n\n"
    "2\n00:59:59,500 --> 01:02:03,042\ntwo three\n"
  )


def test_vtt():
  assert formats.vtt(_answer(segments=LATE)) == (
    "WEBVTT\n\n00:01:00.000 --> 00:01:01.500\none\n\n"
    "00:59:59.500 --> 01:02:03.042\ntwo three\n"
  )


def test_where_nothing_was_said():
  assert formats.srt(_answer()) == ""
  assert formats.vtt(_answer()) == "WEBVTT\n"
  assert events.deltas(_answer()) == []


@pytest.mark.parametrize(
  ("text", "parts", "deltas"),
  [
    ("a b", ["a", "b"], ["a", " b"]),
    ("a a b.", ["a", "a", "b"], ["a", " a", " b", "."]),
    ("a b", ["b", "a"], ["a b"]),
    ("a b", [], ["a b"]),
    ("a b", ["c"], ["a b"]),
  ],
)
def test_deltas_make_the_text(text, parts, deltas):
  segments = [Segment(0.0, 1.0, part) for part in parts]
  assert events.deltas(_answer(text, segments)) == deltas
