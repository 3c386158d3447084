"""Plans -> batches: audio is read and perturbed ahead of the device.

Enters: a split of prepared data, a tokenizer, the table of tasks, bucket
bounds. Leaves: `Batch`es in the order of the joint plan, from any position, the
same bit for bit; a process makes its own part only, and the parts of all
processes make the whole batch.

The position in the plan is one integer: it is what a checkpoint has to keep, and
unlike a grain iterator's state it restores at another number of processes.
"""

import copy
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from hra.config import DataConfig, OptimizerConfig
from hra.data import sounds
from hra.data.batching import Batch, JointPlan, TaskStream, evaluation_plan
from hra.data.examples import (
  LABEL_MULTIPLE,
  Encoder,
  Examples,
  Utterances,
)
from hra.data.perturb import perturb
from hra.data.roster import POOLED, Roster
from hra.data.settings import Given, of_tasks
from hra.errors import InputError
from hra.keys import hash_words, host_rng


class EvaluationBatch(NamedTuple):
  """K utterances of any tasks, as a batch of K places x 1 utterance."""

  batch: Batch
  indices_K: np.ndarray
  """int32 into the split, of the whole batch; -1 is an empty place."""


Own = Callable[[int], Sequence[int]]
"""The size of an axis that processes divide -> ascending places on it that this one
makes."""


class Loader:
  """The training batches of a job: `loader[i]` is joint step i.

  Batches hold `places` tasks: K, or as many as there are if that is less. A
  process makes its own places and reads only their audio;
  where there are fewer tasks than processes (pretraining has one), the B
  utterances are divided instead (`shard_axis`).

  The audio of a task is a function of (seed, name, own utterances, own step):
  its utterances are ordered by id, and every draw is keyed by the task's name,
  its own step and the place in its own minibatch. Which of them it uses, how
  many own steps it takes and what say it has, `roster` knows.
  """

  def __init__(
    self,
    split: Utterances,
    *,
    tokenizer: Encoder,
    table: Sequence[str],
    bounds: Sequence[int],
    config: DataConfig,
    steps_per_task: int,
    seed: int,
    frames: Callable[[int], int] | None = None,
    most_labels: int | None = None,
    weights: Mapping[str, float] | None = None,
    shares: Mapping[str, float] | None = None,
    parts: Mapping[str, float] | None = None,
    optimizer: OptimizerConfig | None = None,
    given: Given | None = None,
    label_multiple: int = LABEL_MULTIPLE,
    own: Own = range,
    processes: int = 1,
    devices: int = 1,
  ):
    """Plans the job; reads no audio but that of noise and rooms.

    Args:
      split: the utterances; those of tasks outside the table are left alone.
      tokenizer: texts -> label ids.
      table: the tasks' names in the order of their rows; `(POOLED,)` when
        `config.grouping` is "pooled".
      bounds: bucket bounds in samples, a property of the experiment.
      config: sizes, ranges, threads.
      steps_per_task: own steps of each task, before `config.temperature`.
      seed: of every order and every draw.
      frames: samples -> output frames of the model, where each label needs its
        own frame (CTC): utterances that can't be aligned are not served, and
        `roster.unalignable` names them.
      most_labels: that a sentence may have; utterances of more are not served, and
        `roster.unspoken` names them.
      weights: of tasks in the shared gradients; 1 for who is not named.
      shares: of a pool, by task.
      parts: that are noise-perturbed of the utterances of some tasks, also of those
        in a pool; `config.multistyle.part` of all others.
      optimizer: how rows are updated.
      given: what is otherwise for some tasks, their steps included.
      label_multiple: see `hra.data.examples.Examples`.
      own: which places of the whole this process makes.
      processes: that make different ones.
      devices: that divide the places of a batch; where there are fewer tasks than
        K, some places are empty for it.

    Raises:
      InputError: a recording is longer than `config.max_seconds` or the last
        bound, a task has nothing to train on, neither K nor B divides among the
        processes or the devices, or recordings of noise or rooms can't be used.
    """
    self._config = config
    self._tasks = split.tasks
    self._parts = dict(parts or {})
    self.sounds = sounds.opened(config.multistyle)
    """Noise and rooms."""
    self._seed = seed
    self._table = tuple(table)
    self._bounds = tuple(bounds)
    self.roster = Roster(
      split,
      tokenizer=tokenizer,
      table=table,
      config=config,
      steps=steps_per_task,
      seed=seed,
      frames=frames,
      most_labels=most_labels,
      weights=weights or {},
      shares=shares or {},
      given=given or {},
      label_multiple=label_multiple,
    )
    """What each task uses, its own steps and its weight."""
    self._examples = self.roster.examples
    self._balance = self.roster.balance
    self._settings_N = of_tasks(
      table,
      optimizer or OptimizerConfig(),
      steps_N=self._balance.own_steps_N,
      given=given or {},
    )
    self._streams = [
      TaskStream(
        name,
        samples=split.samples[own],
        bounds=bounds,
        utterances_per_batch=config.utterances_per_task,
        seed=seed,
      )
      for name, own in zip(table, self.roster.members, strict=True)
    ]
    self.places, self.shard_axis = divide(
      config, tasks=len(table), processes=processes, devices=devices
    )
    self.split_axis = 1 if len(table) == 1 else self.shard_axis
    """Of a batch, the axis that devices divide: of one task, the utterances."""
    size = (self.places, config.utterances_per_task)
    check_divides(size, axis=self.split_axis, devices=devices)
    self._own_K: Sequence[int] = range(self.places)
    self._own_B: Sequence[int] = range(config.utterances_per_task)
    if self.shard_axis == 1:
      self._own_B = own(len(self._own_B))
    elif self.split_axis == 0:
      self._own_K = own(len(self._own_K))
    self.plan = JointPlan(
      self._streams,
      steps_per_task=self._balance.own_steps_N.tolist(),
      tasks_per_batch=self.places,
    )

  def __len__(self) -> int:
    """Joint steps of the job."""
    return len(self.plan)

  def __getitem__(self, position: int) -> Batch:
    """This process's part of joint step `position`."""
    step = self.plan[position]
    batch = self._examples.empty_batch(
      utterances=len(self._own_B),
      samples=self._bounds[step.bucket],
      ids=len(self._table) + np.asarray(self._own_K),
    )
    for place, of_all in enumerate(self._own_K):
      if of_all < len(step.places):
        task, own_step = step.places[of_all]
        self._lay(batch, place=place, task=task, own_step=own_step)
    return batch

  def batches(self, start: int = 0) -> Iterator[Batch]:
    """The batches from position `start` on, made ahead by threads.

    Raises:
      InputError: `start` lies outside the job.
    """
    return _ahead(self, start=start, config=self._config)

  def _lay(self, batch: Batch, *, place: int, task: int, own_step: int) -> None:
    name = self._table[task]
    style = self._config.multistyle
    minibatch = self._streams[task].minibatch(own_step)
    batch.task_K[place] = task
    batch.name_hash_K2[place] = hash_words(name)
    batch.own_step_K[place] = own_step
    for here, everyone in zip(batch.settings_K, self._settings_N, strict=True):
      here[place] = everyone[task]
    batch.shared_weight_K[place] = self._balance.weight_N[task]
    for column, position in enumerate(self._own_B):
      own_index = minibatch.indices_B[position]
      if own_index < 0:
        continue
      index = int(self.roster.members[task][own_index])
      heard = perturb(
        self._examples.read(index),
        rng=host_rng(self._seed, "perturb", name, own_step, position),
        config=self._config,
        part=self._parts.get(self._tasks[index], style.part),
        sounds=self.sounds,
        max_samples=self._bounds[minibatch.bucket],
      )
      self._examples.lay(
        batch,
        place=(place, column),
        index=index,
        wave_S=heard.wave_S,
        augment=style.mix == "both" or not heard.perturbed,
      )


class EvaluationLoader:
  """Every utterance of a split once, unperturbed, longest first.

  `loader[i]` is a batch of K = `config.eval_batch` places of one utterance
  each, with the rows of their tasks; a process makes its own places. Own steps
  are 0.
  """

  def __init__(
    self,
    split: Utterances,
    *,
    tokenizer: Encoder,
    table: Sequence[str],
    bounds: Sequence[int],
    config: DataConfig,
    own: Own = range,
    devices: int = 1,
  ):
    """Plans the evaluation; the arguments are those of `Loader`.

    K is rounded up to what the devices divide.

    Raises:
      InputError: a recording is longer than `config.max_seconds` or the last
        bound, or a task is not in the table.
    """
    self._config = config
    self._bounds = tuple(bounds)
    pooled = config.grouping == "pooled"
    self._names = [POOLED] * len(split) if pooled else list(split.tasks)
    self._row = {name: row for row, name in enumerate(table)}
    unknown = sorted(set(self._names) - set(self._row))
    if unknown:
      raise InputError(
        "evaluation split",
        expected=f"the {len(table)} tasks of the table",
        got=f"{len(unknown)} others ({unknown[0]!r} first)",
        fix="prepare with --split_by=sentence, or name another split: "
        "--config.data.dev_split",
      )
    self._examples = Examples(
      split, tokenizer=tokenizer, used=np.arange(len(split)), config=config
    )
    self._size = -(-config.eval_batch // devices) * devices
    self._own_K = own(self._size)
    self._samples = split.samples
    self._plan = evaluation_plan(split.samples, bounds=bounds, batch=self._size)

  def of(self, names: Collection[str]) -> "EvaluationLoader":
    """The same for the utterances of some tasks only; at least one."""
    chosen = np.flatnonzero([name in names for name in self._names])
    some = copy.copy(self)
    some._plan = [
      step._replace(
        indices_B=np.where(step.indices_B < 0, -1, chosen[step.indices_B])
      )
      for step in evaluation_plan(
        self._samples[chosen], bounds=self._bounds, batch=self._size
      )
    ]
    return some

  def __len__(self) -> int:
    return len(self._plan)

  def __getitem__(self, position: int) -> EvaluationBatch:
    """This process's part of evaluation step `position`."""
    step = self._plan[position]
    batch = self._examples.empty_batch(
      utterances=1,
      samples=self._bounds[step.bucket],
      ids=len(self._row) + np.asarray(self._own_K),
    )
    own_K = step.indices_B[np.asarray(self._own_K)]
    for place, index in enumerate(own_K.tolist()):
      if index < 0:
        continue
      name = self._names[index]
      batch.task_K[place] = self._row[name]
      batch.name_hash_K2[place] = hash_words(name)
      wave_S = self._examples.read(index)
      self._examples.lay(batch, place=(place, 0), index=index, wave_S=wave_S)
    return EvaluationBatch(batch, step.indices_B)

  def batches(self) -> Iterator[EvaluationBatch]:
    """All batches, made ahead by threads."""
    return _ahead(self, start=0, config=self._config)


def _ahead(source: Any, *, start: int, config: DataConfig) -> Iterator[Any]:
  if not 0 <= start <= len(source):
    raise InputError(
      "position",
      expected=f"one of the job's {len(source)} joint steps",
      got=str(start),
      fix="resume with the data and the settings of the first run",
    )
  return _threaded(source, start=start, config=config)


def _threaded(source: Any, *, start: int, config: DataConfig) -> Iterator[Any]:
  if start == len(source):
    return
  dataset = grain.MapDataset.source(source).slice(slice(start, None))
  options = grain.ReadOptions(
    num_threads=config.threads, prefetch_buffer_size=config.prefetch
  )
  iterator = iter(dataset.to_iter_dataset(options))
  try:
    yield from iterator
  finally:
    iterator.close()


def divide(
  config: DataConfig, *, tasks: int, processes: int, devices: int
) -> tuple[int, int]:
  """The places of a batch, and the axis that processes divide.

  Raises:
    InputError: neither axis divides among the processes.
  """
  if tasks < processes and config.utterances_per_task % processes == 0:
    return min(config.tasks_per_batch, tasks), 1
  if config.tasks_per_batch % processes:
    raise InputError(
      "config.data.tasks_per_batch",
      expected=f"a multiple of the {processes} processes",
      got=str(config.tasks_per_batch),
      fix="with fewer tasks than processes, config.data.utterances_per_task may"
      " be the multiple instead",
    )
  # Of one task, devices divide the utterances.
  multiple = math.lcm(processes, devices) if tasks > 1 else processes
  rounded_up = -(-tasks // multiple) * multiple
  return min(config.tasks_per_batch, rounded_up), 0


def check_divides(size: tuple[int, int], *, axis: int, devices: int) -> None:
  """Whether devices divide an axis of a batch of tasks x utterances.

  Raises:
    InputError: they don't.
  """
  if size[axis] % devices:
    field = ("tasks_per_batch", "utterances_per_task")[axis]
    raise InputError(
      f"config.data.{field}",
      expected=f"a multiple of the {devices} devices along the mesh's data and "
      "fsdp axes",
      got=str(size[axis]),
      fix="change it, or config.mesh",
    )
