"""The training loop: every side effect, in order.

Restore; then, step by step: wait for the batch, dispatch the step, fetch the
metrics of the step before, write them, save by the clock, heed signals.
"""

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from tqdm import tqdm

from hra.checkpoint import Checkpoints
from hra.config import TrainConfig
from hra.data.batching import Batch
from hra.dims import SAMPLE_RATE
from hra.errors import Interrupted
from hra.files import write_aside
from hra.train.state import TrainState
from hra.train.step import Metrics


class Job(NamedTuple):
  """What the loop runs."""

  step: Callable[[TrainState, Any, Batch], tuple[TrainState, Metrics]]
  """Compiled; donates the state."""
  frozen: Any
  batches: Callable[[int], Iterator[Batch]]
  """The batches from a position in the plan, already on the devices."""
  steps: int
  """Joint steps of the whole job."""
  evaluate: Callable[[TrainState], Mapping[str, Any]] | None
  """Dev figures of a state, for metrics.jsonl."""


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
  """
  workdir = epath.Path(workdir)
  checkpoints = Checkpoints(workdir / "checkpoints", keep=config.keep)
  if checkpoints.latest is not None:
    state = checkpoints.restore(state)
  position = int(state.step)
  log = MetricsLog(workdir, position)
  bar = tqdm(
    total=job.steps,
    initial=position,
    unit="step",
    desc="training",
    disable=quiet,
    file=sys.stdout,
    mininterval=1.0,
    smoothing=0.05,
  )
  saved = time.monotonic()
  shapes: set[tuple[int, ...]] = set()
  window = _Window()
  with _signals() as asked, bar, contextlib.closing(log):
    for batch in job.batches(position):
      _announce(batch, shapes, bar)
      state, metrics = job.step(state, job.frozen, batch)
      window.add(metrics, batch)
      position += 1
      bar.update()
      if position % config.log_every == 0 or position == job.steps:
        line = {"step": position, **window.summary()}
        log.write(line)
        bar.set_postfix_str(
          f"loss {line['loss']:.3f}, {line['utterances_per_second']:.0f} utt/s"
        )
        window = _Window()
      if _due(position, config.eval_every) and job.evaluate is not None:
        log.write({"step": position, **job.evaluate(state)})
      if asked or time.monotonic() - saved > config.save_seconds:
        checkpoints.save(position, state)
        saved = time.monotonic()
      if asked:
        checkpoints.wait()
        raise Interrupted(
          f"stopped by {asked[0].name} at step {position} of {job.steps}; saved "
          f"in {workdir}: the same command goes on from there"
        )
    if job.evaluate is not None and not _due(position, config.eval_every):
      log.write({"step": position, **job.evaluate(state)})
  checkpoints.save(position, state)
  checkpoints.wait()
  checkpoints.close()
  return state


class MetricsLog:
  """metrics.jsonl and TensorBoard events; lines after `position` are dropped.

  What a killed job wrote after its last checkpoint is written again.
  """

  def __init__(self, workdir: epath.Path, position: int):
    from tensorboardX import SummaryWriter  # a leaf: 0.3 s of imports

    self._path = workdir / "metrics.jsonl"
    lines = self._path.read_text().splitlines() if self._path.exists() else []
    self._lines = [line for line in lines if _step_of(line) <= position]
    kept = "".join(f"{line}\n" for line in self._lines)
    write_aside(self._path, kept.encode())
    self._board = SummaryWriter(
      str(workdir / "tensorboard"), purge_step=position + 1, flush_secs=30
    )

  def write(self, line: Mapping[str, Any]) -> None:
    with self._path.open("a") as file:
      file.write(json.dumps(dict(line)) + "\n")
    for name, value in line.items():
      if name != "step" and isinstance(value, int | float):
        self._board.add_scalar(name, value, line["step"])

  def close(self) -> None:
    self._board.close()


class _Window:
  """Metrics of the steps since the last line; fetched only when asked."""

  def __init__(self):
    self._start = time.perf_counter()
    self._metrics: list[Metrics] = []
    self._seconds: list[jax.Array | np.ndarray] = []

  def add(self, metrics: Metrics, batch: Batch) -> None:
    self._metrics.append(metrics)
    self._seconds.append(batch.lengths_KB)

  def summary(self) -> dict[str, float]:
    metrics, lengths = jax.device_get((self._metrics, self._seconds))
    elapsed = time.perf_counter() - self._start
    weights = np.array([m.weight_K for m in metrics], np.float64)
    losses = np.array([m.loss_K for m in metrics], np.float64)
    utterances = sum(int((length > 0).sum()) for length in lengths)
    audio = sum(float(length.sum()) for length in lengths) / SAMPLE_RATE
    return {
      "seconds": elapsed,
      "loss": float((losses * weights).sum() / max(weights.sum(), 1.0)),
      "shared_norm": float(np.mean([m.shared_norm for m in metrics])),
      "row_norm": float(np.mean([m.row_norm_K.mean() for m in metrics])),
      "skipped": float(sum(int(m.skipped) for m in metrics)),
      "utterances_per_second": utterances / elapsed,
      "audio_seconds_per_second": audio / elapsed,
    }


@contextlib.contextmanager
def _signals() -> Iterator[list[signal.Signals]]:
  """Collects SIGTERM and SIGINT; a second one acts as if it were not caught."""
  asked: list[signal.Signals] = []
  watched = (signal.SIGTERM, signal.SIGINT)
  previous = {number: signal.getsignal(number) for number in watched}

  def note(number: int, frame: Any) -> None:
    del frame
    asked.append(signal.Signals(number))
    signal.signal(number, previous[signal.Signals(number)])

  for number in watched:
    signal.signal(number, note)
  try:
    yield asked
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)


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


def _due(position: int, every: int) -> bool:
  return every > 0 and position % every == 0


def _step_of(line: str) -> float:
  try:
    return json.loads(line)["step"]
  except json.JSONDecodeError:  # the last line of a killed job
    return float("inf")
