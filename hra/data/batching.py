"""Which utterances stand in which batch: pure planning, no audio.

Enters: lengths in samples, task names, a seed. Leaves: for every joint step a
length bucket and up to K distinct tasks, each at its own step; for every own
step of a task the B utterances of its minibatch. `Batch` is what the loader
makes of them.

A task forms its minibatches from its own data alone, so that they are the same
in every job that has the same bucket bounds; a job only chooses which tasks
advance together (arXiv 2203.12559 trains all Submodels in one such job).
"""

import functools
import heapq
import threading
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from hra.data.settings import Settings
from hra.errors import InputError
from hra.keys import host_rng, stable_hash

BUCKET_MULTIPLE = 1280
"""Bounds are multiples of 80 ms: whole frames after 8x subsampling of 10 ms."""

_PROGRESS_SHIFT = 32
_RANK_MASK = (1 << _PROGRESS_SHIFT) - 1


class Batch(NamedTuple):
  """K distinct tasks x B utterances: NumPy on the host, then arrays on devices."""

  wave_KBS: Any
  """float32, 0 after the end of an utterance."""
  lengths_KB: Any
  """int32 samples; 0 is an empty place."""
  labels_KBU: Any
  """int32, 0 after the end of a transcript."""
  label_lengths_KB: Any
  """int32."""
  augment_KB: Any
  """bool: whether SpecAugment may change the utterance; not so where it is
  noise-perturbed instead, and in empty places."""
  task_K: Any
  """int32 rows of the task table; an empty place carries the out-of-range id
  `tasks in the table + place`."""
  name_hash_K2: Any
  """uint32, `hra.keys.hash_words` of the task's name; 0 for empty places."""
  own_step_K: Any
  """int32, the task's own step."""
  settings_K: Settings
  """How the task's row is updated, each leaf [K]; 1 step for empty places."""
  shared_weight_K: Any
  """float32 >= 0, the task's weight in the shared gradients; 0 for empty places."""


class Minibatch(NamedTuple):
  """One own step of one task."""

  bucket: int
  indices_B: np.ndarray
  """int32 into the task's own utterances; -1 is empty."""


class JointStep(NamedTuple):
  """One step of the job: at most K tasks whose minibatches share a bucket."""

  bucket: int
  places: tuple[tuple[int, int], ...]
  """(index of the task, its own step), all tasks distinct."""


class EvaluationStep(NamedTuple):
  """One evaluation batch."""

  bucket: int
  indices_B: np.ndarray
  """int32 into the split; -1 is empty."""


def bucket_bounds(
  samples: np.ndarray, *, count: int, multiple: int = BUCKET_MULTIPLE
) -> tuple[int, ...]:
  """At most `count` lengths that minimise the total padding, ascending.

  Exact, by dynamic programming over the distinct lengths v_1 < ... < v_M after
  rounding up to `multiple`, N_j being the number of utterances up to v_j:

      cost_c(j) = min_{i < j} cost_{c-1}(i) + v_j (N_j - N_i)

  The bounds are a property of the experiment: a task has the same minibatches
  in two jobs only if both are given the same bounds.

  Raises:
    InputError: there is no utterance, or one without samples.
  """
  _check_samples(samples, where="bucket bounds")
  rounded = -(-np.asarray(samples, np.int64) // multiple) * multiple
  values, counts = np.unique(rounded, return_counts=True)
  below = np.concatenate([[0], np.cumsum(counts)])
  cost = np.append(0.0, np.full(len(values), np.inf))
  choices = []
  for _ in range(min(count, len(values))):
    previous, cost = cost, np.full(len(values) + 1, np.inf)
    choice = np.zeros(len(values) + 1, np.int64)
    for j in range(1, len(values) + 1):
      candidates = previous[:j] + values[j - 1] * (below[j] - below[:j])
      choice[j] = np.argmin(candidates)
      cost[j] = candidates[choice[j]]
    choices.append(choice)
  bounds = []
  j = len(values)
  for choice in reversed(choices):
    bounds.append(int(values[j - 1]))
    j = int(choice[j])
  return tuple(reversed(bounds))


def evaluation_plan(
  samples: np.ndarray, *, bounds: Sequence[int], batch: int
) -> list[EvaluationStep]:
  """Every utterance once, longest first, in batches of one static size.

  A batch takes the bucket of its longest utterance; the one that is partly
  empty holds the shortest utterances, where empty places cost least.

  Raises:
    InputError: there is no utterance, or one is longer than the last bound.
  """
  _check_samples(samples, where="evaluation")
  buckets = _assign(samples, bounds, where="evaluation")
  order = np.argsort(-np.asarray(samples, np.int64), kind="stable")
  steps = []
  for start in range(0, len(order), batch):
    chosen = order[start : start + batch]
    indices_B = np.full(batch, -1, np.int32)
    indices_B[: len(chosen)] = chosen
    steps.append(EvaluationStep(int(buckets[chosen[0]]), indices_B))
  return steps


class TaskStream:
  """The endless minibatches of one task, by random access.

  A pure function of (seed, name, own samples, bounds, B). In an epoch every
  utterance stands in exactly one minibatch. Within a bucket the utterances are
  shuffled and cut into groups of B; what is left over moves to the next larger
  bucket. The n mod B utterances that can't fill a minibatch are taken from the
  smallest bucket that has them, where empty places cost least. So the number of
  minibatches in each bucket is a constant, with C_b utterances up to bucket b
  and r = n mod B:  M_b = [r > 0] + floor((C_b - r) / B)  where C_b >= r.

  The j-th of a bucket's m_b minibatches stands at (j + u_b) / m_b of the epoch,
  with offsets u that are common to all tasks: buckets are interleaved evenly,
  and tasks with similar data stay in step, which keeps joint batches full.
  """

  def __init__(
    self,
    name: str,
    *,
    samples: np.ndarray,
    bounds: Sequence[int],
    utterances_per_batch: int,
    seed: int,
  ):
    """Plans for the task `name` whose utterances are `samples` long.

    Raises:
      InputError: the task has no utterance, or one that fits no bucket.
    """
    where = f"task {name!r}"
    _check_samples(samples, where=where)
    self.name = name
    self.bounds = tuple(bounds)
    self._size = utterances_per_batch
    self._seed = seed
    self._buckets = _assign(samples, bounds, where=where)
    counts = np.bincount(self._buckets, minlength=len(bounds))
    self._rest = len(samples) % utterances_per_batch
    per_bucket = _minibatches(counts, self._size)
    self._bucket_M = np.repeat(np.arange(len(bounds)), per_bucket)
    self._width_M = 1.0 / per_bucket[self._bucket_M]
    first_b = np.cumsum(per_bucket) - per_bucket
    rank_M = np.arange(len(self._bucket_M)) - first_b[self._bucket_M]
    self._start_M = rank_M * self._width_M
    self._cached: tuple[int, np.ndarray, np.ndarray] | None = None

  @property
  def minibatches_per_epoch(self) -> int:
    return len(self._bucket_M)

  def minibatch(self, own_step: int) -> Minibatch:
    """The bucket and the utterances of the task's `own_step`."""
    epoch, place = divmod(own_step, self.minibatches_per_epoch)
    cached = self._cached
    if cached is None or cached[0] != epoch:
      cached = (epoch, self._order(epoch), self._groups(epoch))
      self._cached = cached  # one reference: safe among threads
    _, order, groups_MB = cached
    chosen = order[place]
    return Minibatch(int(self._bucket_M[chosen]), groups_MB[chosen])

  def buckets(self) -> Iterator[int]:
    """The bucket of own step 0, 1, 2, ...; does no shuffling."""
    epoch = 0
    while True:
      yield from self._bucket_M[self._order(epoch)].tolist()
      epoch += 1

  def _order(self, epoch: int) -> np.ndarray:
    if self._bucket_M[0] == self._bucket_M[-1]:
      return np.arange(len(self._bucket_M))
    offset_b = _offsets(self._seed, epoch, len(self.bounds))
    return np.argsort(
      self._start_M + offset_b[self._bucket_M] * self._width_M, kind="stable"
    )

  def _groups(self, epoch: int) -> np.ndarray:
    rng = host_rng(self._seed, "minibatches", self.name, epoch)
    size, rest = self._size, self._rest
    rows_MB = []
    pool = np.zeros(0, np.int32)
    for bucket in range(len(self.bounds)):
      own = np.flatnonzero(self._buckets == bucket).astype(np.int32)
      pool = rng.permutation(np.concatenate([pool, own]))
      if rest and len(pool) >= rest:
        padding = np.full(size - rest, -1, np.int32)
        rows_MB.append(np.concatenate([pool[:rest], padding])[None])
        pool, rest = pool[rest:], 0
      whole = len(pool) // size * size
      rows_MB.append(pool[:whole].reshape(-1, size))
      pool = pool[whole:]
    return np.concatenate(rows_MB)


class JointPlan:
  """Which tasks advance together, at which own steps: a lazy sequence.

  Every step takes one bucket and the least-progressed tasks whose next
  minibatch is in it, at most K, ties by the hash of their names. The bucket is
  the one with the largest  2 min(ready, K) - (least progress ready)  so that
  batches are full and no task falls far behind. Every task gets exactly its
  steps. Neither the order of the table nor K changes what a task sees, only
  when. `plan[i]` simulates up to i once and keeps 8 bytes per place.

  Progress is the own step in units of the longest task,

      progress_i = floor(own step_i * max_j steps_j / steps_i)

  and so the own step itself where all have the same: tasks with unlike numbers
  of steps end together, and the longest is not left alone in its batches (128
  tasks of 13 to 1,274 steps, K = 16, 3 buckets: 2,344 joint steps, where equal
  own steps first would take 3,191).
  """

  def __init__(
    self,
    streams: Sequence[TaskStream],
    *,
    steps_per_task: int | Sequence[int],
    tasks_per_batch: int,
  ):
    """Plans for `streams`, in the order of the task table.

    Raises:
      InputError: two tasks share a name.
    """
    names = [stream.name for stream in streams]
    if len(set(names)) < len(names):
      twice = next(name for name in names if names.count(name) > 1)
      raise InputError(
        "tasks", expected="distinct names", got=f"{twice!r} more than once"
      )
    if isinstance(steps_per_task, int):
      steps_per_task = [steps_per_task] * len(streams)
    self._tasks_per_batch = tasks_per_batch
    self._task_of_rank = sorted(
      range(len(streams)), key=lambda i: (stable_hash(names[i]), names[i])
    )
    self._steps = [steps_per_task[i] for i in self._task_of_rank]
    self._longest = max(self._steps, default=0)
    self._done = array("q", [0]) * len(self._steps)
    self._next = [streams[i].buckets() for i in self._task_of_rank]
    self._ready: list[list[int]] = [
      [] for _ in range(max(len(stream.bounds) for stream in streams))
    ]
    for rank, steps in enumerate(self._steps):
      if steps > 0:
        heapq.heappush(self._ready[next(self._next[rank])], rank)
    self._bucket = array("i")
    self._end = array("q", [0])
    self._task = array("i")
    self._own_step = array("i")
    self._lock = threading.Lock()

  def __len__(self) -> int:
    """Joint steps of the whole job; the first call simulates it to its end."""
    self._simulate(None)
    return len(self._bucket)

  def __getitem__(self, position: int) -> JointStep:
    self._simulate(position + 1)
    if not 0 <= position < len(self._bucket):
      raise IndexError(position)
    span = slice(self._end[position], self._end[position + 1])
    places = tuple(zip(self._task[span], self._own_step[span], strict=True))
    return JointStep(self._bucket[position], places)

  def fill(self) -> float:
    """Filled places over all places of the whole job; 1 for no steps."""
    places = len(self) * self._tasks_per_batch
    return len(self._task) / places if places else 1.0

  def _simulate(self, count: int | None) -> None:
    if count is not None and len(self._bucket) >= count:
      return
    with self._lock:
      while any(self._ready) and (count is None or len(self._bucket) < count):
        self._advance()

  def _advance(self) -> None:
    """Appends one joint step; heaps hold `progress << 32 | rank`."""
    most = self._tasks_per_batch
    bucket = max(
      (b for b, ready in enumerate(self._ready) if ready),
      key=lambda b: (
        2 * min(len(self._ready[b]), most)
        - (self._ready[b][0] >> _PROGRESS_SHIFT),
        -self._ready[b][0],
      ),
    )
    ready = self._ready[bucket]
    taken = [heapq.heappop(ready) for _ in range(min(len(ready), most))]
    for key in taken:
      rank = key & _RANK_MASK
      self._task.append(self._task_of_rank[rank])
      self._own_step.append(self._done[rank])
      self._done[rank] += 1
      if self._done[rank] < self._steps[rank]:
        progress = self._done[rank] * self._longest // self._steps[rank]
        following = self._ready[next(self._next[rank])]
        heapq.heappush(following, progress << _PROGRESS_SHIFT | rank)
    self._end.append(len(self._task))
    self._bucket.append(bucket)  # last: its length says what is readable


@functools.lru_cache(maxsize=4096)
def _offsets(seed: int, epoch: int, buckets: int) -> np.ndarray:
  """Offsets in [0, 1) of the buckets in an epoch, common to all tasks."""
  return host_rng(seed, "buckets", epoch).random(buckets)


def _minibatches(counts: np.ndarray, size: int) -> np.ndarray:
  """Minibatches per bucket from utterances per bucket (see `TaskStream`)."""
  up_to = np.cumsum(counts)
  rest = up_to[-1] % size
  total = np.where(up_to >= rest, (rest > 0) + (up_to - rest) // size, 0)
  return np.diff(total, prepend=0)


def _check_samples(samples: np.ndarray, *, where: str) -> None:
  if len(samples) == 0:
    raise InputError(
      where,
      expected="at least one utterance",
      got="none",
      fix="remove the task or give it recordings",
    )
  if np.min(samples) < 1:
    raise InputError(
      where,
      expected="utterances of at least one sample",
      got=f"{int(np.sum(np.asarray(samples) < 1))} empty",
      fix="prepare the data again",
    )


def _assign(
  samples: np.ndarray, bounds: Sequence[int], *, where: str
) -> np.ndarray:
  """The smallest bucket that holds each utterance."""
  longest = int(np.max(samples))
  if longest > bounds[-1]:
    raise InputError(
      where,
      expected=f"utterances of at most {bounds[-1]} samples (the last bucket)",
      got=f"one of {longest}",
      fix="raise the last bucket bound or cut the recording",
    )
  return np.searchsorted(np.asarray(bounds), samples)
