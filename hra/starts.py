"""Rows that a run's tasks start from, in place of fresh ones.

Enters: Submodel files or LoRA folders of PEFT. Leaves: what tasks own whose rows
these are. All that is shared stays what it is, so that rows have to belong to that.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from etils import epath

from hra import submodels
from hra.adapters import families
from hra.adapters.interface import Tree, check_trees
from hra.adapters.spaces import OffsetSpace, TaskTable
from hra.config import AdapterConfig
from hra.errors import InputError
from hra.peft.folder import is_folder, open_submodel
from hra.run import Parts
from hra.submodels import Submodel
from hra.train.placement import place_state
from hra.train.state import TrainState

_FIELD = "config.train.rows_from"


def begun(parts: Parts, fresh: TrainState) -> TrainState:
  """A fresh state whose rows are those that `config.train.rows_from` names.

  Raises:
    InputError: as `owned`.
  """
  rows = owned(parts, fresh.shared)
  return place_state(
    fresh._replace(rows=rows),
    parts.mesh,
    shard_rows=parts.config.mesh.shard_rows,
  )


def owned(parts: Parts, shared: Tree) -> Tree:
  """What tasks own [N, ...] whose rows `config.train.rows_from` names.

  Args:
    shared: of the run's state.

  Raises:
    InputError: nothing is there for a task, or what can't be used: a row of
      another adapter, backbone or other shared parameters; tasks that own no rows.
  """
  space = parts.space
  if not isinstance(space, TaskTable | OffsetSpace):
    raise InputError(
      "config.space.kind",
      expected=f"'table' or 'offset' with {_FIELD}",
      got=repr(parts.config.space.kind),
      fix="no embedding makes a given row",
    )
  like = jax.eval_shape(parts.model.adapter.init_task, jax.random.key(0))
  if not jax.tree.leaves(like):
    raise InputError(
      _FIELD,
      expected="an adapter of which tasks own a row",
      got=f"one of which they own nothing ({_told(parts.config.adapter)})",
      fix="leave it out, or train another config.adapter",
    )
  fingerprint = submodels.shared_fingerprint(jax.device_get(shared["adapter"]))

  @functools.cache
  def row(path: epath.Path, task: str) -> Tree:
    if task:
      found = submodels.Store(path)[task]
    else:
      found = open_submodel(path, parts.backbone)
    _check(found, parts, shared=fingerprint, path=path)
    typed = jax.tree.map(
      lambda to, leaf: leaf.astype(to.dtype), like, found.row
    )
    return space.owned(shared["space"], typed)

  rows = [row(*each) for each in _paths(parts)]
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def _paths(parts: Parts) -> Sequence[tuple[epath.Path, str]]:
  """Where the row of each task is; of a pack's, its store and the task."""
  given = epath.Path(parts.config.train.rows_from)
  if given.is_file() or is_folder(given):
    return [(given, "")] * len(parts.tasks)
  return [_path_of(task, given) for task in parts.tasks]


def _path_of(task: str, store: epath.Path) -> tuple[epath.Path, str]:
  file = submodels.file_name(task)
  for path in (store / file, store / file.removesuffix(".safetensors")):
    if path.is_file() or is_folder(path):
      return path, ""
  if store.is_dir() and task in submodels.Store(store):
    return store, task
  raise InputError(
    f"{_FIELD}={store}",
    expected=f"{file}, a LoRA folder for task {task!r}, or to be one itself",
    got="neither",
    fix="train without the task (config.data.tasks), or give a file for all",
  )


def _check(
  found: Submodel, parts: Parts, *, shared: str, path: epath.Path
) -> None:
  where = str(path)
  adapter = parts.config.adapter
  frontend = parts.backbone.frontend
  mels = frontend.width
  theirs = families.build(found.adapter, parts.backbone.config, mels=mels)
  if theirs != parts.model.adapter:
    raise InputError(
      where,
      expected=f"a row of the run's adapter ({_told(adapter)})",
      got=f"one of {_told(found.adapter)}",
      fix="config.adapter has to say the same",
    )
  for what, expected, got in (
    ("the backbone", parts.backbone.fingerprint, found.backbone_fingerprint),
    ("the shared parameters", shared, found.shared_fingerprint),
  ):
    if expected != got:
      raise InputError(
        where, expected=f"a row for {what} of the run ({expected})", got=got
      )
  check_trees(parts.model.adapter, found.row, found.shared, where=where)


def _told(adapter: AdapterConfig) -> str:
  """What an adapter sets, as one gives it."""
  usual = AdapterConfig()
  changed = {
    field.name: getattr(adapter, field.name)
    for field in dataclasses.fields(adapter)
    if field.name == "family"
    or getattr(adapter, field.name) != getattr(usual, field.name)
  }
  return ", ".join(
    f"{name}={','.join(value) if isinstance(value, tuple) else value}"
    for name, value in changed.items()
  )
