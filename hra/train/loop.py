"""The training loop: every side effect, in order.

Restore; then, step by step: evaluate who is due, wait for the batch, dispatch the
step, write metrics where they are due, save by the clock, heed signals.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from etils import epath
from tqdm import tqdm

from hra import processes
from hra.checkpoint import Checkpoints, abstract
from hra.config import TrainConfig
from hra.data.batching import Batch
from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.train.interrupt import Signals
from hra.train.judge import Evaluate, Judge, Plan
from hra.train.log import DEV_WER, MetricsLog
from hra.train.observer import Ideal, Observer
from hra.train.session import Keeper, agreed, carry_out
from hra.train.state import TrainState
from hra.train.step import Metrics
from hra.train.window import Window


class Job(NamedTuple):
  """What the loop runs."""

  step: Callable[[TrainState, Any, Batch], tuple[TrainState, Metrics]]
  """Compiled; donates the state."""
  frozen: Any
  batches: Callable[[int], Iterator[Batch]]
  """The batches from a position in the plan, already on the devices."""
  steps: int
  """Joint steps of the whole job."""
  tasks: Sequence[str]
  """Names, in the order of the rows."""
  plan: Plan
  """When tasks are evaluated and judged."""
  evaluate: Evaluate | None
  """Dev figures of some tasks; None where there is no dev split."""
  ideal: Ideal | None = None
  """Seconds of a step's FLOPs; None on devices whose speed isn't known."""


def run(
  state: TrainState,
  job: Job,
  config: TrainConfig,
  *,
  workdir: epath.PathLike,
  quiet: bool = False,
  profile: range | None = None,
) -> TrainState:
  """Trains from the newest checkpoint to the end, and saves.

  Args:
    profile: steps to capture (`hra.train.profiler`).

  Raises:
    Interrupted: after SIGTERM or Ctrl-C, when the state is saved.
    InputError: data can't be read or (StorageError) something can't be written;
      what was done is saved first, if it can be.
  """
  since = time.monotonic()
  workdir = epath.Path(workdir)
  checkpoints = Checkpoints(
    workdir / "checkpoints", keep=config.keep, keep_best=config.keep_best
  )
  if processes.first_says(checkpoints.latest) is not None:
    state = abstract(state)  # frees the arrays before others take their place
    state = checkpoints.restore(state)
  position = agreed(int(state.step), workdir)
  log = MetricsLog(workdir, position)
  watch = Observer(
    workdir,
    config,
    position=position,
    since=since,
    profile=profile,
    ideal=job.ideal,
  )
  training = _Training(
    state, job, config, checkpoints=checkpoints, log=log, watch=watch
  )
  with watch:
    carry_out(training, steps=job.steps, workdir=workdir, quiet=quiet)
  checkpoints.close()
  return training.state


class _Training:
  """A state on its way: wherever Stop is raised, it may be saved as it is."""

  def __init__(
    self,
    state: TrainState,
    job: Job,
    config: TrainConfig,
    *,
    checkpoints: Checkpoints,
    log: MetricsLog,
    watch: Observer,
  ):
    self.state = state
    self.position = int(state.step)
    self._job = job
    self._config = config
    self.keeper = Keeper(
      checkpoints, seconds=config.save_seconds, around=watch.saving
    )
    self._watch = watch
    self._log = log
    self._judge = Judge(state, job.plan, job.evaluate, position=self.position)
    self._window = Window()
    self._told: set[int] = set()

  def run(self, signals: Signals, bar: tqdm) -> None:
    """Trains to the end, evaluates where that is due, and saves."""
    job, config, judge = self._job, self._config, self._judge
    batches = job.batches(self.position)
    shapes: set[tuple[int, ...]] = set()
    self._tell(bar)
    while self.position < job.steps:
      if judge.waits_for(self.position):
        self._evaluate(signals)
      if judge.all_out:
        self._check_adapts()
        self._skip_to(job.steps, bar)
        break
      with signals.interruptible(), self._watch.doing("data"):
        batch = next(batches)
      if judge.idle(self.position):
        self._skip_to(self.position + 1, bar)
        continue
      _announce(batch, shapes, bar)
      with self._watch.step(self.position, self.state, job.frozen, batch):
        self.state, metrics = job.step(self.state, job.frozen, batch)
      self.keeper.changed = True
      judge.trained(self.position)
      self.position += 1
      self._watch.done(self.position, self.state, metrics)
      self._window.add(metrics, batch)
      bar.update()
      if self.position % config.log_every == 0:
        self._write(bar)
      self.keeper.save_in_time(self.position, self.state)
      signals.heed()
    self._finish(signals, bar)

  def _check_adapts(self) -> None:
    """A task in quarantine has its best row; a backbone would be half trained."""
    if self._job.frozen is None and self._judge.quarantined:
      raise InputError(
        f"step {self.position}",
        expected="losses and gradients that are finite",
        got=f"{self._config.max_bad_steps} of the backbone's that were not",
        fix="begin another run with a lower learning rate, or with a larger "
        "config.train.max_bad_steps, which leaves such steps out",
      )

  def _finish(self, signals: Signals, bar: tqdm) -> None:
    self._write(bar)
    self._judge.finish(self.state)
    self._evaluate(signals)
    self.keeper.save_and_wait(self.position, self.state)
    signals.heed()

  def _skip_to(self, position: int, bar: tqdm) -> None:
    """Passes over joint steps in which nobody trains."""
    bar.update(position - self.position)
    self.position = position
    self.keeper.changed = True
    self.state = self.state._replace(
      step=jnp.full_like(self.state.step, position)
    )

  def _write(self, bar: tqdm) -> None:
    """A line of metrics, if steps were done since the last; and who dropped out."""
    if not self._window:
      return
    line = {"step": self.position, **self._window.summary()}
    line |= self._watch.line()
    self._log.write(line)
    bar.set_postfix_str(_postfix(line))
    self._window = Window()
    self._judge.look(self.state)
    self._tell(bar)

  def _tell(self, bar: tqdm) -> None:
    """Names the tasks that are in quarantine, each once in a process."""
    for task in self._judge.quarantined:
      if task not in self._told and processes.is_first():
        self._told.add(task)
        bar.write(
          f"quarantined task {self._job.tasks[task]!r}: a loss or gradient was "
          "not finite; its row is what it was before, and trains no more",
          file=sys.stdout,
        )

  def _evaluate(self, signals: Signals) -> None:
    """Dev figures of who is due; when pretraining, also of a checkpoint."""

    def heed() -> None:
      self._watch.alive()
      signals.heed()

    with self._watch.doing("evaluation"):
      self.state, line = self._judge.judge(
        self.state, position=self.position, heed=heed
      )
    if not line:
      return
    self.keeper.changed = True
    # First in the log: a state that is saved is evaluated no more.
    if not self._log.scored(self.position):
      self._log.write({"step": self.position, **line})
    if self._job.frozen is None and DEV_WER in line:
      self.keeper.save(self.position, self.state, figure=line[DEV_WER])


def _postfix(line: Mapping[str, Any]) -> str:
  loss = "none" if line["loss"] is None else f"{line['loss']:.3f}"
  return f"loss {loss}, {line['utterances_per_second']:.0f} utt/s"


def _announce(batch: Batch, shapes: set[tuple[int, ...]], bar: tqdm) -> None:
  shape = batch.wave_KBS.shape
  if shape not in shapes:
    shapes.add(shape)
    if not bar.disable:
      seconds = shape[-1] / SAMPLE_RATE
      bar.write(
        f"compiling the step for {shape[0]} x {shape[1]} utterances of up to "
        f"{seconds:.1f} s (kept in the compilation cache)",
        file=sys.stdout,
      )
