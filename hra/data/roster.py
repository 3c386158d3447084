"""Which utterances a job's tasks train on, and as what share of the job.

Enters: a split, a tokenizer, the table of tasks. Leaves: labelled examples, the
utterances of each row of the table, and a `Balance`; and a line for whatever was
left out. In this order: caps (so that no model has a say in them), transcripts
that can't be aligned or said, own steps and weights by what is left, a pool's repeats.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hra.config import DataConfig
from hra.data import balance
from hra.data.balance import Balance, Selection
from hra.data.examples import Encoder, Examples, Utterances
from hra.data.settings import Given, counts
from hra.dims import SAMPLE_RATE
from hra.errors import InputError

POOLED = "pooled"
"""The name of the one task that all utterances form when pretraining."""

_SHOWN = 30
"""Characters that a line names at most."""

_TASKS = 5
"""Tasks that it names at most."""


class Roster:
  """The training data of a job, by rows of its table of tasks."""

  def __init__(
    self,
    split: Utterances,
    *,
    tokenizer: Encoder,
    table: Sequence[str],
    config: DataConfig,
    steps: int,
    seed: int,
    frames: Callable[[int], int] | None,
    most_labels: int | None,
    weights: Mapping[str, float],
    shares: Mapping[str, float],
    given: Given,
    label_multiple: int,
  ):
    """Chooses and labels; the arguments are those of `hra.data.loader.Loader`.

    Raises:
      InputError: an utterance is longer than `config.max_seconds`, or no
        transcript of a task can be aligned to its audio or be said.
    """
    self._pooled = config.grouping == "pooled"
    self._table = tuple(table)
    names = tuple(sorted(set(split.tasks))) if self._pooled else self._table
    everything = balance.select(split.ids, split.tasks, names=names)
    capped = everything.where(
      balance.within_caps(
        everything,
        ids=split.ids,
        samples=split.samples,
        config=config,
        seed=seed,
      )
    )
    self.examples = Examples(
      split,
      tokenizer=tokenizer,
      used=capped.indices,
      config=config,
      label_multiple=label_multiple,
    )
    bad = []
    if frames is not None:
      bad = self.examples.unalignable(frames, speed=max(1, config.speed_high))
    self.unalignable: tuple[str, ...] = tuple(split.ids[index] for index in bad)
    """Ids of utterances whose transcripts don't fit their audio."""
    wordy = []
    if most_labels is not None:
      wordy = self.examples.wordier(most_labels)
    self.unspoken: tuple[str, ...] = tuple(split.ids[index] for index in wordy)
    """Ids of utterances whose transcripts have more labels than a sentence may."""
    self._most_labels = most_labels
    used = capped.where(~np.isin(capped.indices, [*bad, *wordy]))
    self._check_left(before=capped, after=used)
    self.examples.leave_out([*bad, *wordy])
    epoch = used.where(
      balance.repeats(
        used,
        ids=split.ids,
        names=names,
        shares=shares,
        config=config,
        seed=seed,
      )
    )
    self.members = self._by_row(epoch)
    """Of each row: indices into the split, ordered by id, repeats included."""
    own_N = self._counts(used)
    self.balance = Balance(
      names=names,
      utterances=used.counts(names),
      seconds=np.bincount(
        used.owners, split.samples[used.indices] / SAMPLE_RATE, len(names)
      ),
      capped=everything.counts(names) - capped.counts(names),
      epoch=len(epoch.indices),
      steps=steps,
      own_steps_N=counts(
        self._table,
        "steps",
        balance.own_steps(own_N, steps=steps, config=config).tolist(),
        given=given,
      ),
      weight_N=balance.shared_weights(
        self._table, own_N, given=weights, config=config
      ),
    )

  def describe(self) -> list[str]:
    """What the job leaves out or doesn't treat alike, a line each."""
    lines = []
    if self.unalignable:
      lines.append(
        f"left out {len(self.unalignable):,} utterances whose transcripts are "
        f"too long for their audio, such as {self.unalignable[0]}"
      )
    if self.unspoken:
      lines.append(
        f"left out {len(self.unspoken):,} utterances whose transcripts have more "
        f"than the {self._most_labels} labels that the decoder can say, such as "
        f"{self.unspoken[0]}"
      )
    characters, utterances = self.examples.unspelled
    if characters:
      more = len(characters) - _SHOWN
      shown = " ".join(characters[:_SHOWN])
      lines.append(
        "left out characters that the backbone's tokenizer can't spell: "
        f"{shown}{f' and {more:,} others' if more > 0 else ''} "
        f"({utterances:,} utterances)"
      )
    return [line for line in (*lines, self.balance.describe()) if line]

  def _counts(self, selection: Selection) -> np.ndarray:
    """Utterances of each row of the table, int64 [N]."""
    if self._pooled:
      return np.asarray([len(selection.indices)])
    return selection.counts(self._table)

  def _by_row(self, selection: Selection) -> list[np.ndarray]:
    if self._pooled:
      return [selection.indices]
    order = np.argsort(selection.owners, kind="stable")
    ends = np.cumsum(self._counts(selection))
    return np.split(selection.indices[order], ends[:-1])

  def _check_left(self, *, before: Selection, after: Selection) -> None:
    """No task may lose everything; what never had anything shows later."""
    before_N, after_N = self._counts(before), self._counts(after)
    lost = np.flatnonzero((before_N > 0) & (after_N == 0))
    if len(lost):
      shown = ", ".join(repr(self._table[each]) for each in lost[:_TASKS])
      more = len(lost) - _TASKS
      tasks = (
        f"task {shown}" if len(lost) == 1 else f"{len(lost):,} tasks: {shown}"
      )
      raise InputError(
        f"{tasks}{f' and {more:,} others' if more > 0 else ''}",
        expected="transcripts that have at least a frame for each label"
        if self._most_labels is None
        else f"transcripts of at most {self._most_labels} labels",
        got=f"none among {'its' if len(lost) == 1 else 'their'} "
        f"{before_N[lost].sum():,}",
        fix="check that recordings and transcripts belong together",
      )
