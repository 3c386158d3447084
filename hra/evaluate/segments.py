"""What was heard and when: labels with times between them -> segments.

Times are labels of a prompted decoder (`hra.decoders.prompted`): one where a segment
begins and one where it ends.
"""

from collections.abc import Sequence
from typing import NamedTuple

from hra.config import DecoderConfig

TIME_STEP = 0.02
"""Seconds from a label of a time to the next."""


class Segment(NamedTuple):
  """Something said at once."""

  start: float
  """Seconds from the beginning of the recording."""
  end: float
  text: str


class Span(NamedTuple):
  """A segment whose labels are not spelled yet."""

  start: float
  end: float
  labels: tuple[int, ...]

  def later(self, seconds: float) -> "Span":
    """So many seconds later in a recording."""
    return self._replace(start=self.start + seconds, end=self.end + seconds)


def spans(
  labels: Sequence[int], config: DecoderConfig, *, seconds: float
) -> list[Span]:
  """Of labels with times; those without anything said are left out.

  Args:
    seconds: that the audio lasts: where a segment ends that no time ends.
  """
  found: list[Span] = []
  start, said = 0.0, list[int]()
  for label in labels:
    if label < config.first_time:
      said.append(label)
      continue
    time = min((label - config.first_time) * TIME_STEP, seconds)
    if said:
      found.append(Span(start, time, tuple(said)))
    start, said = time, []
  if said:
    found.append(Span(start, max(seconds, start), tuple(said)))
  return found


def timed(span: Span, config: DecoderConfig) -> list[int]:
  """The labels of a span between those of its times."""
  start, end = (
    config.first_time + round(time / TIME_STEP)
    for time in (span.start, span.end)
  )
  return [start, *span.labels, end]


def joined(
  pieces: Sequence[Sequence[Span]], kept: Sequence[slice]
) -> list[Span]:
  """The spans of overlapping pieces as those of one recording.

  Spans that are cut at a seam become one, where their times overlap.

  Args:
    kept: of all labels of each piece those that stay (`hra.evaluate.stitching`).
  """
  found: list[Span] = []
  for own, part in zip(pieces, kept, strict=True):
    for span in _cut(own, part):
      last = found[-1] if found else None
      if last is None or last.end <= span.start:
        found.append(span)
      else:  # where the last one ends, it was cut
        end = max(last.start, span.end)
        found[-1] = Span(last.start, end, last.labels + span.labels)
  return found


def _cut(own: Sequence[Span], part: slice) -> list[Span]:
  """Spans with those of their labels that stay; none without any."""
  cut: list[Span] = []
  before = 0
  for span in own:
    stop = len(span.labels) if part.stop is None else part.stop - before
    labels = span.labels[max(part.start - before, 0) : max(stop, 0)]
    before += len(span.labels)
    if labels:
      cut.append(span._replace(labels=labels))
  return cut
