"""A trained run -> Submodel files, or the backbone's folder."""

import collections
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from hra import claim, processes, scoring, submodels
from hra.adapters.interface import Tree
from hra.backbone import store
from hra.files import storage
from hra.run import Parts
from hra.train.optimizer import updates_done
from hra.train.state import TrainState


def folder_of(workdir: epath.Path) -> epath.Path:
  """Where a run's Submodels stand: beside those of the run that it adds to."""
  return (claim.parent_of(workdir) or workdir) / "submodels"


def held(workdir: epath.Path) -> set[str]:
  """The tasks of which a run's store has a Submodel that can be read."""
  folder = folder_of(workdir)
  with storage(folder, expected="a folder that can be read"):
    if not folder.is_dir():
      return set()
  return {entry.task for entry in submodels.Store(folder).entries()}


def rows(
  parts: Parts, trained: TrainState, *, dev: Mapping[str, Any]
) -> epath.Path:
  """Publishes a Submodel for each task, and the shared parameters once.

  Args:
    dev: figures by task (as in results.json), recorded in each file; the verdict
      is what `hra.scoring.judge` wrote.
  """
  shared = processes.fetch(trained.shared["adapter"])
  fetched = _rows(parts, trained, shared=shared, dev=dev)
  folder = folder_of(parts.workdir)
  if processes.is_first():
    submodels.create(folder).publish_all(fetched)
  else:
    collections.deque(fetched, maxlen=0)  # the first needs its part of them
  return folder


def _rows(
  parts: Parts, trained: TrainState, *, shared: Tree, dev: Mapping[str, Any]
) -> Iterator[submodels.Submodel]:
  kept = bool(jax.tree.leaves(trained.progress.best))
  best_step_N, own_steps_N, skipped_N = processes.fetch(
    (
      trained.progress.best_step_N,
      updates_done(trained.rows_optimizer),
      trained.skipped_N,
    )
  )
  verdicts = scoring.verdicts(parts.workdir)
  fingerprint = submodels.shared_fingerprint(shared)
  for place, task in enumerate(parts.tasks):
    row_1 = scoring.rows_of(parts.space, trained, np.asarray([place]))
    yield submodels.Submodel(
      task=task,
      adapter=parts.config.adapter,
      row=jax.tree.map(lambda leaf: leaf[0], processes.fetch(row_1)),
      shared=shared,
      backbone_fingerprint=parts.backbone.fingerprint,
      shared_fingerprint=fingerprint,
      tokenizer=parts.backbone.tokenizer.hash,
      summary={
        "run": parts.config.name,
        "own_steps": int(own_steps_N[place]),
        "skipped_steps": int(skipped_N[place]),
        "chosen_step": int(best_step_N[place])
        if kept and best_step_N[place] >= 0
        else None,
        "dev": dev.get(task),
        "verdict": verdicts.get(task, "unjudged"),
      },
    )


def backbone(
  parts: Parts, trained: TrainState, *, about: Mapping[str, Any]
) -> epath.Path:
  """Writes the backbone that was pretrained as a folder of its own."""
  folder = parts.workdir / "backbone"
  module = processes.fetch(trained.shared["backbone"], by="first")
  if not processes.is_first():
    return folder
  with storage(folder, expected="a folder that can be made"):
    folder.mkdir(parents=True, exist_ok=True)
  store.save(
    folder,
    module,
    frontend=parts.backbone.frontend,
    tokenizer=parts.backbone.tokenizer,
    about=about,
  )
  return folder
