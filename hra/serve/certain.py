"""What is said for certain in a long recording of which pieces are still to be heard.

In: pieces as they are heard, in any order. Out: a text that grows by whole words and
is a beginning of that of the whole.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from hra.data.cutting import Piece
from hra.evaluate.long import Way


class Certain:
  """Of one recording; safe from any thread."""

  def __init__(
    self,
    pieces: Sequence[Piece],
    heard: Sequence[Any],
    tell: Callable[[str], None],
    *,
    way: Way,
    unit: int,
    decode: Callable[[Sequence[int]], str],
  ):
    """
    Args:
      heard: in each piece; None where it isn't heard yet.
      tell: told all that is certain, where it is more than before.
      unit: samples of a frame.
    """
    self._heard, self._tell, self._decode = heard, tell, decode
    # It takes one piece for each that it is asked for.
    self._settled = way.settle(pieces, heard, unit)
    self._labels: list[int] = []
    self._pieces, self._told = 0, 0
    self._lock = threading.Lock()

  def look(self) -> None:
    """Looks at what was heard by now."""
    with self._lock:
      before = self._pieces
      while (
        self._pieces < len(self._heard)
        and self._heard[self._pieces] is not None
      ):
        self._labels += next(self._settled)
        self._pieces += 1
      if self._pieces == before:
        return
      text = whole_words(self._decode(self._labels))
      if len(text) > self._told:
        self._told = len(text)
        self._tell(text)


def whole_words(text: str) -> str:
  """Without the last word, which may go on, and the space before it."""
  first, *rest = text.rsplit(maxsplit=1) or [""]
  return first if rest else ""
