"""What a preparation made, in figures: `summary.json`, and what a person reads.

Enters: the splits of a prepared folder, the tokenizer, sampling rates, what was
left out. Leaves: a dictionary for `summary.json`; a few lines of text.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hra import dims
from hra.data.dataset import Split
from hra.data.records import Problems
from hra.data.splits import TRAIN, Overlap
from hra.data.text import normalize_transcript
from hra.data.tokenizer import Tokenizer

_NAMED = 5
"""Tasks that a warning names."""
_QUANTILES = {"min": 0, "p10": 10, "median": 50, "p90": 90, "max": 100}


def summarize(
  splits: Mapping[str, Split],
  *,
  tokenizer: Tokenizer,
  rates: Mapping[int, int],
  overlaps: Sequence[Overlap],
  left_out: Problems,
  wanted: Sequence[str],
) -> dict[str, Any]:
  """Hours, tasks, lengths, rates, characters, warnings and what was left out."""
  counts: dict[str, dict[str, int]] = {}
  characters: collections.Counter[str] = collections.Counter()
  for name, split in splits.items():
    for task, text in zip(split.tasks, split.texts, strict=True):
      of_task = counts.setdefault(task, dict.fromkeys(splits, 0))
      of_task[name] += 1
      characters.update(normalize_transcript(text))
  return {
    **_extent(list(splits.values())),
    "splits": {name: _extent([split]) for name, split in splits.items()},
    "task_utterances": dict(sorted(counts.items())),
    "source_rates": {str(rate): rates[rate] for rate in sorted(rates)},
    "characters": dict(sorted(characters.items())),
    "tokenizer": {
      "labels": tokenizer.vocabulary,
      "hash": tokenizer.hash,
      "unknown_characters": "".join(tokenizer.unknown("".join(characters))),
    },
    "left_out": len(left_out),
    "warnings": [
      *_empty(splits, wanted),
      *_missing(counts),
      *map(_shared, overlaps),
    ],
  }


def describe(summary: Mapping[str, Any]) -> str:
  """A preparation's summary as a few lines of text."""
  row = "{:<12}{:>12}{:>8}{:>10}   {}"
  lines = [row.format("split", "utterances", "tasks", "hours", "seconds each")]
  for name, part in {**summary["splits"], "all": summary}.items():
    lengths = "{min:.1f} to {max:.1f}, median {median:.1f}".format(
      **part["seconds"]
    )
    hours = f"{part['hours']:.2f}"
    lines.append(
      row.format(name, part["utterances"], part["tasks"], hours, lengths)
    )
  rates = ", ".join(
    f"{rate} Hz ({count})" for rate, count in summary["source_rates"].items()
  )
  tokenizer = summary["tokenizer"]
  lines.append(f"sampling rates: {rates}")
  lines.append(f"characters: {''.join(summary['characters']).strip()}")
  lines.append(f"labels: {tokenizer['labels']}, the blank included")
  if tokenizer["unknown_characters"]:
    lines.append(
      "warning: dropped from transcripts, as the tokenizer can't spell them: "
      + tokenizer["unknown_characters"]
    )
  lines += [f"warning: {warning}" for warning in summary["warnings"]]
  return "\n".join(lines)


def _extent(splits: Sequence[Split]) -> dict[str, Any]:
  samples = np.concatenate([split.samples for split in splits])
  seconds = samples / dims.SAMPLE_RATE
  values = np.percentile(seconds, list(_QUANTILES.values()))
  return {
    "hours": round(float(seconds.sum()) / 3600, 4),
    "tasks": len(set().union(*(split.tasks for split in splits))),
    "utterances": len(seconds),
    "seconds": {
      name: round(float(value), 3)
      for name, value in zip(_QUANTILES, values, strict=True)
    },
  }


def _empty(splits: Mapping[str, Split], wanted: Sequence[str]) -> Iterator[str]:
  for split in dict.fromkeys(wanted):
    if split not in splits:
      yield (
        f"there is no {split}: none of its recordings can be used, or no task has "
        "enough sentences (4) or sessions (3) to hold some out"
      )


def _missing(counts: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
  trained = {task for task, of in counts.items() if of[TRAIN]}
  for split in next(iter(counts.values())):
    held = {task for task, of in counts.items() if of[split]}
    if not held & trained:
      yield (
        f"no task of {split} is in {TRAIN}: a run that adapts can't be scored on "
        "it; --split_by=sentence would divide anew"
      )
    elif len(held) < len(trained | held):
      tasks = sorted((trained | held) - held)
      more = ", ..." if len(tasks) > _NAMED else ""
      yield (
        f"{len(tasks)} of {len(trained | held)} tasks have no recording in "
        f"{split}: {', '.join(map(_short, tasks[:_NAMED]))}{more}"
      )


def _shared(overlap: Overlap) -> str:
  ours, theirs = overlap.example
  return (
    f"{overlap.utterances} of {overlap.of} utterances of {overlap.split} have a "
    f"transcript that {overlap.other} has too, such as {_short(ours.text)!r} "
    f"({ours.id} and {theirs.id}); --split_by=sentence would divide anew"
  )


def _short(text: str, *, most: int = 60) -> str:
  return text if len(text) <= most else f"{text[: most - 3]}..."
