"""Long recordings -> pieces of one length that overlap.

In: how many samples there are. Out: where each piece begins and ends. What is heard
in them is put together by `hra.evaluate.stitching`.
"""

from typing import NamedTuple


class Piece(NamedTuple):
  """Samples of a recording."""

  start: int
  stop: int


def cut(samples: int, *, size: int, overlap: int, unit: int) -> list[Piece]:
  """Pieces that begin at multiples of `unit` and cover all of a recording.

  Each is `size` long, but for the last, which ends where the recording does and may
  be less than a unit shorter. Neighbours share `overlap` samples, the last two
  maybe more; a recording of `size` at most is one piece.

  Args:
    size: a multiple of `unit`.
    overlap: likewise, and less.
  """
  if samples <= size:
    return [Piece(0, samples)]
  last = -(-(samples - size) // unit) * unit
  starts = [*range(0, last, size - overlap), last]
  return [Piece(start, min(start + size, samples)) for start in starts]
