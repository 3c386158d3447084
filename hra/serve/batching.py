"""Requests that wait -> the next batch.

In: pieces of recordings, in the order in which they are to be heard. Out: those that
are heard together, and the shape of their batch. The oldest is in every batch, so that
none waits for ever; the others are of its length or shorter.
"""

import bisect
import concurrent.futures
import dataclasses
from collections.abc import Sequence
from typing import Any

from hra.data.cutting import Piece
from hra.dims import SAMPLE_RATE
from hra.serve.certain import Certain
from hra.serve.interface import Answer, Reason, Request
from hra.serve.kinds import Kind
from hra.serve.programs import Sizes
from hra.serve.reading import Row

_COMPANION = 0.5
"""Of a batch's length, that one has at least who makes it larger."""
_FULL = 0.5
"""Of a batch's places, that are taken at least where a smaller one would do."""


@dataclasses.dataclass(eq=False)
class Job:
  """A request on its way."""

  request: Request
  future: "concurrent.futures.Future[Answer]"
  pieces: Sequence[Piece]
  heard: list[Any]
  """Of each piece; None before it is heard."""
  submitted: float
  certain: Certain | None = None
  """Where it is asked for, and there are several pieces."""
  row: Row | None = None
  reason: Reason | None = None
  """Why there is no row."""
  following: int = 0
  """The first piece that is not in the queue yet."""
  left: int = 0
  """Pieces that aren't in a batch yet."""
  loading: float = 0.0
  computing: float = 0.0
  ended: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
  """A piece of a recording."""

  job: Job
  place: int
  bucket: int
  """Samples that it is padded to at least."""


class Batch:
  """Recordings that are heard together."""

  def __init__(self, items: list[Item], *, places: int):
    self.items = items
    self.places = places
    self.samples = items[0].bucket

  @property
  def jobs(self) -> list[Job]:
    """Each once."""
    return list(dict.fromkeys(item.job for item in self.items))

  @property
  def seconds(self) -> float:
    """Of speech in it."""
    pieces = [item.job.pieces[item.place] for item in self.items]
    return sum(stop - start for start, stop in pieces) / SAMPLE_RATE


def bucket_of(samples: int, buckets: Sequence[int]) -> int:
  """The shortest that holds so many; there is one."""
  return buckets[bisect.bisect_left(buckets, samples)]


def choose(waiting: Sequence[Item], sizes: Sizes) -> Batch:
  """The next batch.

  Its length is the oldest one's. Others of that length, or of at least half of it,
  come in order of age, and decide how many places there are: the next size that half
  fills, else the one before. Shorter ones take places that are left over, which cost
  nothing. Of one kind no more Submodels come together than there are slots.

  Args:
    waiting: oldest first; at least one.
  """
  head = waiting[0]
  alike = [
    item
    for item in waiting
    if _COMPANION * head.bucket <= item.bucket <= head.bucket
  ]
  shorter = [i for i in waiting if i.bucket < _COMPANION * head.bucket]
  taken = _distinct(alike, most=sizes.batches[-1], slots=sizes.slots)
  places = places_for(len(taken), sizes.batches)
  taken = taken[:places]
  if len(taken) < places:
    taken = _distinct([*taken, *shorter], most=places, slots=sizes.slots)
  return Batch(taken, places=places)


def places_for(count: int, sizes: Sequence[int]) -> int:
  """Of a batch that so many want to be in; not all of them may find one."""
  above = bisect.bisect_left(sizes, count)
  if above == len(sizes):
    return sizes[-1]
  if above and count < _FULL * sizes[above]:
    return sizes[above - 1]
  return sizes[above]


def _distinct(items: Sequence[Item], *, most: int, slots: int) -> list[Item]:
  """The first of them for whose rows there are slots."""
  rows: dict[Kind, set[Row]] = {}
  taken: list[Item] = []
  for item in items:
    if len(taken) == most:
      break
    row = item.job.row
    if row is not None and row.kind is not None:
      own = rows.setdefault(row.kind, set())
      if row not in own and len(own) == slots:
        continue
      own.add(row)
    taken.append(item)
  return taken
