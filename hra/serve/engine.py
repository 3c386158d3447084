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
import threading
import time
import weakref
from collections.abc import Iterable

import numpy as np

from hra.backbone.store import StoredBackbone
from hra.config import ChunksConfig, EngineConfig
from hra.errors import StorageError
from hra.evaluate import long
from hra.evaluate.groups import Grouping
from hra.evaluate.places import check_waves
from hra.evaluate.recognizer import Recognizer
from hra.evaluate.search import Search
from hra.serve import compilations, faults, lengths
from hra.serve.answers import Answers
from hra.serve.batching import Job
from hra.serve.compiler import Compiler
from hra.serve.device import Device
from hra.serve.driver import Driver
from hra.serve.endings import closed, died, settle
from hra.serve.interface import (
  Answer,
  Request,
  Resident,
  UnknownSpeaker,
)
from hra.serve.kinds import Kind, Kinds
from hra.serve.listing import Listing
from hra.serve.loads import Loads, resident
from hra.serve.programs import Sizes, Spoken
from hra.serve.queue import Queue
from hra.serve.reading import Row, Shelf
from hra.serve.rows import Rows

_Future = concurrent.futures.Future
_ANSWERING = 2
"""Threads that make answers: long recordings take a while to put together."""
_PATIENCE = 10.0
"""Seconds that `close` waits for a loader whom the store keeps."""


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
    self.words = emits
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
    self._damaged = faults.Damaged()
    self._answers = Answers(stored, config, cutting=cutting, emits=emits)
    self._begin(Grouping(stored), Spoken(stored, search, emits))

  def _begin(self, grouping: Grouping, spoken: Spoken) -> None:
    config = self._config
    kinds = Kinds(grouping)
    changed = self._changed.notify_all
    self._compiler = Compiler(
      spoken,
      self._sizes,
      config,
      Listing(self._store, grouping, kinds),
      self._device,
      needed=self._needed,
      lock=self._lock,
      changed=changed,
    )
    self._rows = Rows(
      self._store,
      kinds.of,
      config,
      self._compiler,
      lock=self._lock,
      changed=changed,
      released=self._device.release,
    )
    self._requests, self._answered = 0, 0
    self._closed = False
    self._answering = concurrent.futures.ThreadPoolExecutor(
      _ANSWERING, thread_name_prefix="answering"
    )
    self._loads = Loads(
      self._rows,
      self._compiler,
      lock=self._lock,
      changed=changed,
      later=self._answering,
    )
    self._driver = Driver(
      self._device,
      self._queue,
      self._rows,
      self._loads,
      self._compiler,
      changed=self._changed,
      partly=self._partly,
      heard=self._heard,
      give_up=self._give_up,
    )
    self._threads = [
      self._driver.thread,
      self._compiler.thread,
      *self._rows.threads,
    ]
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
    job.certain = self._answers.certain(job)
    with self._lock:
      self._check_open()
      self._queue.admit(job)
      self._requests += 1
      # No job in it: what was heard is let go without a collector of garbage.
      dropped = functools.partial(self._dropped, weakref.ref(job))
      job.future.add_done_callback(dropped)
      if request.task is None:
        job.reason = "asked"
        self._line_up(job)
        return job.future
      arrived = functools.partial(self._arrived, job)
      row = self._rows.want(request.task, arrived, owner=job)
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
      found, refused = self._store.listing()
    except (StorageError, OSError) as error:
      raise faults.gone("store", error) from error
    self._damaged.warn(refused)
    return sorted(entry.task for entry in found)

  def ready(self) -> bool:
    with self._lock:
      return self._device.programs is not None and self._driver.well

  def wait_until_ready(self, timeout: float | None = None) -> bool:
    """Returns when it is, or never will be; whether it is."""
    with self._lock:
      self._changed.wait_for(
        lambda: self._device.programs or self._driver.error or self._closed,
        timeout,
      )
    return self.ready()

  def figures(self) -> dict[str, float]:
    with self._lock:
      return {
        **self._driver.counted,
        "requests_total": self._requests,
        "answers_total": self._answered,
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
      for each in (self._compiler, self._rows, self._driver):
        each.close()
      computed = self._driver.computed
    self._give_up(closed(), apart=computed)
    for thread in (self._driver.thread, self._compiler.thread):
      thread.join()
    for thread in self._rows.threads:
      thread.join(_PATIENCE)
    self._answering.shutdown()
    self._give_up(closed())

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
    elif found.kind is not None and not self._compiler.serves(found.kind):
      again = functools.partial(self._arrived, job, found)
      fail = functools.partial(self._end_later, job)
      self._compiler.wait_for(job, found.kind, again, fail)
      return
    else:
      job.row = found
    self._line_up(job)

  def _line_up(self, job: Job) -> None:
    self._queue.line_up(job)
    self._changed.notify_all()

  def _end_later(self, job: Job, error: Exception) -> None:
    """Callers' callbacks run in threads that hold no lock."""
    if self._end(job):
      self._answering.submit(settle, job.future, error)

  def _end(self, job: Job) -> bool:
    """Nothing waits for it any more, nor keeps its wave; False if it had ended."""
    if not self._queue.end(job):
      return False
    if job.request.task is not None:
      self._rows.leave(job.request.task, job)
    self._compiler.leave(job)
    return True

  def _needed(self) -> set[Kind | None]:
    """Kinds without which a row that is held, or a request, couldn't be served."""
    parts = (self._rows, self._queue, self._loads)
    return set().union(*(each.kinds() for each in parts))

  # Without the lock.

  def _partly(self, job: Job) -> None:
    if job.certain is not None and not job.ended:
      self._answering.submit(job.certain.look)

  def _heard(self, job: Job) -> None:
    self._answering.submit(self._answer, job)

  def _answer(self, job: Job) -> None:
    try:
      answer = self._answers.of(job, now=time.monotonic())
    # It belongs to this request, and to no other.
    except Exception as error:
      settle(job.future, error)
      return
    with self._lock:
      self._answered += 1
    settle(job.future, answer)

  def _dropped(
    self, given: "weakref.ref[Job]", future: _Future[Answer]
  ) -> None:
    """A future is done: by its caller, if it was cancelled."""
    job = given()
    if job is not None and future.cancelled():
      with self._lock:
        waited = self._end(job)
      if waited:
        future.set_running_or_notify_cancel()

  def _give_up(
    self,
    error: Exception,
    only: Iterable[Job] | None = None,
    *,
    apart: Iterable[Job] = (),
  ) -> None:
    """Fails jobs; all of them, and all loads, unless it is told which."""
    with self._lock:
      jobs = list(self._queue.jobs if only is None else only)
      kept = set(apart)
      failed = [job for job in jobs if job not in kept and self._end(job)]
      wishes = list(self._loads.open) if only is None else []
    for job in failed:
      settle(job.future, error)
    for future in wishes:
      self._loads.grant(future, error)

  def _check_open(self) -> None:
    if self._driver.error is not None:
      raise died(self._driver.error)
    if self._closed:
      raise closed()
