"""How the study compares its arms: word errors of the same utterances in, WER
differences with intervals out.

Enters: runs' folders (results.json, transcripts.jsonl). Leaves: figures for
JSON. An interval speaks of new speakers: it is the percentile bootstrap that
draws speakers, and then utterances of each drawn speaker, with replacement
(Bisani and Ney 2004, over clusters). Drawing in both stages errs on the wide side:
simulated 95% intervals of 24 speakers x 20 utterances held the truth in 95 to 98%
of cases, against 91 to 92% where only speakers were drawn.

An arm is compared on the utterances that it shares with the other, all of them;
speakers of several seeds are other people, so seeds add speakers.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from etils import epath

from hra.config import EvalConfig
from hra.errors import InputError
from hra.evaluate import runs
from hra.evaluate.metrics import count_edits, resample
from hra.evaluate.normalize import normalizer

TERCILES = ("mild", "medium", "severe")


class Scores(NamedTuple):
  """Word errors of one arm, utterance by utterance; each of shape [n].

  Ordered by speaker and utterance, as `scores` makes them.
  """

  speakers: np.ndarray
  """Names; an utterance's name need only be unique among its speaker's."""
  utterances: np.ndarray
  errors: np.ndarray
  words: np.ndarray
  """Of the reference."""


class Rate(NamedTuple):
  """A WER and its interval."""

  wer: float
  low: float
  high: float


class Comparison(NamedTuple):
  """An arm beside another on the same utterances."""

  arm: Rate
  other: Rate
  difference: Rate
  """The arm's WER less the other's; below 0 the arm is better."""
  speakers: int
  better: int
  """Speakers of whose words the arm gets more right; likewise `worse`."""
  worse: int


class Scored(NamedTuple):
  """A finished run."""

  arm: Scores
  frozen: Scores | None
  """The backbone alone, where it was run."""
  parameters: dict[str, int]
  """`backbone`, `shared`, `per_task`."""


def scores(
  speakers: Sequence[str],
  *,
  utterances: Sequence[str],
  errors: Sequence[int] | np.ndarray,
  words: Sequence[int] | np.ndarray,
) -> Scores:
  """Scores in their order.

  Raises:
    InputError: there are none, or one utterance stands twice.
  """
  if not len(speakers):
    raise InputError("scores", expected="at least one utterance", got="none")
  order = sorted(
    range(len(speakers)), key=lambda i: (speakers[i], utterances[i])
  )
  result = Scores(
    np.array([speakers[i] for i in order], dtype=object),
    np.array([utterances[i] for i in order], dtype=object),
    np.asarray(errors, np.int64)[order],
    np.asarray(words, np.int64)[order],
  )
  twice = (result.speakers[1:] == result.speakers[:-1]) & (
    result.utterances[1:] == result.utterances[:-1]
  )
  if twice.any():
    i = int(np.argmax(twice))
    raise InputError(
      "scores",
      expected="each utterance once",
      got=f"{result.utterances[i]!r} of {result.speakers[i]!r} twice",
    )
  return result


def of_texts(
  speakers: Sequence[str],
  *,
  utterances: Sequence[str],
  references: Sequence[str],
  heard: Sequence[str],
  normalization: Literal["basic", "whisper"],
) -> Scores:
  """Scores of what was heard, in `scores`' order.

  Args:
    normalization: what both texts go through first.

  Raises:
    InputError: as `scores`.
  """
  normalize = normalizer(normalization)
  edits = count_edits(
    [normalize(text) for text in references],
    [normalize(text) for text in heard],
  )
  return scores(
    speakers, utterances=utterances, errors=edits.errors, words=edits.length
  )


def read(folder: epath.PathLike, *, seed: int) -> Scored:
  """What `hra evaluate` left in a run's folder.

  Args:
    folder: of the run.
    seed: of its speakers; a speaker is named SEED/TASK.

  Raises:
    InputError: naming the file that is missing or damaged.
  """
  run = runs.read_run(folder)

  def counted(heard: Sequence[str]) -> Scores:
    return of_texts(
      [f"{seed}/{item.task}" for item in run.transcripts],
      utterances=[item.id for item in run.transcripts],
      references=[item.reference for item in run.transcripts],
      heard=heard,
      normalization=run.scoring.normalizer,
    )

  alone = [
    item.backbone_hypothesis
    for item in run.transcripts
    if item.backbone_hypothesis is not None
  ]
  return Scored(
    arm=counted([item.hypothesis for item in run.transcripts]),
    frozen=counted(alone) if len(alone) == len(run.transcripts) else None,
    parameters=run.results["parameters"],
  )


def joined(parts: Sequence[Scores]) -> Scores:
  """One arm over several seeds.

  Raises:
    InputError: there are none, or one utterance stands twice.
  """
  fields = (
    [value for part in parts for value in getattr(part, name)]
    for name in Scores._fields
  )
  speakers, utterances, errors, words = fields
  return scores(speakers, utterances=utterances, errors=errors, words=words)


def rate(arm: Scores, *, config: EvalConfig) -> Rate:
  """WER: all errors over all words, with its interval.

  Raises:
    InputError: no reference holds a word.
  """
  values = np.stack([arm.errors, arm.words], axis=1)
  return _rate(values.sum(axis=0), _bootstrap(arm, values, config), config)


def compare(arm: Scores, other: Scores, *, config: EvalConfig) -> Comparison:
  """Two arms, paired: each draw takes the same utterances of both.

  Raises:
    InputError: they are not of the same utterances, or those hold no word.
  """
  _check_same(arm, other)
  errors = np.stack([arm.errors, other.errors], axis=1)
  gap = arm.errors - other.errors
  values = np.column_stack([errors, gap, arm.words])
  samples = _bootstrap(arm, values, config)
  total = values.sum(axis=0)
  mine, theirs, difference = (
    _rate(total[[i, 3]], samples[:, [i, 3]], config) for i in range(3)
  )
  _, members = np.unique(arm.speakers, return_inverse=True)
  gaps = np.bincount(members, weights=gap)
  return Comparison(
    arm=mine,
    other=theirs,
    difference=difference,
    speakers=len(gaps),
    better=int((gaps < 0).sum()),
    worse=int((gaps > 0).sum()),
  )


def by_group(
  arm: Scores,
  other: Scores,
  *,
  groups: Mapping[str, str],
  config: EvalConfig,
) -> dict[str, Comparison]:
  """`compare` for the speakers of each group, by the group's name.

  Args:
    arm: as in `compare`, likewise `other`.
    groups: speaker -> group, such as `terciles` makes or each speaker's seed.
    config: of the bootstrap.

  Raises:
    InputError: a speaker has no group; as `compare`.
  """
  _check_same(arm, other)
  missing = sorted(set(arm.speakers) - set(groups))
  if missing:
    raise InputError(
      "groups", expected=f"a group of {missing[0]!r}", got="none"
    )
  labels = np.array([groups[name] for name in arm.speakers], dtype=object)
  return {
    str(label): compare(
      _chosen(arm, labels == label),
      _chosen(other, labels == label),
      config=config,
    )
    for label in dict.fromkeys(sorted(labels))
  }


def terciles(severity: Mapping[str, float]) -> dict[str, str]:
  """Speaker -> mild, medium or severe: thirds of the speakers, by severity.

  Ties go by name; where thirds can't be equal the milder ones are the larger.

  Raises:
    InputError: fewer than three speakers.
  """
  if len(severity) < len(TERCILES):
    raise InputError(
      "severity", expected="at least 3 speakers", got=str(len(severity))
    )
  order = sorted(severity, key=lambda name: (severity[name], name))
  thirds = np.array_split(np.array(order, dtype=object), len(TERCILES))
  return {
    str(name): label
    for label, third in zip(TERCILES, thirds, strict=True)
    for name in third
  }


def figures(comparison: Comparison) -> dict[str, Any]:
  """A comparison as plain dicts, for JSON."""
  return {
    name: value._asdict() if isinstance(value, Rate) else value
    for name, value in comparison._asdict().items()
  }


def told(rate: Mapping[str, float]) -> str:
  """A rate or a difference with its interval, in per cent."""
  wer, low, high = (100 * rate[name] for name in Rate._fields)
  return f"{wer:.1f} ({low:.1f} to {high:.1f})"


def _chosen(arm: Scores, chosen: np.ndarray) -> Scores:
  return Scores(*(values[chosen] for values in arm))


def _check_same(arm: Scores, other: Scores) -> None:
  for field in ("speakers", "utterances", "words"):
    mine, theirs = getattr(arm, field), getattr(other, field)
    if not np.array_equal(mine, theirs):
      raise InputError(
        "compared arms",
        expected="the same utterances of the same speakers",
        got=f"{field} that are not the same",
        fix="score both runs on the same split of the same data",
      )


def _bootstrap(
  arm: Scores, values: np.ndarray, config: EvalConfig
) -> np.ndarray:
  """Sums [R, columns] over draws of speakers, then of their utterances.

  A speaker who is drawn twice brings other utterances each time.
  """
  _, members = np.unique(arm.speakers, return_inverse=True)
  count = int(members[-1]) + 1
  rng = np.random.default_rng(config.seed)
  drawn = rng.integers(0, count, size=(config.bootstrap, count))
  sums = np.zeros((config.bootstrap, values.shape[1]), values.dtype)
  for speaker in range(count):
    times = (drawn == speaker).sum(axis=1)
    own = resample(values[members == speaker], rng, resamples=int(times.sum()))
    np.add.at(sums, np.repeat(np.arange(config.bootstrap), times), own)
  return sums


def _rate(total: np.ndarray, samples: np.ndarray, config: EvalConfig) -> Rate:
  """Columns: errors, words."""
  heard = samples[:, 1] > 0
  if not (total[1] and heard.any()):
    raise InputError("scores", expected="references with words", got="none")
  tail = (1 - config.confidence) / 2
  low, high = np.quantile(
    samples[heard, 0] / samples[heard, 1], [tail, 1 - tail]
  )
  return Rate(float(total[0] / total[1]), float(low), float(high))
