"""A training step -> programs that do parts of it, for their costs.

Each holds the one before it, but for the loss, which stands alone: differences of what
they take are what parts take. XLA fuses across parts, so that this is how much faster a
step would be without a part, not where a profiler's samples fall.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from timing import Run
from training import Training

from hra.adapters import table
from hra.adapters.interface import Frozen, Tree
from hra.decoders import ctc
from hra.features import specaugment
from hra.planning import hlo
from hra.planning.traffic import traffic
from hra.train.gradients import make_gradients

PARTS = ("features", "backbone", "adapter", "loss", "optimizer")


@dataclasses.dataclass(frozen=True)
class Bias(Frozen):
  """The cheapest adapter: one number a channel, added after every layer.

  Its gradient goes back through all layers, as a controller's does.
  """

  width: int

  def init_task(self, key: jax.Array) -> Tree:
    del key
    return {"bias": jnp.zeros(self.width)}

  def after_layer(
    self,
    shared: Tree,
    row: Tree,
    layer: jax.Array,
    carry: Tree,
    hidden_TD: jax.Array,
  ) -> tuple[Tree, jax.Array]:
    del shared, layer
    return carry, hidden_TD + row["bias"].astype(hidden_TD.dtype)


class Part(NamedTuple):
  """A compiled program, and what it costs."""

  run: Run
  flops: float
  """Loops as often as they run."""
  bytes: float
  """That its instructions read and write; what is fused counts once."""


def costs(compiled: jax.stages.Compiled, run: Run) -> Part:
  """What XLA's program costs."""
  program = hlo.parse(compiled.as_text())
  return Part(run, hlo.flops(program), traffic(program))


def programs(made: Training, bare: Training) -> dict[str, Part]:
  """Of a step: all but `step` itself, which gives its state away.

  Args:
    bare: the same step with `Bias`, on the same batch.
  """
  batch = jax.device_put(made.batch)
  model, _, policy, frozen = made.learner
  shared, row_N = made.state.shared, made.state.rows

  def featurise(batch: Any) -> jax.Array:
    mel_KBTF, lengths_KB = jax.vmap(jax.vmap(model.features))(
      batch.wave_KBS, batch.lengths_KB
    )
    if policy is None:
      return mel_KBTF
    keys_KB = jax.random.split(jax.random.key(0), lengths_KB.shape)
    augment = jax.vmap(specaugment.augment, in_axes=(0, 0, 0, None))
    return augment(keys_KB, mel_KBTF, lengths_KB, policy)

  def forward(frozen: Any, shared: Tree, row_K: Tree, batch: Any) -> jax.Array:
    def one(row: Tree, wave_S: jax.Array, samples: jax.Array) -> jax.Array:
      mel_TF, length = model.features(wave_S, samples)
      given = (mel_TF, length, jnp.zeros(0, jnp.int32))
      return model.logits(frozen, shared["adapter"], row, None, *given).logits

    some = jax.vmap(one, in_axes=(None, 0, 0))
    return jax.vmap(some)(row_K, batch.wave_KBS, batch.lengths_KB)

  row_K = table.gather(row_N, batch.task_K)
  heard = _compiled(forward, frozen, shared, row_K, batch)
  logits_KBTV = heard.run()
  return {
    "forward": heard,
    "features": _compiled(featurise, batch),
    "loss": _compiled(jax.grad(_loss), logits_KBTV, batch),
    "bare": _gradients(bare),
    "gradients": _gradients(made),
  }


def _loss(logits_KBTV: jax.Array, batch: Any) -> jax.Array:
  def one(
    logits_TV: jax.Array, labels_U: jax.Array, labels: jax.Array
  ) -> jax.Array:
    length = jnp.asarray(len(logits_TV))
    return ctc.loss(logits_TV, length, labels_U, labels).total

  every = jax.vmap(jax.vmap(one))
  return every(logits_KBTV, batch.labels_KBU, batch.label_lengths_KB).sum()


def _gradients(made: Training) -> Part:
  """A step's, before its optimizers."""
  model, space, policy, frozen = made.learner
  found = make_gradients(model, space, policy=policy)

  def gradients(shared: Tree, row_N: Tree, frozen: Any, batch: Any) -> Any:
    row_K = table.gather(row_N, batch.task_K)
    key = jax.random.key(0)
    return found(shared, row_K, frozen, batch, key=key, train_shared=True)

  batch = jax.device_put(made.batch)
  return _compiled(gradients, made.state.shared, made.state.rows, frozen, batch)


def _compiled(function: Callable[..., Any], *given: Any) -> Part:
  """The program holds what it is given, which no step may give away."""
  given = jax.tree.map(jnp.copy, given)
  compiled = jax.jit(function).lower(*given).compile()
  return costs(compiled, lambda: compiled(*given))


def shares(seconds: Mapping[str, float]) -> dict[str, float]:
  """Seconds of a step and of `programs` -> seconds of its parts.

  They sum to the step: the backbone's are what the others leave of the bare
  gradients. Below zero, a part is lost in the noise.
  """
  told = {
    "features": seconds["features"],
    "backbone": seconds["bare"] - seconds["features"] - seconds["loss"],
    "adapter": seconds["gradients"] - seconds["bare"],
    "loss": seconds["loss"],
    "optimizer": seconds["step"] - seconds["gradients"],
  }
  return {part: told[part] for part in PARTS}


def floor_seconds(
  flops: float, moved: float, *, flop_rate: float, byte_rate: float
) -> float:
  """The roofline: whatever of both takes longer, each at its measured best."""
  return max(flops / flop_rate, moved / byte_rate)
