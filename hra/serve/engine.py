"""The engine: requests of any speakers -> answers, by one resident backbone.

    submit      the queue; a loader, where its Submodel isn't held (`hra.serve.rows`)
    device      one thread, turn by turn: rows into slots, a batch, what is heard
    answering   labels -> texts, words and receipts, in threads of their own

Rows enter their slots right before the batch that needs them, in the thread that also
runs programs: nothing is read while it is written, and the one who waits longest is in
every batch, however many speakers take turns in however few slots.
"""

import concurrent.futures
import functools
import math
import threading
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from hra.backbone.store import StoredBackbone
from hra.config import ChunksConfig, EngineConfig
from hra.errors import StorageError
from hra.evaluate import long
from hra.evaluate.groups import Grouping
from hra.evaluate.places import check_waves
from hra.evaluate.recognizer import Recognizer
from hra.evaluate.search import Search
from hra.serve import compilations, lengths
from hra.serve.answers import Answers
from hra.serve.batching import Batch, Job
from hra.serve.compiler import Compiler, kinds_in
from hra.serve.device import Device, Turn
from hra.serve.endings import closed, died, settle
from hra.serve.interface import (
  Answer,
  Request,
  Resident,
  StoreGone,
  UnknownSpeaker,
)
from hra.serve.kinds import Kinds
from hra.serve.loads import Loads, resident
from hra.serve.programs import Sizes, Spoken
from hra.serve.queue import Queue
from hra.serve.rows import Row, Rows, Shelf

_Future = concurrent.futures.Future
_ANSWERING = 2
"""Threads that make answers: long recordings take a while to put together."""
_MOST_FAILURES = 3
"""Batches in a row that may fail before the device is taken for broken."""
_PATIENCE = 10.0
"""Seconds that `close` waits for a loader whom the store keeps."""
_COUNTERS = (
  "requests_total",
  "answers_total",
  "batches_total",
  "batch_places_total",
  "batch_requests_total",
  "audio_seconds_total",
)


class Engine:
  """`hra.serve.interface.Engine`; close it, or use it as a context."""

  def __init__(
    self,
    backbone: Recognizer | StoredBackbone,
    store: Shelf,
    config: EngineConfig | None = None,
    *,
    search: Search | None = None,
    chunks: ChunksConfig | None = None,
  ):
    """Begins to compile; requests are taken at once and wait for that.

    Args:
      store: of Submodels; each is read when it is asked for.
      search: None is greedy.
      chunks: what is long, and its pieces; None is as configured by default.
    """
    stored = backbone.stored if isinstance(backbone, Recognizer) else backbone
    config = config or EngineConfig()
    cutting = long.cutting(
      stored, chunks or ChunksConfig(), greedy=search is None
    )
    emits = search is None and stored.config.decoder.kind in long.WAYS
    self._sizes = Sizes(
      buckets=lengths.buckets(stored, cutting, config.bucket_seconds),
      batches=config.batch_sizes,
      slots=config.slots,
    )
    self._config, self._store, self._cutting = config, store, cutting
    self._lock = threading.RLock()
    self._changed = threading.Condition(self._lock)
    """For the device's thread, and for whoever waits for that."""
    self._device = Device()
    self._queue = Queue(self._sizes, most=config.queue)
    self._answers = Answers(stored, config, cutting=cutting, emits=emits)
    self._begin(Grouping(stored), Spoken(stored, search, emits))

  def _begin(self, grouping: Grouping, spoken: Spoken) -> None:
    config = self._config
    kinds = Kinds(grouping, most=config.kinds)
    first = kinds_in(self._store, grouping, kinds, most=config.kinds)
    changed = self._changed.notify_all
    self._compiler = Compiler(
      spoken, self._sizes, first=first, lock=self._lock, changed=changed
    )
    self._rows = Rows(
      self._store,
      kinds.of,
      config,
      lock=self._lock,
      changed=changed,
      released=self._device.release,
    )
    self._counted = dict.fromkeys(_COUNTERS, 0.0)
    self._turn: Turn | None = None
    self._failures = 0
    self._dead: Exception | None = None
    self._closed = False
    self._answering = concurrent.futures.ThreadPoolExecutor(
      _ANSWERING, thread_name_prefix="answering"
    )
    self._loads = Loads(
      self._rows,
      self._compiler,
      self._device,
      lock=self._lock,
      changed=changed,
      later=self._answering,
    )
    self._thread = threading.Thread(
      target=self._run, name="device", daemon=True
    )
    self._threads = [self._thread, self._compiler.thread, *self._rows.threads]
    compilations.listen()
    for thread in self._threads:
      thread.start()

  def __enter__(self) -> "Engine":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def submit(self, request: Request) -> _Future[Answer]:
    check_waves([request.wave_S])
    wave_S = np.asarray(request.wave_S, np.float32)
    pieces = lengths.pieces(
      len(wave_S),
      self._cutting,
      longest=self._sizes.buckets[-1],
      most=self._config.queue,
    )
    job = Job(
      request=request._replace(wave_S=wave_S),
      future=_Future(),
      pieces=pieces,
      heard=[None] * len(pieces),
      submitted=time.monotonic(),
    )
    with self._lock:
      self._check_open()
      self._queue.admit(job)
      self._counted["requests_total"] += 1
      job.future.add_done_callback(functools.partial(self._dropped, job))
      if request.task is None:
        job.reason = "asked"
        self._line_up(job)
        return job.future
      arrived = functools.partial(self._arrived, job)
      row = self._rows.want(request.task, arrived)
      if row is not None:
        self._arrived(job, row, waited=False)
    return job.future

  def load(self, task: str) -> _Future[Resident]:
    with self._lock:
      self._check_open()
      self._queue.check(len(self._loads.open) + 1)
      return self._loads.ask(task)

  def unload(self, task: str) -> bool:
    with self._lock:
      dropped = self._rows.drop(task)
      self._changed.notify_all()  # its slot is to be wiped
    return dropped is not None

  def resident(self) -> list[Resident]:
    with self._lock:
      return [resident(row) for row in self._device.rows()]

  def tasks(self) -> list[str]:
    try:
      return sorted(entry.task for entry in self._store.entries())
    except (StorageError, OSError) as error:
      raise StoreGone(
        "store", expected="one that answers", got=str(error), fix="try later"
      ) from error

  def ready(self) -> bool:
    with self._lock:
      well = not (self._closed or self._dead or self._failures)
      compiled = self._device.programs is not None
      return well and compiled and self._thread.is_alive()

  def wait_until_ready(self, timeout: float | None = None) -> bool:
    """Returns when it is, or never will be; whether it is."""
    with self._lock:
      self._changed.wait_for(
        lambda: self._device.programs or self._dead or self._closed, timeout
      )
    return self.ready()

  def figures(self) -> dict[str, float]:
    with self._lock:
      return {
        **self._counted,
        "requests_waiting": self._queue.waiting,
        "slots_used": len(self._device.rows()),
        "host_rows": len(self._rows),
        "loads_total": self._rows.loads,
        "load_seconds_total": self._rows.load_seconds,
        "evictions_total": self._device.evictions,
        "store_answering": float(self._rows.answering),
        "compilations_total": compilations.count(self._threads),
      }

  def close(self) -> None:
    with self._lock:
      self._closed = True
      self._compiler.close()
      self._rows.close()
      self._changed.notify_all()
      batch = self._turn.batch if self._turn is not None else None
    self._give_up(closed(), apart=batch.jobs if batch else ())
    for thread in (self._thread, self._compiler.thread):
      thread.join()
    for thread in self._rows.threads:
      thread.join(_PATIENCE)
    self._answering.shutdown()
    self._give_up(closed())

  # The device's thread.

  def _run(self) -> None:
    try:
      while not self._closed:
        self._adopt()
        turn = self._next()
        if turn is not None:
          self._do(turn)
    # Whatever it is, nothing is computed any more, and those who wait must hear it.
    except Exception as error:
      with self._lock:
        self._dead = error
        self._changed.notify_all()
      self._give_up(died(error))

  def _adopt(self) -> None:
    """Goes on with the newest programs."""
    with self._lock:
      made, error = self._compiler.made, self._compiler.error
    if error is not None:
      raise error
    if made is not None and made is not self._device.programs:
      tables = self._device.missing(made)
      with self._lock:
        self._device.adopt(made, tables)
        self._changed.notify_all()

  def _next(self) -> Turn | None:
    """Waits for something to do; None asks to look around."""
    with self._lock:
      self._turn = None
      while not self._closed and self._compiler.error is None:
        if self._compiler.made is not self._device.programs:
          return None
        self._compiler.look_again(self._device.kinds)
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
      for row, future in turn.there:
        self._loads.grant(future, resident(row))
      begun = time.monotonic()
      heard = self._device.hear(turn)
      computing = time.monotonic() - begun
    # A batch that can't be computed fails its own requests; the next one is tried.
    except Exception as error:
      self._fail(turn, error)
      return
    with self._lock:
      self._failures = 0
      for row, _ in turn.there:
        self._let_go(row)
      if turn.batch is not None:
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
      if all(each is not None for each in job.heard) and self._queue.end(job):
        self._answering.submit(self._answer, job)
    self._queue.heard(batch)
    counted = {
      "batches_total": 1,
      "batch_places_total": batch.places,
      "batch_requests_total": len(batch.items),
      "audio_seconds_total": batch.seconds,
    }
    for name, number in counted.items():
      self._counted[name] += number

  def _let_go(self, row: Row) -> None:
    """Of its slot, if it is current no more. The lock is held."""
    if not self._rows.current(row):
      self._device.release(row)

  def _fail(self, turn: Turn, error: Exception) -> None:
    with self._lock:
      self._device.clear()  # what stands in slots is not known
      self._failures += 1
    for _, future in turn.there:
      self._loads.grant(future, error)
    self._give_up(error, only=turn.batch.jobs if turn.batch else ())
    if self._failures >= _MOST_FAILURES:
      raise error

  # What arrives; the lock is held.

  def _arrived(
    self, job: Job, found: Row | Exception, *, waited: bool = True
  ) -> None:
    """A job's Submodel, or why there is none."""
    if job.ended:
      return
    if waited:
      job.loading = time.monotonic() - job.submitted
    if isinstance(found, UnknownSpeaker) and job.request.fallback:
      job.reason = "unknown"
    elif isinstance(found, Exception):
      self._end_later(job, found)
      return
    elif found.not_better and job.request.guard:
      job.reason = "not better"
    elif found.kind is not None and found.kind not in self._device.kinds:
      again = functools.partial(self._arrived, job, found)
      self._compiler.wait_for(
        found.kind, again, functools.partial(self._end_later, job)
      )
      return
    else:
      job.row = found
    self._line_up(job)

  def _line_up(self, job: Job) -> None:
    self._queue.line_up(job)
    self._changed.notify_all()

  def _end_later(self, job: Job, error: Exception) -> None:
    """Callers' callbacks run in threads that hold no lock."""
    if self._queue.end(job):
      self._answering.submit(settle, job.future, error)

  # Without the lock.

  def _answer(self, job: Job) -> None:
    try:
      answer = self._answers.of(job, now=time.monotonic())
    # It belongs to this request, and to no other.
    except Exception as error:
      settle(job.future, error)
      return
    with self._lock:
      self._counted["answers_total"] += 1
    settle(job.future, answer)

  def _dropped(self, job: Job, future: _Future[Answer]) -> None:
    """A future is done: by its caller, if it was cancelled."""
    if future.cancelled():
      with self._lock:
        waited = self._queue.end(job)
      if waited:
        future.set_running_or_notify_cancel()

  def _give_up(
    self,
    error: Exception,
    *,
    only: Iterable[Job] | None = None,
    apart: Iterable[Job] = (),
  ) -> None:
    """Fails jobs; all of them, and all loads, unless it is told which."""
    with self._lock:
      jobs = list(self._queue.jobs if only is None else only)
      kept = set(apart)
      failed = [job for job in jobs if job not in kept and self._queue.end(job)]
      wishes = list(self._loads.open) if only is None else []
    for job in failed:
      settle(job.future, error)
    for future in wishes:
      self._loads.grant(future, error)

  def _check_open(self) -> None:
    if self._dead is not None:
      raise died(self._dead)
    if self._closed:
      raise closed()
