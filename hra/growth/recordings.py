"""Recordings of new tasks -> prepared data and the configuration of their run.

Enters: a finished run and a corpus in any form that `hra prepare` takes. Leaves:
which tasks it has; prepared data with a part held out for dev; a `Config` that
trains these tasks in the shapes of the run's own job, with all that is shared
frozen.
"""

import dataclasses
import operator
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from hra import config_tree
from hra.backbone import store
from hra.config import Config, SpaceConfig
from hra.data.batching import BUCKET_MULTIPLE
from hra.data.corpora import source as corpora
from hra.data.dataset import open_split, split_names
from hra.data.prepare import prepare
from hra.data.records import Problems, Record
from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.evaluate.normalize import normalizer
from hra.growth.options import Fit, Options
from hra.run import Parts

_STEPS = 100
"""Own steps at most: a dozen recordings are learned by then."""
_EVALUATIONS = 8
"""Of the dev part while a task trains; the best of them is what stays."""
_PATIENCE = 3
_EVAL_BATCH = 8
"""Utterances: a dev part is small, and every place of a batch is computed."""
_DEV_FRACTION, _DEV_SENTENCES = 0.2, 2
"""Held out of each task: that part, but as many sentences at least."""
_KEPT = ("adapter", "space", "features", "backbone_path")
"""Groups of a configuration that a new task shares with its run."""
_FIXED = {
  "train.mode": "adapt",
  "train.shared_part": 0.0,
  "data.grouping": "task",
}
"""What makes a run add tasks and leave all that is shared as it is."""
_SHOWN = 4


class Corpus(NamedTuple):
  """What is known of recordings before any is decoded."""

  source: str
  fields: corpora.Fields
  records: list[Record]

  @property
  def tasks(self) -> list[str]:
    return sorted({record.task for record in self.records})


def read(source: str, *, task: str) -> Corpus:
  """Reads which tasks a corpus has.

  Args:
    task: the name of the one task of all recordings; empty takes the names that
      they have.

  Raises:
    InputError: it can't be read; no recording can be used; several tasks that
      are to be one.
  """
  corpus, problems = _read(source, corpora.Fields())
  if task and len(corpus.tasks) > 1:
    raise InputError(
      f"--task={task}",
      expected="recordings of one task",
      got=f"{len(corpus.tasks)} ({', '.join(corpus.tasks[:_SHOWN])})",
      fix="leave --task out, or give the recordings of one",
    )
  if task:  # also of the recordings that name none
    corpus, problems = _read(source, corpora.Fields(single_task=task))
  if not corpus.records:
    problems.raise_any(fix="" if task else "--task=NAME names the task of all")
  return corpus


def _read(source: str, fields: corpora.Fields) -> tuple[Corpus, Problems]:
  problems = Problems(source, expected="recordings of new tasks")
  with tempfile.TemporaryDirectory() as scratch:
    records = corpora.read(
      source,
      problems=problems,
      fields=fields,
      scratch=lambda: Path(scratch),
    )
  return Corpus(source, fields, records), problems


def configuration(
  parent: Parts, *, label: str, fit: Fit, options: Options
) -> Config:
  """How new tasks train, but for what their recordings decide.

  Rows are updated and augmented as the run's own were.

  Args:
    label: the enrolment's.
    fit: `row` or `embedding`.

  Raises:
    InputError: a setting that can't be, or of what all tasks share.
  """
  parent_config = parent.config
  described = config_tree.to_dict(parent_config)
  config = config_tree.from_dict(Config, described, path="config")
  config.name = f"{config.name}: {label}"
  if fit == "row" and config.space.kind == "embedding":
    config.space = SpaceConfig()
  shared = {name: config_tree.to_dict(config)[name] for name in _KEPT}
  prepared = config.prepare
  prepared.split_by, prepared.dev_fraction = "auto", 0.0
  prepared.test_fraction = 0.0
  prepared.labels_per_second = 0.0  # the loader knows what can't be aligned
  if options.skip_bad:
    prepared.bad = "skip"
  data, train = config.data, config.train
  data.path, data.tasks, data.without = "", (), ()
  data.train_split, data.dev_split = "train", "dev"
  data.task_weights, data.task_shares, data.temperature = "", "", 0.0
  data.multistyle.parts = ""
  data.eval_batch = min(data.eval_batch, _EVAL_BATCH)
  train.steps = options.steps or min(train.steps, _STEPS)
  train.eval_every, train.shared_part, train.task_settings = 0, 0.0, ""
  train.rows_from = options.start
  train.select, train.patience, train.keep = "best", _PATIENCE, 1
  for setting in options.settings:
    config_tree.override(config, setting)
  _check_shared(config, shared, start=options.start)
  often = max(1, train.steps // _EVALUATIONS)
  train.eval_every = train.eval_every or often
  train.log_every = min(train.log_every, often)
  config_tree.validate(config)
  return config


def _check_shared(
  config: Config, shared: Mapping[str, Any], *, start: str
) -> None:
  """Settings may be no others of what tasks share, nor what an option says."""
  for name, value in shared.items():
    if config_tree.to_dict(config)[name] != value:
      raise InputError(
        f"config.{name}",
        expected="what the run was trained with",
        got="another",
        fix="leave it as it is: new tasks share it",
      )
  for path, value in _FIXED.items():
    got = operator.attrgetter(path)(config)
    if got != value:
      raise InputError(
        f"config.{path}",
        expected=f"{value!r}: what is shared is frozen while tasks are added",
        got=repr(got),
        fix="leave it as it is",
      )
  if config.train.rows_from != start:
    raise InputError(
      "config.train.rows_from",
      expected=f"{start!r}, what --start names",
      got=repr(config.train.rows_from),
      fix="give --start",
    )


def prepared(
  parent: Parts, config: Config, corpus: Corpus, folder: epath.Path
) -> Config:
  """Prepares recordings into a folder -> the configuration that reads them.

  Raises:
    InputError: recordings that can't be used, all of them in one list.
  """
  options = config.prepare
  share = options.dev_fraction or _DEV_FRACTION
  backbone = store.folder_of(config.backbone_path)
  prepare(
    corpus.source,
    folder,
    config=dataclasses.replace(options, dev_fraction=share),
    tokenizer=backbone,
    fields=corpus.fields,
    least=_DEV_SENTENCES,
  )
  splits = split_names(folder)
  has_dev = "dev" in splits
  held_out = [name for name in ("test", "dev", "train") if name in splits]
  longest = max(int(open_split(folder, each).samples.max()) for each in splits)
  bounds = parent.bounds
  if longest > bounds[-1]:
    bounds = (*bounds, -(-longest // BUCKET_MULTIPLE) * BUCKET_MULTIPLE)
  return dataclasses.replace(
    config,
    data=dataclasses.replace(
      config.data,
      source="prepared",
      path=str(folder),
      test_split=held_out[0],
      bucket_seconds=tuple(bound / SAMPLE_RATE for bound in bounds),
    ),
    train=dataclasses.replace(
      config.train,
      select=config.train.select if has_dev else "last",
      patience=config.train.patience if has_dev else 0,
    ),
  )


def check_guard(parts: Parts) -> None:
  """Whether each task's dev part can tell if its Submodel is any good.

  Raises:
    InputError: one has fewer reference words than `evaluate.guard_words`.
  """
  least = parts.config.evaluate.guard_words
  normalize = normalizer(parts.config.evaluate.normalizer)
  words = Counter(dict.fromkeys(parts.tasks, 0))
  if parts.config.data.dev_split in split_names(parts.config.data.path):
    split = parts.split(parts.config.data.dev_split)
    for task, text in zip(split.tasks, split.texts, strict=True):
      words[task] += len(normalize(text).split())
  task, fewest = min(words.items(), key=lambda item: item[1])
  if fewest < least:
    raise InputError(
      f"task {task!r}",
      expected=f"{least} words at least that are held out for dev, to judge "
      "its Submodel by",
      got=str(fewest),
      fix="give more recordings, or --unguarded to use it without",
    )
