"""Requests that are not answered yet, and pieces of theirs in the order of batches.

All of it happens under the engine's lock. Pieces of a long recording are in the line
a few at a time, each behind whoever came meanwhile, so that it starves nobody.
"""

from hra.serve.batching import Batch, Item, Job, bucket_of, choose
from hra.serve.interface import Overloaded
from hra.serve.kinds import Kind
from hra.serve.programs import Sizes


class Queue:
  """Bounded by pieces."""

  def __init__(self, sizes: Sizes, *, most: int):
    self.jobs: dict[Job, None] = {}
    """Not ended, in order."""
    self.waiting = 0
    """Pieces that are in no batch yet, wherever their Submodels are."""
    self._sizes, self._most = sizes, most
    self._window = max(1, sizes.batches[-1] // 2)
    self._line: list[Item] = []

  def admit(self, job: Job) -> None:
    """Takes it in, whatever it waits for.

    Raises:
      Overloaded: there is no room for its pieces.
    """
    count = len(job.pieces)
    self.check(self.waiting + count)
    self.jobs[job] = None
    job.left = count
    self.waiting += count

  def check(self, count: int) -> None:
    """Raises Overloaded where so many are too many to wait."""
    if count > self._most:
      raise Overloaded(
        "queue",
        expected=f"at most {self._most} requests and pieces that wait",
        got=str(count),
        fix="try again in a while",
      )

  def kinds(self) -> set[Kind | None]:
    """Of the Submodels of all requests."""
    return {job.row.kind for job in self.jobs if job.row is not None}

  def line_up(self, job: Job) -> None:
    """Its Submodel is there: it may be heard."""
    for _ in range(self._window):
      self._follow(job)

  def take(self) -> Batch | None:
    """The next batch, which leaves the line."""
    if not self._line:
      return None
    batch = choose(self._line, self._sizes)
    taken = set(batch.items)
    self._line = [item for item in self._line if item not in taken]
    for item in batch.items:
      item.job.left -= 1
      self.waiting -= 1
    return batch

  def follow(self, batch: Batch) -> None:
    """Lets the next pieces of its long recordings follow."""
    for item in batch.items:
      if not item.job.ended:
        self._follow(item.job)

  def end(self, job: Job) -> bool:
    """Takes it out; False where it has ended before."""
    if job.ended:
      return False
    job.ended = True
    del self.jobs[job]
    self.waiting -= job.left
    self._line = [item for item in self._line if item.job is not job]
    return True

  def _follow(self, job: Job) -> None:
    place = job.following
    if place < len(job.pieces):
      job.following += 1
      start, stop = job.pieces[place]
      bucket = bucket_of(stop - start, self._sizes.buckets)
      self._line.append(Item(job, place, bucket))
