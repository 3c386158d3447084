"""Dev evaluations of each task by itself: best row so far, early stopping.

A task is evaluated when it has done a multiple of `every` own steps, and at its
end: by its own count, so that it is judged as it would be alone. Tasks that are
due wait until one of them is about to train again, and are evaluated together.
One in quarantine has done the own steps that it did before.
While the shared parameters train, an evaluation is noted and judges nothing. Where
nothing shared trains, what a task starts from is its first best row.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hra import processes
from hra.adapters import table
from hra.train.log import DEV_WER
from hra.train.optimizer import updates_done
from hra.train.state import TrainState

_CHUNK = 64
"""Tasks whose figures are written in one call, at most: one compiled program."""
_CHUNK_NUMBERS = 1 << 24
"""Of their rows together, at most: 64 MiB."""


class Plan(NamedTuple):
  """What a judge has to know of a job."""

  places: Callable[[int], Sequence[tuple[int, int]]]
  """A joint step -> its tasks, each with its own step."""
  own_steps_N: np.ndarray
  """int64, of the whole job."""
  patience_N: np.ndarray
  """int64, evaluations without a lower WER that stop a task; 0 is never."""
  every: int
  """Own steps between evaluations; 0 is only at the end."""
  frozen_from: int
  """The joint step from which on nothing shared trains."""
  max_bad_steps: int
  """Own steps lost to what is not finite that end a task's part."""
  from_start: bool = False
  """Whether tasks are judged before their first step as well."""


class Figures(NamedTuple):
  """Of one evaluation; rows as the tasks were asked for."""

  errors_J: np.ndarray
  """Word errors."""
  words_J: np.ndarray
  """Reference words."""


Evaluate = Callable[[TrainState, Sequence[int], Callable[[], None]], Figures]
"""A state, tasks, and what to call between batches (it may raise) -> figures."""


class Judge:
  """Who is due, and what the figures mean; the state keeps what they meant."""

  def __init__(
    self,
    state: TrainState,
    plan: Plan,
    evaluate: Evaluate | None,
    *,
    position: int,
  ):
    """Takes a job up at a joint step; what a stopped job left due is due.

    Args:
      evaluate: None where there is nothing to evaluate on.
    """
    self._plan = plan
    self._evaluate = evaluate
    self._own_N = np.zeros(len(plan.own_steps_N), np.int64)
    for earlier in range(position):
      self._count(earlier)
    self.look(state)
    self._due = {
      task
      for task in np.flatnonzero(self._done_N != self._evaluated_N).tolist()
      if self._is_due(task)
    }
    if plan.from_start and evaluate is not None:
      fresh_N = (self._done_N == 0) & ~self._heard_N
      self._due |= set(np.flatnonzero(fresh_N).tolist())

  @property
  def all_out(self) -> bool:
    """Whether no task takes part any more."""
    return not self._takes_part_N.any()

  @property
  def quarantined(self) -> list[int]:
    """Tasks that train no more, as far as was looked."""
    return np.flatnonzero(self._quarantined_N).tolist()

  def look(self, state: TrainState) -> None:
    """Fetches who takes part no more; waits for the step that made the state."""
    progress = state.progress._replace(best={})
    skipped_N, updates_N, progress = processes.fetch(
      (state.skipped_N, updates_done(state.rows_optimizer), progress)
    )
    self._quarantined_N = skipped_N >= self._plan.max_bad_steps
    self._takes_part_N = ~(progress.stopped_N | self._quarantined_N)
    self._stopped_N = progress.stopped_N
    self._heard_N = progress.words_N > 0
    self._unjudged_N = (progress.best_step_N < 0) & self._heard_N
    self._evaluated_N = progress.evaluated_N
    self._before_N = updates_N + skipped_N

  def trained(self, position: int) -> None:
    """Notes that joint step `position` was done."""
    for task in self._count(position):
      if self._is_due(task):
        self._due.add(task)

  def waits_for(self, position: int) -> bool:
    """Whether a task is due that trains in joint step `position`."""
    return any(task in self._due for task, _ in self._plan.places(position))

  def idle(self, position: int) -> bool:
    """Whether nobody of joint step `position` takes part any more."""
    places = self._plan.places(position)
    return not any(self._takes_part_N[task] for task, _ in places)

  def finish(self, state: TrainState) -> None:
    """At the end of a job: who wasn't evaluated at its end, or not judged, is due."""
    if self._evaluate is None:
      return
    self.look(state)
    open_N = self._unjudged_N | (self._evaluated_N != self._done_N)
    self._due = set(np.flatnonzero(open_N & ~self._stopped_N).tolist())

  def judge(
    self, state: TrainState, *, position: int, heed: Callable[[], None]
  ) -> tuple[TrainState, dict[str, float]]:
    """Evaluates who is due -> the state that knows of it, and a line for the log.

    The line has the WER over all tasks, each by its latest evaluation.
    """
    self.look(state)
    known_N = self._quarantined_N & (self._evaluated_N == self._done_N)
    known_N &= ~self._unjudged_N
    due = [task for task in sorted(self._due) if not known_N[task]]
    self._due.clear()
    if not due or self._evaluate is None:
      return state, {}
    figures = self._evaluate(state, due, heed)
    state = self._noted(
      state, due, figures, judging=position >= self._plan.frozen_from
    )
    self.look(state)
    progress = processes.fetch(state.progress._replace(best={}))
    words = int(progress.words_N.sum())
    wer = {DEV_WER: int(progress.errors_N.sum()) / words} if words else {}
    return state, wer | {
      "dev_tasks": len(due),
      "stopped": int(progress.stopped_N.sum()),
    }

  def _noted(
    self,
    state: TrainState,
    due: Sequence[int],
    figures: Figures,
    *,
    judging: bool,
  ) -> TrainState:
    size = _chunk(state)
    for start in range(0, len(due), size):
      part = slice(start, start + size)
      task_J = np.asarray(due[part])
      nobody_J = np.arange(len(task_J), size) + len(self._own_N)
      state = _note(
        state,
        np.append(task_J, nobody_J).astype(np.int32),
        *(
          np.resize(values.astype(np.int32), size)
          for values in (
            self._done_N[task_J],
            figures.errors_J[part],
            figures.words_J[part],
            self._plan.patience_N[task_J],
          )
        ),
        judging=judging,
      )
    return state

  @property
  def _done_N(self) -> np.ndarray:
    """Own steps, as evaluations count them."""
    return np.where(self._quarantined_N, self._before_N, self._own_N)

  def _count(self, position: int) -> list[int]:
    places = self._plan.places(position)
    for task, own_step in places:
      self._own_N[task] = own_step + 1
    return [task for task, _ in places]

  def _is_due(self, task: int) -> bool:
    if self._evaluate is None or self._stopped_N[task]:
      return False
    own, every = int(self._own_N[task]), self._plan.every
    on_the_way = every > 0 and own > 0 and own % every == 0
    return on_the_way or own == self._plan.own_steps_N[task]


def _chunk(state: TrainState) -> int:
  """Tasks whose figures are written in one call: of large rows, few."""
  tasks = max(len(state.skipped_N), 1)
  numbers = table.count(state.progress.best) // tasks
  return max(1, min(_CHUNK, _CHUNK_NUMBERS // max(numbers, 1)))


@functools.partial(jax.jit, donate_argnums=0, static_argnames="judging")
def _note(
  state: TrainState,
  task_J: jax.Array,
  own_J: jax.Array,
  errors_J: jax.Array,
  words_J: jax.Array,
  patience_J: jax.Array,
  *,
  judging: bool,
) -> TrainState:
  """Writes figures of tasks; of equal word errors, the earlier row stays."""
  progress = state.progress

  def put(leaf_N: jax.Array, value_J: jax.Array) -> jax.Array:
    return table.scatter(leaf_N, task_J, value_J.astype(leaf_N.dtype))

  progress = progress._replace(
    evaluated_N=put(progress.evaluated_N, own_J),
    errors_N=put(progress.errors_N, errors_J),
    words_N=put(progress.words_N, words_J),
  )
  if judging:
    step_J, best_J, waited_J, stopped_J = table.gather(
      (
        progress.best_step_N,
        progress.best_errors_N,
        progress.waited_N,
        progress.stopped_N,
      ),
      task_J,
    )
    better_J = (words_J > 0) & ((step_J < 0) | (errors_J < best_J))
    # Who has no dev words is not judged, and so doesn't wait either.
    waited_J = jnp.where(better_J, 0, waited_J + (words_J > 0))
    nowhere_J = len(state.skipped_N) + jnp.arange(len(task_J))
    improved_J = jnp.where(better_J, task_J, nowhere_J)
    progress = progress._replace(
      best_step_N=put(progress.best_step_N, jnp.where(better_J, own_J, step_J)),
      best_errors_N=put(
        progress.best_errors_N, jnp.where(better_J, errors_J, best_J)
      ),
      waited_N=put(progress.waited_N, waited_J),
      stopped_N=put(
        progress.stopped_N,
        stopped_J | ((patience_J > 0) & (waited_J >= patience_J)),
      ),
    )
    if jax.tree.leaves(progress.best):
      progress = progress._replace(
        best=table.scatter(
          progress.best, improved_J, table.gather(state.rows, task_J)
        )
      )
  return state._replace(progress=progress)
