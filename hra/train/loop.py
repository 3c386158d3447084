"""The training loop: every side effect, in order.

Restore; then, step by step: wait for the batch, dispatch the step, fetch the
metrics of the step before, write them, save by the clock, heed signals.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from etils import epath
from tqdm import tqdm

from hra.checkpoint import Checkpoints, abstract
from hra.config import TrainConfig
from hra.data.batching import Batch
from hra.dims import SAMPLE_RATE
from hra.errors import InputError, Interrupted
from hra.train.interrupt import Signals, Stop
from hra.train.log import DEV_WER, MetricsLog
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
  evaluate: Callable[[TrainState, Callable[[], None]], Mapping[str, Any]] | None
  """Dev figures of a state; calls its second argument between batches, and lets
  what that raises pass."""


def run(
  state: TrainState,
  job: Job,
  config: TrainConfig,
  *,
  workdir: epath.PathLike,
  quiet: bool = False,
) -> TrainState:
  """Trains from the newest checkpoint to the end, and saves.

  Raises:
    Interrupted: after SIGTERM or Ctrl-C, when the state is saved.
    InputError: data can't be read or (StorageError) something can't be written;
      what was done is saved first, if it can be.
  """
  workdir = epath.Path(workdir)
  checkpoints = Checkpoints(
    workdir / "checkpoints", keep=config.keep, keep_best=config.keep_best
  )
  if checkpoints.latest is not None:
    state = abstract(state)  # frees the arrays before others take their place
    state = checkpoints.restore(state)
  bar = tqdm(
    total=job.steps,
    initial=int(state.step),
    unit="step",
    desc="training",
    disable=quiet,
    file=sys.stdout,
    mininterval=1.0,
    smoothing=0.05,
  )
  log = MetricsLog(workdir, int(state.step))
  training = _Training(state, job, config, checkpoints=checkpoints, log=log)
  with Signals() as signals, bar:
    try:
      training.run(signals, bar)
    except Stop:
      training.save()
      checkpoints.wait()
      assert signals.first is not None
      raise Interrupted(
        f"stopped by {signals.first.name} at step {training.position} of "
        f"{job.steps}; saved in {workdir}: the same command goes on from there"
      ) from None
    except InputError:
      training.rescue()
      raise
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
  ):
    self.state = state
    self.position = self._start = int(state.step)
    self._job = job
    self._config = config
    self._checkpoints = checkpoints
    self._log = log
    self._saved = time.monotonic()

  def run(self, signals: Signals, bar: tqdm) -> None:
    """Trains to the end, evaluates where that is due, and saves."""
    job, config = self._job, self._config
    batches = job.batches(self.position)
    shapes: set[tuple[int, ...]] = set()
    window = Window()
    self._evaluate(signals)  # what a stopped job left out
    while True:
      with signals.interruptible():
        batch = next(batches, None)
      if batch is None:
        break
      _announce(batch, shapes, bar)
      self.state, metrics = job.step(self.state, job.frozen, batch)
      self.position += 1
      window.add(metrics, batch)
      bar.update()
      if self.position % config.log_every == 0 or self.position == job.steps:
        line = {"step": self.position, **window.summary()}
        self._log.write(line)
        bar.set_postfix_str(_postfix(line))
        window = Window()
      self._evaluate(signals)
      if time.monotonic() - self._saved > config.save_seconds:
        self.save()
      self._checkpoints.check()
      signals.heed()
    self.save()
    self._checkpoints.wait()
    signals.heed()

  def save(self, *, dev_wer: float | None = None) -> None:
    self._checkpoints.save(self.position, self.state, dev_wer=dev_wer)
    self._saved = time.monotonic()

  def rescue(self) -> None:
    """Saves after an error, which a save that fails as well doesn't replace."""
    if self.position > self._start:
      with contextlib.suppress(InputError):
        self.save()
        self._checkpoints.wait()

  def _evaluate(self, signals: Signals) -> None:
    """Dev figures where they are due: first in a checkpoint, then in the log."""
    every = self._config.eval_every
    due = self.position == self._job.steps or (
      every > 0 and self.position > 0 and self.position % every == 0
    )
    evaluate = self._job.evaluate
    logged = self._log.scored(self.position)
    done = logged and self._checkpoints.scored(self.position)
    if evaluate is None or not due or done:
      return
    figures = evaluate(self.state, signals.heed)
    self.save(dev_wer=figures[DEV_WER])
    if not logged:
      self._log.write({"step": self.position, **figures})


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
