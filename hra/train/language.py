"""Training a language model: its pure step, and the loop with every side effect.

Enters: sentences in batches. Leaves: a state with the model; metrics, checkpoints.
The loss is in nats for each label and each sentence's end; its exponential is the
perplexity. A step whose loss or gradient is not finite changes nothing.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from tqdm import tqdm

from hra import processes
from hra.checkpoint import Checkpoints, abstract
from hra.config import TrainConfig
from hra.data.sentences import SentenceBatch
from hra.data.settings import Settings
from hra.decoders import language_model
from hra.decoders.interface import Loss
from hra.decoders.language_model import LanguageModule
from hra.errors import InputError
from hra.train.interrupt import Signals
from hra.train.log import MetricsLog
from hra.train.observer import Observer
from hra.train.session import Keeper, agreed, carry_out

DEV_LOSS = "dev_loss"
"""Nats for each label, in metrics.jsonl."""


class LanguageState(NamedTuple):
  """A pytree: saved whole, restored bit for bit."""

  step: jax.Array
  model: LanguageModule
  optimizer: Any
  skipped: jax.Array
  """Steps that were not finite."""


class Metrics(NamedTuple):
  """Of one step."""

  loss: Loss
  norm: jax.Array
  """Of the gradient."""


class Job(NamedTuple):
  """What the loop runs."""

  step: Callable[[LanguageState, SentenceBatch], tuple[LanguageState, Metrics]]
  """Compiled; donates the state."""
  batch: Callable[[int], SentenceBatch]
  """Of a step."""
  steps: int
  dev: Callable[[LanguageModule], float] | None
  """Nats for each label."""


def init(
  model: LanguageModule, optimizer: optax.GradientTransformation
) -> LanguageState:
  zero = jnp.zeros((), jnp.int32)
  return LanguageState(zero, model, optimizer.init(model), zero)


def loss_of(model: LanguageModule, batch: SentenceBatch) -> Loss:
  """Summed over a batch."""

  def one(labels_U: jax.Array, length: jax.Array) -> Loss:
    return language_model.loss(model, labels_U, length)

  losses = jax.vmap(one)(batch.labels_BU, batch.lengths_B)
  return Loss(losses.total.sum(), losses.weight.sum())


def make_step(
  optimizer: optax.GradientTransformationExtraArgs, settings: Settings
) -> Callable[[LanguageState, SentenceBatch], tuple[LanguageState, Metrics]]:
  """The step, by the mean loss of a batch."""

  def mean(
    model: LanguageModule, batch: SentenceBatch
  ) -> tuple[jax.Array, Loss]:
    loss = loss_of(model, batch)
    return loss.total / jnp.maximum(loss.weight, 1), loss

  def step(
    state: LanguageState, batch: SentenceBatch
  ) -> tuple[LanguageState, Metrics]:
    (_, loss), gradient = jax.value_and_grad(mean, has_aux=True)(
      state.model, batch
    )
    norm = optax.global_norm(gradient)
    finite = jnp.isfinite(norm) & jnp.isfinite(loss.total)
    updates, after = optimizer.update(
      gradient, state.optimizer, state.model, settings=settings
    )
    moved = optax.apply_updates(state.model, updates), after
    model, after = jax.tree.map(
      lambda new, old: jnp.where(finite, new, old),
      moved,
      (state.model, state.optimizer),
    )
    skipped = state.skipped + ~finite
    loss = Loss(*(jnp.where(finite, each, 0) for each in loss))
    state = LanguageState(state.step + 1, model, after, skipped)
    return state, Metrics(loss, jnp.where(finite, norm, 0))

  return step


def mean_loss(
  model: LanguageModule,
  batches: Iterable[SentenceBatch],
  loss: Callable[[LanguageModule, SentenceBatch], Loss],
) -> float:
  """Nats for each label, over batches."""
  losses = jax.device_get([loss(model, batch) for batch in batches])
  total = math.fsum(float(each.total) for each in losses)
  return total / math.fsum(float(each.weight) for each in losses)


def run(
  state: LanguageState,
  job: Job,
  config: TrainConfig,
  *,
  workdir: epath.Path,
  quiet: bool = False,
) -> LanguageState:
  """Trains from the newest checkpoint to the end, and saves.

  Raises:
    Interrupted: after SIGTERM or Ctrl-C, when the state is saved.
    InputError: `max_bad_steps` steps were not finite; something can't be read or
      written. What was done is saved first, if it can be.
  """
  since = time.monotonic()
  checkpoints = Checkpoints(
    workdir / "checkpoints",
    keep=config.keep,
    keep_best=config.keep_best,
    metric=DEV_LOSS,
  )
  if processes.first_says(checkpoints.latest) is not None:
    state = abstract(state)  # frees the arrays before others take their place
    state = checkpoints.restore(state)
  position = agreed(int(state.step), workdir)
  log = MetricsLog(workdir, position)
  watch = Observer(workdir, config, position=position, since=since)
  training = _Training(
    state, job, config, checkpoints=checkpoints, log=log, watch=watch
  )
  with watch:
    carry_out(training, steps=job.steps, workdir=workdir, quiet=quiet)
  checkpoints.close()
  return training.state


class _Training:
  """A state on its way."""

  def __init__(
    self,
    state: LanguageState,
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
    self._since = time.monotonic()
    self._metrics: list[Metrics] = []

  def run(self, signals: Signals, bar: tqdm) -> None:
    """Trains to the end, judges where that is due, and saves."""
    while self.position < self._job.steps:
      with self._watch.doing("data"):
        batch = self._job.batch(self.position)
      with self._watch.step(self.position, self.state, None, batch):
        self.state, metrics = self._job.step(self.state, batch)
      self.position += 1
      self._watch.done(self.position, self.state, metrics)
      self.keeper.changed = True
      self._metrics.append(metrics)
      bar.update()
      last = self.position == self._job.steps
      if last or self.position % self._config.log_every == 0:
        self._write(bar)
      self._judge()
      self.keeper.save_in_time(self.position, self.state)
      signals.heed()
    self.keeper.save_and_wait(self.position, self.state)

  def _judge(self) -> None:
    """Dev figures where they are due: a checkpoint of their own."""
    every, position = self._config.eval_every, self.position
    due = position == self._job.steps or (every > 0 and position % every == 0)
    if self._job.dev is None or not due:
      return
    with self._watch.doing("evaluation"):
      loss = self._job.dev(self.state.model)
    self._log.write(
      {"step": position, DEV_LOSS: loss, "dev_perplexity": _exp(loss)}
    )
    self.keeper.changed = True
    self.keeper.save(self.position, self.state, figure=loss)

  def _write(self, bar: tqdm) -> None:
    line = _summary(self._metrics, seconds=time.monotonic() - self._since)
    skipped = int(self.state.skipped)
    line = {"step": self.position, **line, "skipped": skipped}
    self._log.write(line | self._watch.line())
    bar.set_postfix_str(f"perplexity {line['perplexity']:.2f}")
    self._metrics, self._since = [], time.monotonic()
    if skipped >= self._config.max_bad_steps:
      raise InputError(
        f"step {self.position}",
        expected="losses and gradients that are finite",
        got=f"{skipped} that were not",
        fix="begin another run with a lower learning rate, or with a larger "
        "config.train.max_bad_steps, which leaves such steps out",
      )


def _summary(metrics: Sequence[Metrics], *, seconds: float) -> dict[str, float]:
  found = jax.device_get(metrics)
  labels = math.fsum(float(each.loss.weight) for each in found)
  total = math.fsum(float(each.loss.total) for each in found)
  loss = total / labels if labels else math.nan
  return {
    "seconds": seconds,
    "loss": loss,
    "perplexity": _exp(loss),
    "norm": float(np.mean([each.norm for each in found])),
    "labels_per_second": labels / seconds,
  }


def _exp(loss: float) -> float:
  return math.exp(min(loss, 700.0))
