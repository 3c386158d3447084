"""Where a new task's row comes from, before it is fitted.

Enters: a finished run, its trained state, and the parts of the run of new tasks.
Leaves: a `TrainState` at step 0 with the run's shared parameters, and of each
task a line that says what it starts from.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hra import export, jobs, submodels
from hra import starts as starts_from
from hra.adapters.interface import Tree
from hra.adapters.spaces import (
  OffsetSpace,
  TaskSpace,
  TaskTable,
  freeze,
)
from hra.backbone.network import Backbone
from hra.data.batching import Batch
from hra.data.loader import Loader
from hra.errors import InputError
from hra.growth.options import Init
from hra.model import Model
from hra.run import Parts
from hra.train import state
from hra.train.placement import place_state
from hra.train.state import TrainState, chosen_rows

_HEARD = 8
"""Training recordings that candidates are compared on."""
_CHUNK = 16
"""Candidates that one call compares: one compiled program for any number."""


class Start(NamedTuple):
  """What one task starts from."""

  init: Init
  task: str | None = None
  """Whose row it is (nearest)."""
  loss: float | None = None
  """Nats per label of that row on the new task's training recordings."""
  of: int = 0
  """Rows that were averaged or compared."""

  def describe(self) -> str:
    if self.init == "mean":
      return f"starts from the mean of {self.of:,} tasks"
    if self.init == "nearest":
      return (
        f"starts from task {self.task!r}, of {self.of:,} the one with the "
        f"lowest loss on its recordings ({self.loss:.3f} nats per label)"
      )
    if self.init == "given":
      return "starts from the row that was given"
    return "starts as a task of the run did"


class _Candidates(NamedTuple):
  names: list[str]
  owned: Tree
  """[C, ...], in the space of the new tasks."""


def initial(
  parent: Parts, trained: TrainState, parts: Parts, *, init: Init
) -> tuple[TrainState, dict[str, Start]]:
  """The state that new tasks start from, and what that is, by name.

  Args:
    trained: of the parent.

  Raises:
    InputError: no row of the parent's is finite (mean), or gives a finite loss
      (nearest); what is given can't be used.
  """
  plain = isinstance(parts.space, TaskTable)
  space = trained.shared["space"]

  def known(owned: Tree) -> Tree:
    """What tasks own in the parent's space -> in that of the new tasks."""
    return freeze(parent.space, space, owned) if plain else owned

  shared = {**trained.shared, "space": {} if plain else space}
  if init == "given":
    owned = starts_from.owned(parts, shared)
    starts = [Start("given")] * len(parts.tasks)
  elif init == "fresh":
    fresh = state.init(
      parent.space,
      parent.optimizers,
      parts.tasks,
      key=jax.random.key(parent.config.seed),
    )
    owned, starts = known(fresh.rows), [Start("fresh")] * len(parts.tasks)
  else:
    found = _finite(list(parent.tasks), known(chosen_rows(trained)))
    if init == "mean":
      mean = jax.tree.map(lambda leaf_C: leaf_C.mean(0), found.owned)
      owned = _stacked([mean] * len(parts.tasks))
      starts = [Start("mean", of=len(found.names))] * len(parts.tasks)
    else:
      if isinstance(parts.space, TaskTable | OffsetSpace):
        found = _with_enrolled(parent, parts.space, shared, found)
      owned, starts = _nearest(parts, shared, found)
  fresh_state = state.of_parts(
    parts.optimizers,
    shared=shared,
    rows=owned,
    count=len(parts.tasks),
    keep_best=parts.config.train.select == "best",
  )
  placed = place_state(fresh_state, parts.mesh)
  return placed, dict(zip(parts.tasks, starts, strict=True))


def _finite(names: list[str], owned: Tree) -> _Candidates:
  """Those of tasks whose numbers are all finite."""
  whole_C = np.ones(len(names), bool)
  for leaf in jax.tree.leaves(owned):
    finite = jnp.isfinite(leaf).reshape(len(names), -1).all(1)
    whole_C &= np.asarray(finite)
  chosen = np.flatnonzero(whole_C)
  if not len(chosen):
    raise InputError(
      "--init",
      expected="a task of the run with finite numbers",
      got="none",
      fix="give --init=fresh",
    )
  return _Candidates(
    [names[i] for i in chosen.tolist()],
    jax.tree.map(lambda leaf_C: leaf_C[chosen], owned),
  )


def _with_enrolled(
  parent: Parts,
  space: TaskTable | OffsetSpace,
  shared: Tree,
  found: _Candidates,
) -> _Candidates:
  """Adds tasks that joined the run since it was trained: of these, rows are left."""
  store = submodels.Store(export.folder_of(parent.workdir))
  fingerprint = submodels.shared_fingerprint(jax.device_get(shared["adapter"]))
  known = set(parent.tasks)
  names, joined = [], []
  for name in store:
    if name in known:
      continue
    other = store[name]
    if (
      other.adapter == parent.config.adapter
      and other.backbone_fingerprint == parent.backbone.fingerprint
      and other.shared_fingerprint == fingerprint
    ):
      names.append(name)
      joined.append(space.owned(shared["space"], other.row))
  if not names:
    return found
  owned = jax.tree.map(
    lambda *leaves: jnp.concatenate(leaves), found.owned, _stacked(joined)
  )
  return _finite([*found.names, *names], owned)


def _nearest(
  parts: Parts, shared: Tree, found: _Candidates
) -> tuple[Tree, list[Start]]:
  loader = jobs.make_loader(parts)
  starts, rows = [], []
  for place, task in enumerate(parts.tasks):
    batch = _recordings(loader, place, bounds=parts.bounds)
    losses = np.concatenate(
      [
        _losses(parts.model, parts.space, parts.frozen, shared, chunk, batch)[
          :count
        ]
        for chunk, count in _chunks(found)
      ]
    )
    losses = np.where(np.isfinite(losses), losses, np.inf)
    best = int(losses.argmin())
    if not np.isfinite(losses[best]):
      raise InputError(
        f"task {task!r}",
        expected="recordings on which a task of the run has a finite loss",
        got="none",
        fix="see whether they belong to their transcripts, or give --init=mean",
      )
    starts.append(
      Start(
        "nearest",
        task=found.names[best],
        loss=float(losses[best]),
        of=len(found.names),
      )
    )
    rows.append(jax.tree.map(lambda leaf_C, i=best: leaf_C[i], found.owned))
  return _stacked(rows), starts


def _recordings(
  loader: Loader, place: int, *, bounds: tuple[int, ...]
) -> Batch:
  """Some of a task's own training recordings, as they are, in one batch."""
  examples = loader.roster.examples
  chosen = loader.roster.members[place][:_HEARD].tolist()
  waves = [examples.read(index) for index in chosen]
  longest = max(map(len, waves))
  batch = examples.empty_batch(
    utterances=_HEARD,
    samples=next(bound for bound in bounds if bound >= longest),
    ids=np.zeros(1, np.int32),
  )
  for column, (index, wave_S) in enumerate(zip(chosen, waves, strict=True)):
    examples.lay(batch, place=(0, column), index=index, wave_S=wave_S)
  return batch


def _chunks(found: _Candidates) -> Iterator[tuple[Tree, int]]:
  """Rows of candidates by the chunk, the last one filled up, and how many."""
  total = len(found.names)
  for first in range(0, total, _CHUNK):
    index = np.minimum(np.arange(first, first + _CHUNK), total - 1)
    rows = jax.tree.map(lambda leaf_C, index=index: leaf_C[index], found.owned)
    yield rows, min(_CHUNK, total - first)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _losses(
  model: Model,
  space: TaskSpace,
  backbone: Backbone,
  shared: Tree,
  owned_C: Tree,
  batch: Batch,
) -> jax.Array:
  """Nats per label [C] of each candidate on a batch of one place."""
  mel_BTF, lengths_B = jax.vmap(model.features)(
    batch.wave_KBS[0], batch.lengths_KB[0]
  )

  def loss(owned: Tree) -> jax.Array:
    loss_B = jax.vmap(model.loss, in_axes=(None, None, None, 0, 0, 0, 0))(
      backbone,
      shared["adapter"],
      space.row(shared["space"], owned),
      mel_BTF,
      lengths_B,
      batch.labels_KBU[0],
      batch.label_lengths_KB[0],
    )
    heard_B = lengths_B > 0
    total = jnp.where(heard_B, loss_B.total, 0).sum()
    return total / jnp.where(heard_B, loss_B.weight, 0).sum()

  return jax.vmap(loss)(owned_C)


def _stacked(rows: list[Tree]) -> Tree:
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
