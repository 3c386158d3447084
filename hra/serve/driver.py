"""The device's thread: turn by turn, rows into slots, a batch, what is heard in it."""

import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from hra.serve.batching import Batch, Job
from hra.serve.compiler import Compiler
from hra.serve.device import Device, Turn
from hra.serve.endings import died
from hra.serve.loads import Loads, resident
from hra.serve.queue import Queue
from hra.serve.reading import Row
from hra.serve.rows import Rows

_PROBES = 3
"""Times that a device may fail to compute anything before it is taken for broken."""
_PAUSE = 0.5
"""Seconds between them."""
_COUNTERS = (
  "batches_total",
  "batch_places_total",
  "batch_requests_total",
  "audio_seconds_total",
)


class Driver:
  """Its state, as that of what it drives, changes under the engine's lock."""

  def __init__(
    self,
    device: Device,
    queue: Queue,
    rows: Rows,
    loads: Loads,
    compiler: Compiler,
    *,
    changed: threading.Condition,
    partly: Callable[[Job], None],
    heard: Callable[[Job], None],
    give_up: Callable[[Exception, Iterable[Job] | None], None],
  ):
    """
    Args:
      changed: of the engine's lock; notified of anything to do.
      partly: told of a job of which more is heard, and not all; the lock is held.
      heard: told of a job all of whose pieces are heard; likewise.
      give_up: fails jobs; None are all, and all loads; the lock isn't held.
    """
    self.counted = dict.fromkeys(_COUNTERS, 0.0)
    self.error: Exception | None = None
    """Why the thread ended by itself."""
    self.thread = threading.Thread(target=self._run, name="device", daemon=True)
    self._device, self._queue, self._rows = device, queue, rows
    self._loads, self._compiler = loads, compiler
    self._changed, self._give_up = changed, give_up
    self._partly, self._heard = partly, heard
    self._turn: Turn | None = None
    self._failing = False
    self._closed = False

  @property
  def well(self) -> bool:
    """Whether the device computed what it was last given."""
    alive = self.thread.is_alive() and self.error is None
    return alive and not (self._failing or self._closed)

  @property
  def computed(self) -> list[Job]:
    """Jobs that are in a batch now."""
    batch = self._turn.batch if self._turn is not None else None
    return batch.jobs if batch is not None else []

  def close(self) -> None:
    """The batch that is computed is the last one."""
    self._closed = True
    self._changed.notify_all()

  def _run(self) -> None:
    try:
      while not self._closed:
        self._adopt()
        self._step()
    # Whatever it is, nothing is computed any more, and those who wait must hear it.
    except Exception as error:
      with self._changed:
        self.error = error
        self._changed.notify_all()
      self._give_up(died(error), None)

  def _adopt(self) -> None:
    """Goes on with the newest programs."""
    with self._changed:
      made, error = self._compiler.made, self._compiler.error
      if error is not None:
        raise error
      if made is not None and made is not self._device.made:
        self._device.adopt(made)
        self._changed.notify_all()

  def _step(self) -> None:
    turn = self._next()
    if turn is not None:
      self._do(turn)

  def _next(self) -> Turn | None:
    """Waits for something to do; None asks to look around."""
    with self._changed:
      self._turn = None
      while not self._closed and self._compiler.error is None:
        if self._compiler.made is not self._device.made:
          return None
        self._compiler.look_again()
        following = self._rows.expire(time.monotonic())
        if self._device.programs is not None:
          batch = self._queue.take()
          self._turn = self._device.plan(self._loads.take(), batch)
          if self._turn is not None:
            return self._turn
        wait = following - time.monotonic()
        self._changed.wait(None if math.isinf(wait) else max(wait, 0.0))
    return None

  def _do(self, turn: Turn) -> None:
    try:
      writing = self._device.write(turn)
      with self._changed:
        for row, future in turn.there:
          self._loads.grant_later(future, resident(row))
          self._let_go(row)
      begun = time.monotonic()
      heard = self._device.hear(turn)
      computing = time.monotonic() - begun
    # A batch that can't be computed fails its own requests; the next one is tried.
    except Exception as error:
      self._fail(turn, error)
      return
    if turn.batch is not None:
      with self._changed:
        self._note(turn, turn.batch, heard, writing, computing)

  def _note(
    self,
    turn: Turn,
    batch: Batch,
    heard: list[Any],
    writing: float,
    computing: float,
  ) -> None:
    """What was heard goes to its jobs. The lock is held."""
    for item, said in zip(batch.items, heard, strict=True):
      item.job.heard[item.place] = said
    written = {row for _, row, _ in turn.written}
    for job in batch.jobs:
      job.computing += computing
      job.loading += writing if job.row in written else 0.0
      if job.row is not None:
        self._let_go(job.row)
      if any(each is None for each in job.heard):
        self._partly(job)
      elif self._queue.end(job):
        self._heard(job)
    self._queue.follow(batch)
    counted = (1, batch.places, len(batch.items), batch.seconds)
    for name, number in zip(_COUNTERS, counted, strict=True):
      self.counted[name] += number

  def _let_go(self, row: Row) -> None:
    """Of its slot, if it is current no more."""
    if not self._rows.current(row):
      self._device.release(row)

  def _fail(self, turn: Turn, error: Exception) -> None:
    """Goes on if the device computes anything at all.

    Raises:
      Exception: it doesn't.
    """
    with self._changed:
      self._failing = True
      for _, future in turn.there:
        self._loads.grant_later(future, error)
    self._give_up(error, turn.batch.jobs if turn.batch is not None else ())
    for _ in range(_PROBES):
      try:
        with self._changed:
          self._device.clear()  # what stands in slots is not known
        self._device.probe()
      # It may recover: memory that others took comes back.
      except Exception as again:
        error = again
        time.sleep(_PAUSE)
      else:
        with self._changed:
          self._failing = False
        return
    raise error
