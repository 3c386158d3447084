"""Unbalanced tasks: what of its data a task uses, how often, with what say.

Enters: a split's ids, tasks and lengths, a `DataConfig`, weights by name. Leaves:
the utterances used (caps), each task's own steps or each utterance's repeats in a
pool (temperature, shares), each task's weight in the shared gradients.

What a task gets is a function of its own utterances, the seed and constants, so
that it is the same in every job. Only shares of a pool compare its tasks.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from hra.config import DataConfig
from hra.data import by_task
from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.keys import stable_hash

_MOST_GROWN = 100
"""Times that a pool may grow by its tasks' shares."""


class Selection(NamedTuple):
  """Utterances and whose they are; flat arrays, a million cost 16 MB."""

  indices: np.ndarray
  """int64 into the split, in the order of the utterances' ids."""
  owners: np.ndarray
  """int64 into the names of the tasks, when pooled those in the pool."""

  def where(self, chosen: np.ndarray) -> "Selection":
    """Those that a boolean array chooses, or a repeat of each by an integer."""
    counts = chosen.astype(np.int64)
    return Selection(*(np.repeat(each, counts) for each in self))

  def counts(self, names: Sequence[str]) -> np.ndarray:
    """Utterances of each of the tasks `names`, int64."""
    return np.bincount(self.owners, minlength=len(names))


class Balance(NamedTuple):
  """What the tasks of a job get, for reports; N as in the table of tasks."""

  names: tuple[str, ...]
  """Of the tasks; when pooled, of the tasks in the pool."""
  utterances: np.ndarray
  """Distinct ones that each of `names` uses, int64."""
  seconds: np.ndarray
  """Their audio, float64."""
  capped: np.ndarray
  """Utterances of each that caps leave out, int64."""
  epoch: int
  """Utterances in an epoch of all tasks, repeats included."""
  steps: int
  """Own steps of a task where the data don't say otherwise."""
  own_steps_N: np.ndarray
  """int64."""
  weight_N: np.ndarray
  """In the shared gradients, float32."""

  def describe(self) -> str:
    """One line about what is not the same for all; empty where all is."""
    used, capped = int(self.utterances.sum()), int(self.capped.sum())
    told = []
    if (self.own_steps_N != self.steps).any():
      low, high = self.own_steps_N.min(), self.own_steps_N.max()
      more = f" to {high:,}" if high > low else ""
      told.append(f"own steps {low:,}{more}")
    if capped:
      told.append(f"caps leave out {capped:,} of {used + capped:,} utterances")
    if self.epoch != used:
      told.append(f"{used:,} utterances stand {self.epoch:,} times in the pool")
    if _range(self.weight_N) > 0:
      low, high = self.weight_N.min(), self.weight_N.max()
      told.append(f"weights {low:.3g} to {high:.3g}")
    return "; ".join(told)

  def by_task(self) -> dict[str, Any]:
    """For a file: what each of `names` gets; tasks in a pool take no steps."""
    tasks: dict[str, dict[str, Any]] = {
      name: {"utterances": count, "seconds": seconds}
      for name, count, seconds in zip(
        self.names, self.utterances.tolist(), self.seconds.tolist(), strict=True
      )
    }
    if len(self.own_steps_N) == len(self.names):
      for told, steps, weight in zip(
        tasks.values(),
        self.own_steps_N.tolist(),
        self.weight_N.tolist(),
        strict=True,
      ):
        told |= {"own_steps": steps, "weight": weight}
    return {"tasks": tasks}


def select(
  ids: Sequence[str], tasks: Sequence[str], *, names: Sequence[str]
) -> Selection:
  """The utterances of the tasks `names`, ordered by id."""
  code = {name: place for place, name in enumerate(names)}
  order = [
    index
    for index in sorted(range(len(ids)), key=ids.__getitem__)
    if tasks[index] in code
  ]
  owners = np.fromiter((code[tasks[i]] for i in order), np.int64, len(order))
  return Selection(np.asarray(order, np.int64), owners)


def within_caps(
  selection: Selection,
  *,
  ids: Sequence[str],
  samples: np.ndarray,
  config: DataConfig,
  seed: int,
) -> np.ndarray:
  """Which of the selected utterances are used: bool.

  A task's utterances stand in the order of a hash of (seed, id), which knows no
  other task; used is the longest prefix of at most `max_task_utterances` and
  `max_task_seconds`, and the first utterance in any case. Prefixes are nested:
  a larger cap keeps what a smaller one chose.

  Args:
    ids: of the split.
    samples: of the split.
  """
  count = len(selection.indices)
  if not (config.max_task_utterances or config.max_task_seconds):
    return np.ones(count, bool)
  order = np.lexsort((_hashes(selection, "cap", ids, seed), selection.owners))
  owners = selection.owners[order]
  first = np.searchsorted(owners, owners)
  rank = np.arange(count) - first
  own = samples[selection.indices[order]]
  end = np.cumsum(own)
  spoken = end - (end - own)[first]
  fits = np.ones(count, bool)
  if config.max_task_utterances:
    fits &= rank < config.max_task_utterances
  if config.max_task_seconds:
    fits &= spoken <= config.max_task_seconds * SAMPLE_RATE
  used = np.zeros(count, bool)
  used[order] = fits | (rank == 0)
  return used


def own_steps(
  utterances_N: np.ndarray, *, steps: int, config: DataConfig
) -> np.ndarray:
  """Own steps of tasks with n_i utterances, int64 [N].

      steps_i = max(1, round(steps (n_i / reference_utterances) ** (1 / T)))

  `steps` for all where T, the temperature, is 0, and for a pool, whose
  temperature sets its shares. The reference is a constant: with the mean over
  tasks a task would train longer for another's having less data.
  """
  if config.temperature == 0 or config.grouping == "pooled" or steps == 0:
    return np.full(len(utterances_N), steps, np.int64)
  data_N = utterances_N / config.reference_utterances
  scaled_N = np.rint(steps * data_N ** (1 / config.temperature))
  return np.maximum(scaled_N, 1).astype(np.int64)


def repeats(
  selection: Selection,
  *,
  ids: Sequence[str],
  names: Sequence[str],
  shares: Mapping[str, float],
  config: DataConfig,
  seed: int,
) -> np.ndarray:
  """How often each utterance stands in an epoch, int64.

  In a pool of tasks with n_i utterances, at temperature T or with shares s_i,

      r_i = (n_i / n_max) ** (1 / T - 1)        r_i = (s_i / n_i) / min_j (s_j / n_j)

  times: its whole part, and once more for the part of the utterances, chosen by
  a hash of (seed, id), that the fraction says. A task's expected share of the
  pool is n_i r_i, proportional to n_i ** (1 / T) or s_i; no utterance is left out,
  and the pool grows: at most to (number of tasks) n_max, or `_MOST_GROWN` times.

  Args:
    names: of the tasks that own the selected utterances.
    shares: of all of them, or none.

  Raises:
    InputError: shares for which the pool would have to grow more.
  """
  count = len(selection.indices)
  tempered = config.temperature > 0 and config.grouping == "pooled"
  if not (tempered or shares):
    return np.ones(count, np.int64)
  # Tasks that own nothing here have no say: nobody indexes their rate.
  utterances = selection.counts(names)
  data = np.maximum(utterances, 1)
  if shares:
    rates = np.asarray([shares[name] for name in names]) / data
    with np.errstate(divide="ignore", invalid="ignore"):
      rates /= rates[utterances > 0].min(initial=np.inf)
    if not rates @ utterances <= _MOST_GROWN * count:
      raise InputError(
        "config.data.task_shares",
        expected=f"shares for which the pool grows {_MOST_GROWN} times at most",
        got=f"{rates @ utterances / count:,.0f} times: the share of "
        f"{names[int(rates.argmin())]!r} is small for its data",
        fix="cap its data by data.max_task_utterances",
      )
  else:
    rates = (data / data.max(initial=1)) ** (1 / config.temperature - 1)
  rate = rates[selection.owners]
  part = _hashes(selection, "repeat", ids, seed) / 2.0**64
  whole = np.floor(rate)
  return whole.astype(np.int64) + (part < rate - whole)


def shared_weights(
  names: Sequence[str],
  utterances_N: np.ndarray,
  *,
  given: Mapping[str, float],
  config: DataConfig,
) -> np.ndarray:
  """Weights of tasks in the shared gradients, float32 [N], the largest 1.

      w_i ~ given_i (reference_utterances / n_i) ** balance

  given_i being 1 for a task that is not named. The step divides by the weights
  of the tasks in its batch: they count relative to each other there, and with
  one task a batch they do nothing (but for 0, which is not heard). In batches of
  like company a task adds to the shared gradients of a job in proportion to
  steps_i w_i: with T = 1 and balance 1, the same for all.

  Raises:
    InputError: float32 can't hold a weight beside the largest.
  """
  given_N = np.asarray([given.get(name, 1.0) for name in names], np.float64)
  heard_N = given_N > 0
  given_N /= given_N.max(initial=0) or 1
  # A task without data has no gradient: its weight only has to be a number.
  data_N = np.maximum(utterances_N, 1) / config.reference_utterances
  weight_N = given_N * data_N**-config.balance
  weight_N /= weight_N.max(initial=0) or 1
  lost_N = heard_N & (weight_N < np.finfo(np.float32).tiny)
  if lost_N.any():
    task, largest = int(lost_N.argmax()), int(weight_N.argmax())
    raise InputError(
      f"weight of task {names[task]!r}",
      expected="a part of the largest weight that float32 can hold",
      got=f"{weight_N[task]:.3g} of that of task {names[largest]!r}",
      fix="bring the weights closer together, or give 0",
    )
  return weight_N.astype(np.float32)


def read_weights(
  path: epath.PathLike, *, tasks: Sequence[str]
) -> dict[str, float]:
  """The weights of a JSON file {task: weight >= 0}; none for no path.

  Raises:
    InputError: no such file, no such JSON, or a task that is none of `tasks`.
  """
  return by_task.numbers(
    path,
    tasks=tasks,
    what="weights",
    expected="a finite weight of at least 0",
    holds=lambda weight: weight >= 0,
    fix="1 is the weight of a task that is not named",
  )


def read_shares(
  path: epath.PathLike, *, tasks: Sequence[str]
) -> dict[str, float]:
  """The shares of a JSON file {task: share > 0} of a pool; none for no path.

  Raises:
    InputError: no such file, no such JSON, or other tasks than all of `tasks`.
  """
  shares = by_task.numbers(
    path,
    tasks=tasks,
    what="shares",
    expected="a finite share above 0",
    holds=lambda share: share > 0,
    fix="data.without leaves tasks out",
  )
  absent = sorted(set(tasks) - shares.keys()) if path else []
  if absent:
    raise InputError(
      path,
      expected=f"the shares of all {len(tasks):,} tasks in the pool",
      got=f"none of {absent[0]!r} ({len(absent):,} are absent)",
    )
  return shares


def _hashes(
  selection: Selection, purpose: str, ids: Sequence[str], seed: int
) -> np.ndarray:
  """A uint64 of each utterance, by (purpose, seed, id) alone."""
  return np.fromiter(
    (stable_hash(f"{purpose}/{seed}/{ids[i]}") for i in selection.indices),
    np.uint64,
    len(selection.indices),
  )


def _range(values: np.ndarray) -> float:
  return float(np.ptp(values)) if len(values) else 0.0
