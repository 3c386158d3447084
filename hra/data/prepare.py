"""Manifests -> a folder of prepared data.

Enters: one manifest, from which dev and test sentences are held out, or one for
each split. Leaves: the folder of `hra.data.dataset`, with `tokenizer.model`
(trained on the training transcripts, or the one given) and `summary.json`.

The folder appears under its name only when it is complete.
"""

import collections
import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from hra import dims, keys
from hra.config import PrepareConfig
from hra.data import dataset, manifest
from hra.data.manifest import Problems, Record
from hra.data.text import normalize_transcript
from hra.data.tokenizer import Kind, Tokenizer
from hra.errors import InputError
from hra.files import write_aside

TOKENIZER_FILE = "tokenizer.model"
SUMMARY_FILE = "summary.json"

_FORMAT = 1
"""Of the folder; a new one makes every older preparation another one."""
_ENOUGH = 4
"""A task with fewer distinct sentences keeps them all for training."""
_DEFAULTS = PrepareConfig()

_Splits = dict[str, list[Record]]


def prepare(
  sources: Mapping[str, str | os.PathLike[str]],
  out: str | os.PathLike[str],
  *,
  tokenizer: str | os.PathLike[str] | None = None,
  vocabulary: int = _DEFAULTS.vocabulary,
  kind: Kind = _DEFAULTS.kind,
  seed: int = _DEFAULTS.seed,
  dev_fraction: float = _DEFAULTS.dev_fraction,
  test_fraction: float = _DEFAULTS.test_fraction,
  jobs: int = _DEFAULTS.jobs,
) -> dict[str, Any]:
  """Prepares manifests for training; returns at once where that was done.

  Args:
    sources: the manifest of each split: `train`, and where they exist already,
      `dev` and `test`. Those that are missing are held out of `train` by
      sentence (`hold_out`).
    out: the folder to make.
    tokenizer: a Sentencepiece model to copy instead of training one.
    vocabulary: the most labels of a trained tokenizer.
    kind: of a trained tokenizer.
    seed: decides which sentences are held out.
    dev_fraction: part of each task's sentences for `dev`.
    test_fraction: part of each task's sentences for `test`.
    jobs: threads that decode.

  Returns:
    What `summary.json` holds.

  Raises:
    InputError: an option, a manifest, the tokenizer or recordings can't be
      used (all bad recordings together), or `out` holds something else.
  """
  fractions = {"dev": dev_fraction, "test": test_fraction}
  _check_options(sources, fractions=fractions, jobs=jobs)
  given = None if tokenizer is None else Tokenizer.load(tokenizer)
  records = {split: manifest.read(path) for split, path in sources.items()}
  _check_records(records)
  fingerprint = _fingerprint(
    records,
    options={
      "dev_fraction": dev_fraction,
      "test_fraction": test_fraction,
      "seed": seed,
      "tokenizer": given.hash if given else [kind, vocabulary],
    },
  )
  folder = epath.Path(out)
  finished = _finished(folder, fingerprint)
  if finished is not None:
    return finished
  absent = {
    name: part for name, part in fractions.items() if name not in records
  }
  held_out = hold_out(records.pop("train"), fractions=absent, seed=seed)
  splits = {
    name: sorted(part, key=lambda record: (record.task, record.id))
    for name, part in (held_out | records).items()
    if part
  }
  if given:
    _check_spelling(splits["train"], given)
  else:
    texts = (record.text for record in splits["train"])
    given = Tokenizer.train(texts, vocabulary=vocabulary, kind=kind)
  with _staged(folder) as aside:
    given.save(aside / TOKENIZER_FILE)
    rates = dataset.write(aside, splits, jobs=jobs)
    summary = {
      "format": _FORMAT,
      "fingerprint": fingerprint,
      **_summarize(aside, splits, given),
      "source_rates": {str(rate): rates[rate] for rate in sorted(rates)},
    }
    text = json.dumps(summary, indent=2, ensure_ascii=False)
    write_aside(aside / SUMMARY_FILE, text.encode())
  return summary


def hold_out(
  records: Sequence[Record], *, fractions: Mapping[str, float], seed: int
) -> _Splits:
  """Divides records by sentence: no transcript stands in two splits.

  Of each task's n distinct (normalised) sentences, each split gets
  max(1, round(fraction * n)), the first in the order of a hash of the sentence;
  the rest trains. A sentence that several tasks speak is in one split for all of
  them: the smallest task decides, so that it gets its share. Thus, where tasks
  share no sentences, a task is divided as if it were alone.

  Args:
    records: of any number of tasks.
    fractions: part of the sentences for each split that is held out; 0 is none.
    seed: changes the order.

  Returns:
    The records of `train` and of each name in `fractions`.
  """
  sentences_of: dict[str, set[str]] = collections.defaultdict(set)
  for record in records:
    sentences_of[record.task].add(normalize_transcript(record.text))
  split_of: dict[str, str] = {}
  for task in sorted(sentences_of, key=lambda t: (len(sentences_of[t]), t)):
    sentences = sorted(
      sentences_of[task], key=lambda s: (keys.stable_hash(f"{seed}/{s}"), s)
    )
    for name, fraction in fractions.items():
      if not fraction or len(sentences) < _ENOUGH:
        continue
      share = max(1, round(fraction * len(sentences)))
      share -= sum(split_of.get(sentence) == name for sentence in sentences)
      free = [sentence for sentence in sentences if sentence not in split_of]
      # One at least is left to train on.
      taken = free[: max(min(share, len(free) - 1), 0)]
      split_of |= dict.fromkeys(taken, name)
    for sentence in sentences:
      split_of.setdefault(sentence, "train")
  splits: _Splits = {name: [] for name in ("train", *fractions)}
  for record in records:
    splits[split_of[normalize_transcript(record.text)]].append(record)
  return splits


def _check_options(
  sources: Mapping[str, object], *, fractions: Mapping[str, float], jobs: int
) -> None:
  if "train" not in sources:
    raise InputError(
      "sources", expected="a manifest for 'train'", got=", ".join(sources)
    )
  for name, fraction in fractions.items():
    if not 0 <= fraction < 1:
      raise InputError(
        f"{name}_fraction", expected="from 0 up to 1", got=f"{fraction:g}"
      )
  if sum(fractions.values()) >= 1:
    raise InputError(
      "dev_fraction + test_fraction",
      expected="less than 1, so that something is left to train on",
      got=f"{sum(fractions.values()):g}",
    )
  if jobs < 1:
    raise InputError("jobs", expected="at least 1", got=str(jobs))


def _check_records(records: Mapping[str, Sequence[Record]]) -> None:
  problems = Problems("manifests", expected="usable transcripts and recordings")
  seen: dict[tuple[str, float | None], Record] = {}
  for record in itertools.chain.from_iterable(records.values()):
    if not normalize_transcript(record.text):
      problems.add(
        InputError(record.where, expected="words", got=repr(record.text))
      )
    first = seen.setdefault((record.path, record.offset), record)
    if first is not record:
      problems.add(
        InputError(
          record.where,
          expected="a recording of no other split",
          got=record.path,
          fix=f"see {first.where}",
        )
      )
  problems.raise_any()


def _check_spelling(records: Iterable[Record], tokenizer: Tokenizer) -> None:
  problems = Problems("tokenizer", expected="a label for every transcript")
  for record in records:
    if not tokenizer.encode(record.text):
      problems.add(
        InputError(
          record.where,
          expected="characters that the tokenizer can spell",
          got=repr(record.text),
        )
      )
  problems.raise_any()


def _fingerprint(
  records: Mapping[str, Sequence[Record]], *, options: Mapping[str, Any]
) -> str:
  """Of what the result depends on; of recordings, their names and sizes."""
  digest = hashlib.blake2b(digest_size=16)

  def add(*values: Any) -> None:
    digest.update(json.dumps(values).encode())

  add(_FORMAT, dims.SAMPLE_RATE, sorted(options.items()))
  for split in sorted(records):
    add(split)
    for record in records[split]:
      audio = epath.Path(record.path)
      size = audio.stat().length if audio.exists() else None
      add(record.id, record.text, record.task, record.offset, record.duration)
      add(size)
  return digest.hexdigest()


def _finished(folder: epath.Path, fingerprint: str) -> dict[str, Any] | None:
  if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
    return None
  got = "something else in it"
  file = folder / SUMMARY_FILE
  if file.exists():
    summary = json.loads(file.read_text())
    if summary.get("fingerprint") == fingerprint:
      return summary
    got = "data that were prepared from other recordings or options"
  raise InputError(
    folder,
    expected="a new folder",
    got=got,
    fix="delete it, or give another",
  )


@contextlib.contextmanager
def _staged(folder: epath.Path) -> Iterator[epath.Path]:
  """A folder aside that gets its name at the end, or else vanishes."""
  aside = folder.parent / f".{folder.name}.{os.getpid()}"
  try:
    aside.mkdir(parents=True)
  except OSError as error:
    raise InputError(
      folder,
      expected="a folder that can be made",
      got=error.strerror or str(error),
    ) from error
  try:
    yield aside
    if folder.exists():
      folder.rmdir()  # An empty one, or this is refused.
    aside.rename(folder)
  finally:
    if aside.exists():
      aside.rmtree()


def _summarize(
  folder: epath.Path,
  splits: Mapping[str, Sequence[Record]],
  tokenizer: Tokenizer,
) -> dict[str, Any]:
  opened = {name: dataset.open_split(folder, name) for name in splits}
  counts: dict[str, dict[str, int]] = {}
  for name, split in opened.items():
    for task in split.tasks:
      of_task = counts.setdefault(task, dict.fromkeys(splits, 0))
      of_task[name] += 1
  sentences = {
    name: {normalize_transcript(text) for text in split.texts}
    for name, split in opened.items()
  }
  letters = set().union(*itertools.chain.from_iterable(sentences.values()))
  characters = "".join(sorted(letters))
  return {
    **_extent(list(opened.values())),
    "splits": {name: _extent([split]) for name, split in opened.items()},
    "task_utterances": dict(sorted(counts.items())),
    "characters": characters,
    "tokenizer": {
      "labels": tokenizer.vocabulary,
      "hash": tokenizer.hash,
      "unknown_characters": "".join(tokenizer.unknown(characters)),
    },
    "warnings": [*_missing(counts), *_shared(sentences)],
  }


def _extent(splits: Sequence[dataset.Split]) -> dict[str, Any]:
  seconds = np.concatenate([split.samples for split in splits])
  seconds = seconds / dims.SAMPLE_RATE
  return {
    "hours": round(float(seconds.sum()) / 3600, 4),
    "tasks": len(set().union(*(split.tasks for split in splits))),
    "utterances": len(seconds),
    "seconds": {
      "min": round(float(seconds.min()), 3),
      "median": round(float(np.median(seconds)), 3),
      "max": round(float(seconds.max()), 3),
    },
  }


def _missing(counts: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
  splits = next(iter(counts.values()))
  for split in splits:
    tasks = sorted(task for task, of in counts.items() if not of[split])
    if tasks:
      more = ", ..." if len(tasks) > 5 else ""
      yield (
        f"{len(tasks)} of {len(counts)} tasks have no recording in {split}: "
        f"{', '.join(tasks[:5])}{more}"
      )


def _shared(sentences: Mapping[str, set[str]]) -> Iterator[str]:
  for one, other in itertools.combinations(sentences, 2):
    shared = len(sentences[one] & sentences[other])
    if shared:
      yield f"{shared} sentences of {one} stand in {other} too"
