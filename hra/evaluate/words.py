"""What was said at which frames -> words, and when they were said.

In: labels with their frames (`hra.evaluate.stitching.Said`), of a decoder that knows
them. Out: words, and segments of them. CTC holds a label for some frames, of which
there may be one; a transducer says a label at one.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hra.decoders.interface import BLANK
from hra.evaluate.segments import Segment
from hra.evaluate.stitching import Said

Decode = Callable[[Sequence[int]], str]
"""Labels -> their text."""
_LONGEST, _KEPT = 100, 20
"""Labels of a word that are decoded once more with the next one, and how many of
them stay: scripts without spaces have words without end."""


class Word(NamedTuple):
  """A word and when it was said, in seconds."""

  start: float
  end: float
  text: str


class Moment(NamedTuple):
  """A label, and the frames [start, end) at which it is said."""

  label: int
  start: int
  end: int


def moments(said: Said, *, path: bool) -> list[Moment]:
  """Labels without blanks, in order.

  Args:
    path: whether a label, or a blank, stands for each frame (CTC): equal ones that
      follow each other are one.
  """
  each = zip(said.labels.tolist(), said.frames.tolist(), strict=True)
  if not path:
    return [Moment(label, frame, frame + 1) for label, frame in each]
  runs = [
    (label, [frame for _, frame in run])
    for label, run in itertools.groupby(each, key=lambda pair: pair[0])
  ]
  return [
    Moment(label, frames[0], frames[-1] + 1)
    for label, frames in runs
    if label != BLANK
  ]


def words(
  said: Sequence[Moment], decode: Decode, *, frame: float, seconds: float
) -> list[Word]:
  """The words of labels, in whatever way their tokenizer spells.

  A label begins a word where the text of the word so far, with it, has one word
  more. What adds nothing to a text, such as a space, takes no time.

  Args:
    frame: seconds that a frame lasts.
    seconds: that the recording lasts, behind which nothing ends.
  """
  found: list[Word] = []
  labels: list[int] = []
  before, text, start, end = "", "", 0, 0

  def finish() -> None:
    if text:
      first, last = (min(each * frame, seconds) for each in (start, end))
      found.append(Word(first, last, before + text))

  for moment in said:
    longer = decode([*labels, moment.label]).strip()
    if text and len(longer.split()) > len(text.split()):
      finish()
      labels, before, text = [], "", ""
      longer = decode([moment.label]).strip()
    labels.append(moment.label)
    if longer != text:
      start, end = (start if text else moment.start), moment.end
      text = longer
    if len(labels) >= _LONGEST:
      kept = decode(labels[-_KEPT:]).strip()
      if kept and text.endswith(kept):  # no character is torn
        before, text = before + text.removesuffix(kept), kept
        del labels[:-_KEPT]
  finish()
  return found


def segments(
  words: Sequence[Word], *, pause: float, longest: float
) -> list[Segment]:
  """Words that are said at once.

  Args:
    pause: seconds of silence between two words that part them.
    longest: seconds that a segment lasts at most, but for a single word.
  """
  groups: list[list[Word]] = []
  for word in words:
    own = groups[-1] if groups else None
    if (
      own is None
      or word.start - own[-1].end >= pause
      or word.end - own[0].start > longest
    ):
      groups.append([word])
    else:
      own.append(word)
  return [
    Segment(own[0].start, own[-1].end, " ".join(word.text for word in own))
    for own in groups
  ]
