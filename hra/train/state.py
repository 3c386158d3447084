"""What training changes, in three groups of which two stand here.

`shared` and `rows` train; the frozen backbone is an argument of the step that is
never differentiated, donated or saved again. When pretraining, the backbone
itself is what tasks share: it stands in `shared["backbone"]`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from hra.adapters import table
from hra.adapters.interface import Adapter, Tree
from hra.backbone.conformer import Conformer
from hra.train import optimizer


class TrainState(NamedTuple):
  """A pytree: saved whole, restored bit for bit."""

  step: jax.Array
  """Joint steps done: the position in the data plan."""
  shared: Tree
  shared_optimizer: Tree
  rows: Tree
  """[N, ...]: one row a task."""
  rows_optimizer: Tree
  """[N, ...]: each row's own moments and step count."""
  skipped_N: jax.Array
  """Own steps that a task lost to a loss or gradient that was not finite."""


class Optimizers(NamedTuple):
  """One transformation a group."""

  shared: optax.GradientTransformation
  rows: optax.GradientTransformationExtraArgs
  """Needs `steps`, each task's own (`hra.train.optimizer.build`)."""


def init(
  adapter: Adapter,
  optimizers: Optimizers,
  names: Sequence[str],
  *,
  key: jax.Array,
  pretrained: Conformer | None = None,
) -> TrainState:
  """A fresh state for the tasks `names`.

  Args:
    pretrained: the backbone to train; None when it stays frozen.
  """
  key_shared, key_rows = jax.random.split(key)
  shared = {"adapter": adapter.init_shared(key_shared)}
  if pretrained is not None:
    shared["backbone"] = pretrained
  rows = table.init_rows(adapter, names, key_rows)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    shared=shared,
    shared_optimizer=optimizers.shared.init(shared),
    rows=rows,
    rows_optimizer=optimizer.init_rows(optimizers.rows, rows, count=len(names)),
    skipped_N=jnp.zeros((len(names),), jnp.int32),
  )
