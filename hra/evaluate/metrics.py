"""Transcripts of a split -> results.json: WER and CER, with intervals.

Error rates are sums of edits over sums of reference words (characters), never
means of utterances' rates. Intervals are percentile bootstraps over utterances
(Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR
performance evaluation"), the difference to the backbone resampled in pairs.
Tasks are strata: the overall interval speaks of new recordings of these tasks,
not of new tasks.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jiwer
import numpy as np

from hra.config import EvalConfig
from hra.errors import InputError
from hra.evaluate.normalize import describe, normalizer

_CHUNK = 1 << 22
"""Resampled indices that are held at once (32 MiB)."""


@dataclasses.dataclass(frozen=True)
class Transcript:
  """What one utterance said and what was heard."""

  id: str
  task: str
  reference: str
  hypothesis: str
  backbone_hypothesis: str | None
  """Of the backbone alone; None where it was not run."""
  seconds: float
  """Of audio."""
  audio: str | None = None
  """A WAV file, relative to the run's folder, where one was kept."""


Verdicts = Callable[[Mapping[str, Mapping[str, Any]]], Mapping[str, str]]


class Edits(NamedTuple):
  """Edits of utterances, in their order; each an int64 array of shape [n]."""

  substitutions: np.ndarray
  deletions: np.ndarray
  insertions: np.ndarray
  length: np.ndarray
  """Words or characters of the reference."""

  @property
  def errors(self) -> np.ndarray:
    return self.substitutions + self.deletions + self.insertions


class _Scored(NamedTuple):
  """Everything that is counted; each Edits spans the same utterances."""

  words: Edits
  characters: Edits
  backbone_words: Edits | None
  backbone_characters: Edits | None
  seconds: np.ndarray


class _Samples(NamedTuple):
  """Sums over R resamples of a group's utterances, each of shape [R]."""

  errors: np.ndarray
  backbone_errors: np.ndarray | None
  words: np.ndarray


def count_edits(
  references: Sequence[str],
  hypotheses: Sequence[str],
  *,
  unit: str = "word",
) -> Edits:
  """Minimal edits that turn each hypothesis into its reference.

  An empty reference has length 0 and counts every word heard as an insertion.

  Args:
    references: normalised texts.
    hypotheses: as many normalised texts.
    unit: `word`, or `character` (spaces between words included).
  """
  if not references:
    return Edits(*(np.zeros(0, np.int64) for _ in Edits._fields))
  output = (
    jiwer.process_words(list(references), list(hypotheses))
    if unit == "word"
    else jiwer.process_characters(list(references), list(hypotheses))
  )
  rows = np.zeros((len(references), 4), np.int64)
  column = {"substitute": 0, "delete": 1, "insert": 2}
  for row, chunks, words in zip(
    rows, output.alignments, output.references, strict=True
  ):
    for chunk in chunks:
      if chunk.type != "equal":
        row[column[chunk.type]] += max(
          chunk.ref_end_idx - chunk.ref_start_idx,
          chunk.hyp_end_idx - chunk.hyp_start_idx,
        )
    row[3] = len(words)
  return Edits(*rows.T)


def resample(
  values: np.ndarray, rng: np.random.Generator, *, resamples: int
) -> np.ndarray:
  """Sums of n utterances drawn with replacement.

  Args:
    values: [n, columns] counts per utterance; a drawn utterance brings all of
      its columns, which is what makes comparisons paired.
    rng: where the draws come from.
    resamples: R.

  Returns:
    [R, columns] sums.
  """
  count = len(values)
  sums = np.empty((resamples, values.shape[1]), values.dtype)
  step = max(1, _CHUNK // max(1, count))
  for start in range(0, resamples, step):
    size = min(step, resamples - start)
    drawn = rng.integers(0, count, size=(size, count))
    for column in range(values.shape[1]):
      sums[start : start + size, column] = values[drawn, column].sum(axis=1)
  return sums


def score(
  transcripts: Sequence[Transcript],
  config: EvalConfig,
  *,
  split: str,
  parameters: Mapping[str, int],
  adapter: str,
  train_utterances: Mapping[str, int],
  verdicts: Verdicts = lambda figures: {},
) -> dict[str, Any]:
  """The contents of results.json.

  A rate is None where the group's references hold no word; an interval is
  None also where the group has fewer than two utterances. Backbone figures are
  None where the backbone was not run.

  Args:
    transcripts: of the split, in any order: the result doesn't depend on it.
    config: normaliser and bootstrap.
    split: its name.
    parameters: counts: `backbone`, `shared`, `per_task`.
    adapter: the family's name.
    train_utterances: by task; a task that is absent has None.
    verdicts: figures by task, and of all under the name "" -> verdicts by task.
      `not better` is served by the backbone, and counts so in the overall
      `served_wer`.

  Raises:
    InputError: no transcripts, a repeated id, or a backbone hypothesis for
      some utterances only.
  """
  ordered = _checked(transcripts, split)
  scored = _count(ordered, config)
  tasks = np.array([transcript.task for transcript in ordered], dtype=object)
  starts = np.flatnonzero(np.r_[True, tasks[1:] != tasks[:-1]])
  bounds = [*starts.tolist(), len(ordered)]
  samples: list[_Samples] = []
  figures: dict[str, dict[str, Any]] = {}
  for start, end in itertools.pairwise(bounds):
    name = ordered[start].task
    group = _slice(scored, start, end)
    samples.append(_bootstrap(group, name, config))
    figures[name] = {
      **_figures(group, samples[-1], config),
      "train_utterances": train_utterances.get(name),
    }
  overall = _figures(scored, _total(samples), config)
  found = verdicts({**figures, "": overall})
  for name, task in figures.items():
    task["verdict"] = found.get(name)
  overall["served_wer"] = _served(scored, tasks, found)
  overall["mean_task_wer"] = _mean(task["wer"] for task in figures.values())
  overall["mean_task_backbone_wer"] = _mean(
    task["backbone_wer"] for task in figures.values()
  )
  return {
    "split": split,
    "adapter": adapter,
    "normalizer": describe(config.normalizer),
    "scoring": dataclasses.asdict(config),
    "parameters": dict(parameters),
    "overall": overall,
    "tasks": figures,
  }


def worst(
  transcripts: Sequence[Transcript],
  config: EvalConfig,
  *,
  count: int = 12,
  per_task: int = 2,
) -> list[Transcript]:
  """The utterances with the most word errors, no task more than `per_task`.

  Ties go to the higher error rate, then to the id.
  """
  ordered = sorted(transcripts, key=lambda transcript: transcript.id)
  normalize = normalizer(config.normalizer)
  edits = count_edits(
    [normalize(transcript.reference) for transcript in ordered],
    [normalize(transcript.hypothesis) for transcript in ordered],
  )
  ranks = np.lexsort((edits.length, -edits.errors))
  chosen: list[Transcript] = []
  taken: dict[str, int] = {}
  for rank in ranks:
    transcript = ordered[rank]
    if len(chosen) == count or edits.errors[rank] == 0:
      break
    if taken.get(transcript.task, 0) < per_task:
      taken[transcript.task] = taken.get(transcript.task, 0) + 1
      chosen.append(transcript)
  return chosen


def _checked(transcripts: Sequence[Transcript], split: str) -> list[Transcript]:
  where = f"split {split!r}"
  if not transcripts:
    raise InputError(where, expected="at least one utterance", got="none")
  ordered = sorted(transcripts, key=lambda item: (item.task, item.id))
  for left, right in itertools.pairwise(ordered):
    if (left.task, left.id) == (right.task, right.id):
      raise InputError(
        where,
        expected="each utterance once",
        got=f"{right.id!r} of task {right.task!r} twice",
      )
  absent = [item for item in ordered if item.backbone_hypothesis is None]
  if 0 < len(absent) < len(ordered):
    raise InputError(
      where,
      expected="a backbone hypothesis for every utterance or for none",
      got=f"none for {absent[0].id!r} and {len(absent) - 1} more",
    )
  return ordered


def _count(ordered: Sequence[Transcript], config: EvalConfig) -> _Scored:
  normalize = normalizer(config.normalizer)
  references = [normalize(item.reference) for item in ordered]
  hypotheses = [normalize(item.hypothesis) for item in ordered]
  heard_alone = [
    normalize(item.backbone_hypothesis)
    for item in ordered
    if item.backbone_hypothesis is not None
  ]
  return _Scored(
    words=count_edits(references, hypotheses),
    characters=count_edits(references, hypotheses, unit="character"),
    backbone_words=count_edits(references, heard_alone)
    if heard_alone
    else None,
    backbone_characters=count_edits(references, heard_alone, unit="character")
    if heard_alone
    else None,
    seconds=np.array([item.seconds for item in ordered]),
  )


def _slice(scored: _Scored, start: int, end: int) -> _Scored:
  cut = {
    name: Edits(*(counts[start:end] for counts in edits))
    for name, edits in scored._asdict().items()
    if isinstance(edits, Edits)
  }
  return scored._replace(seconds=scored.seconds[start:end], **cut)


def _bootstrap(group: _Scored, name: str, config: EvalConfig) -> _Samples:
  """Draws are keyed by the task's name: other tasks can't move an interval."""
  columns = [group.words.length, group.words.errors]
  if group.backbone_words is not None:
    columns.append(group.backbone_words.errors)
  rng = np.random.default_rng([config.seed, *name.encode("utf-8")])
  sums = resample(np.stack(columns, axis=1), rng, resamples=config.bootstrap)
  return _Samples(
    errors=sums[:, 1],
    backbone_errors=sums[:, 2] if len(columns) == 3 else None,
    words=sums[:, 0],
  )


def _total(samples: Sequence[_Samples]) -> _Samples:
  alone = [
    sample.backbone_errors
    for sample in samples
    if sample.backbone_errors is not None
  ]
  return _Samples(
    errors=np.sum([sample.errors for sample in samples], axis=0),
    backbone_errors=np.sum(alone, axis=0) if alone else None,
    words=np.sum([sample.words for sample in samples], axis=0),
  )


def _figures(
  group: _Scored, samples: _Samples, config: EvalConfig
) -> dict[str, Any]:
  words, characters = group.words, group.characters
  utterances = len(words.length)
  wer = _ratio(words.errors.sum(), words.length.sum())
  low, high = _interval(samples.errors, samples.words, utterances, config)
  figures: dict[str, Any] = {
    "wer": wer,
    "wer_low": low,
    "wer_high": high,
    "cer": _ratio(characters.errors.sum(), characters.length.sum()),
    "backbone_wer": None,
    "backbone_cer": None,
    "difference": None,
    "difference_low": None,
    "difference_high": None,
    "relative_reduction": None,
    "substitutions": int(words.substitutions.sum()),
    "deletions": int(words.deletions.sum()),
    "insertions": int(words.insertions.sum()),
    "words": int(words.length.sum()),
    "utterances": utterances,
    "seconds": round(float(group.seconds.sum()), 3),
  }
  alone, alone_characters = group.backbone_words, group.backbone_characters
  if alone is None or alone_characters is None:
    return figures
  assert samples.backbone_errors is not None
  difference = words.errors.sum() - alone.errors.sum()
  low, high = _interval(
    samples.errors - samples.backbone_errors, samples.words, utterances, config
  )
  return figures | {
    "backbone_wer": _ratio(alone.errors.sum(), alone.length.sum()),
    "backbone_cer": _ratio(
      alone_characters.errors.sum(), alone_characters.length.sum()
    ),
    "difference": _ratio(difference, alone.length.sum()),
    "difference_low": low,
    "difference_high": high,
    "relative_reduction": _ratio(-difference, alone.errors.sum()),
  }


def _served(
  scored: _Scored, tasks: np.ndarray, verdicts: Mapping[str, str]
) -> float | None:
  """WER where the backbone answers for tasks that are not better adapted."""
  if scored.backbone_words is None or not verdicts:
    return None
  falls_back = np.array([verdicts.get(task) == "not better" for task in tasks])
  errors = np.where(
    falls_back, scored.backbone_words.errors, scored.words.errors
  )
  return _ratio(errors.sum(), scored.words.length.sum())


def _interval(
  numerators: np.ndarray,
  denominators: np.ndarray,
  utterances: int,
  config: EvalConfig,
) -> tuple[float | None, float | None]:
  """Percentiles of the ratio over the resamples that hold a word."""
  drawn = denominators > 0
  if utterances < 2 or not drawn.any():
    return None, None
  tail = (1 - config.confidence) / 2
  low, high = np.quantile(
    numerators[drawn] / denominators[drawn], [tail, 1 - tail]
  )
  return float(low), float(high)


def _ratio(numerator: float, denominator: float) -> float | None:
  return float(numerator / denominator) if denominator else None


def _mean(rates: Iterable[float | None]) -> float | None:
  known = [rate for rate in rates if rate is not None]
  return math.fsum(known) / len(known) if known else None
