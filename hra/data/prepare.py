"""A corpus -> a folder of prepared data.

Enters: a corpus in any form of `hra.data.corpora.source`. Leaves: the folder of
`hra.data.dataset`, with a tokenizer (`tokenizer.model`, trained on the training
transcripts, or the one given), `summary.json` and, where recordings were left out,
`left_out.jsonl`.

The folder appears under its name only when it is complete. Until then everything
stands in `.NAME.partial` beside it, from where the same command goes on.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath
from tqdm import tqdm

from hra import dims
from hra.config import PrepareConfig
from hra.data import dataset, place, shards
from hra.data.audio import Limits
from hra.data.corpora import source as corpora
from hra.data.records import Problems, Record
from hra.data.splits import TRAIN, Splits, divide, overlaps
from hra.data.summary import summarize
from hra.data.tokenizer import Tokenizer
from hra.data.transcripts import counted, usable
from hra.errors import InputError
from hra.files import absolute, is_remote, locked, storage, write_aside

LEFT_OUT_FILE = "left_out.jsonl"

Source = str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]

_FORMAT = 2
"""Of the folder; a new one makes every older preparation another one."""
_DEFAULTS = PrepareConfig()
_DEFAULT_FIELDS = corpora.Fields()
_SKIP = "give --skip_bad to go on without them; what is decoded is kept"


def prepare(
  source: Source,
  out: str | os.PathLike[str],
  *,
  config: PrepareConfig = _DEFAULTS,
  tokenizer: str | os.PathLike[str] | None = None,
  fields: corpora.Fields = _DEFAULT_FIELDS,
  least: int = 1,
) -> dict[str, Any]:
  """Prepares a corpus for training; returns at once where that was done.

  Args:
    source: what `hra.data.corpora.source.read` takes: a manifest, a folder, an
      archive, `tfds:NAME`, or the manifest of each split.
    out: the folder to make.
    config: how to divide, what is a problem, the tokenizer's kind.
    tokenizer: a Sentencepiece model to copy instead of training one.
    fields: names of a manifest's fields.
    least: sentences (sessions) of a task that are held out for a split, where any
      are.

  Returns:
    What `summary.json` holds.

  Raises:
    InputError: an option, the corpus, the tokenizer or recordings can't be used
      (all that is wrong with the corpus together), `out` holds something else, or
      another process is preparing it.
    StorageError: the disk or the bucket refuses.
  """
  _check_options(config, fields)
  folder = _folder(out)
  given = None if tokenizer is None else Tokenizer.load(tokenizer)
  problems = Problems(
    "the corpus", expected="transcripts and recordings without faults"
  )
  read = functools.partial(
    corpora.read,
    source,
    problems=problems,
    fields=fields,
    scratch=lambda: _made(place.workplace(folder) / "scratch"),
  )
  # Archives are not unpacked only to see that they were prepared.
  archives = corpora.identity(source)
  records = read() if archives is None else []
  faults = [[each.expected, each.got] for each in problems]
  options = _options(config, tokenizer=given, fields=fields)
  if least > 1:
    options["least"] = least
  fingerprint = _fingerprint([archives, faults, options], records)
  finished = _finished(folder, fingerprint, bad=config.bad)
  if finished is not None:
    return finished
  with _workplace(folder) as work:
    if archives is not None:
      records = read()
    splits, used = _divided(
      records, problems, tokenizer=given, config=config, least=least
    )
    decoded = _decoded(splits, problems, work=work, config=config)
    if config.bad == "refuse":
      _refuse(problems, folder)
    return _finish(
      folder,
      work,
      splits=splits,
      decoded=decoded,
      tokenizer=used,
      left_out=problems,
      wanted=_wanted(config),
      fingerprint=fingerprint,
    )


def _divided(
  records: Sequence[Record],
  problems: Problems,
  *,
  tokenizer: Tokenizer | None,
  config: PrepareConfig,
  least: int,
) -> tuple[Splits, Tokenizer]:
  """The records that can be used, by split, and the tokenizer that counts them."""
  records = usable(records, problems, tokenizer=tokenizer, config=config)
  _announce(problems, left=len(records))
  splits = divide(
    records,
    by=config.split_by,
    fractions={"dev": config.dev_fraction, "test": config.test_fraction},
    least=least,
    seed=config.seed,
  )
  if tokenizer is None:
    tokenizer = Tokenizer.train(
      (record.text for record in splits[TRAIN]),
      vocabulary=config.vocabulary,
      kind=config.kind,
    )
  return counted(splits, problems, tokenizer=tokenizer), tokenizer


def _decoded(
  splits: Splits,
  problems: Problems,
  *,
  work: pathlib.Path,
  config: PrepareConfig,
) -> dict[str, list[shards.Shard]]:
  decoded = shards.decode(
    _made(work / "parts"),
    splits,
    limits=Limits(
      min_seconds=config.min_seconds,
      max_seconds=config.max_seconds,
      labels_per_second=config.labels_per_second,
    ),
    jobs=config.jobs,
  )
  for shard in itertools.chain.from_iterable(decoded.values()):
    for error in shard.problems:
      problems.add(error)
  return decoded


def _finish(
  folder: epath.Path,
  work: pathlib.Path,
  *,
  splits: Splits,
  decoded: Mapping[str, Sequence[shards.Shard]],
  tokenizer: Tokenizer,
  left_out: Problems,
  wanted: Sequence[str],
  fingerprint: str,
) -> dict[str, Any]:
  """Puts the decoded parts together and gives the folder its name."""
  aside = work / "done"
  shutil.rmtree(aside, ignore_errors=True)
  _made(aside)
  if not any(shard.places for shard in decoded[TRAIN]):
    _refuse(left_out, folder)
  tokenizer.save(aside / tokenizer.name)
  dataset.assemble(aside, decoded, splits)
  opened = {
    name: dataset.open_split(aside, name) for name in dataset.split_names(aside)
  }
  rates: Counter[int] = Counter()
  for shard in itertools.chain.from_iterable(decoded.values()):
    rates.update(shard.rates)
  summary = {
    "format": _FORMAT,
    "fingerprint": fingerprint,
    **summarize(
      opened,
      tokenizer=tokenizer,
      rates=rates,
      overlaps=list(overlaps(splits)),
      left_out=left_out,
      wanted=[*wanted, *splits],
    ),
  }
  if left_out:
    _list(left_out, aside / LEFT_OUT_FILE)
  text = json.dumps(summary, indent=2, ensure_ascii=False)
  write_aside(aside / place.LAST, text.encode())
  place.publish(aside, folder)
  _problems_file(folder).unlink(missing_ok=True)
  shutil.rmtree(work)
  return summary


def _folder(out: str | os.PathLike[str]) -> epath.Path:
  """The place itself, behind links."""
  folder = absolute(out)
  try:
    os.fspath(folder).encode()
  except UnicodeEncodeError as error:
    raise InputError(
      repr(os.fspath(folder)),
      expected="a folder whose name is UTF-8",
      got="other bytes",
      fix="choose another --out",
    ) from error
  if is_remote(folder):
    return folder
  with storage(folder, expected="a place for the prepared data"):
    return epath.Path(os.path.realpath(folder))  # epath follows no links


def _wanted(config: PrepareConfig) -> list[str]:
  """The splits that something should be held out for."""
  if config.split_by == "given":
    return []
  fractions = {"dev": config.dev_fraction, "test": config.test_fraction}
  return [name for name, fraction in fractions.items() if fraction]


def _check_options(config: PrepareConfig, fields: corpora.Fields) -> None:
  fractions = {"dev": config.dev_fraction, "test": config.test_fraction}
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
  if not 0 <= config.min_seconds < config.max_seconds:
    raise InputError(
      "min_seconds and max_seconds",
      expected="0 or more, and more than that",
      got=f"{config.min_seconds:g} and {config.max_seconds:g}",
    )
  for name in ("jobs", "labels_per_second"):
    value = getattr(config, name)
    if not value >= 0:
      raise InputError(name, expected="at least 0", got=f"{value:g}")
  if not fields.text:
    raise InputError("text_field", expected="a field's name", got="nothing")


def _options(
  config: PrepareConfig,
  *,
  tokenizer: Tokenizer | None,
  fields: corpora.Fields,
) -> dict[str, Any]:
  """What the result depends on beside the corpus."""
  options = dataclasses.asdict(config) | dataclasses.asdict(fields)
  for name in ("jobs", "bad"):
    del options[name]
  if fields.single_task is None:  # which older preparations didn't know
    del options["single_task"]
  if tokenizer is not None:
    options |= {"kind": tokenizer.hash, "vocabulary": 0}
  return options


def _fingerprint(facts: Sequence[Any], records: Iterable[Record]) -> str:
  """Of what the result depends on; of local recordings, sizes and times."""
  digest = hashlib.blake2b(digest_size=16)

  def add(*values: Any) -> None:
    digest.update(json.dumps(values, sort_keys=True).encode())

  add(_FORMAT, dims.SAMPLE_RATE, *facts)
  for record in records:
    add(record.id, record.text, record.task, record.session, record.split)
    add(record.offset, record.duration, shards.file_stamp(record.path))
  return digest.hexdigest()


def _finished(
  folder: epath.Path, fingerprint: str, *, bad: str
) -> dict[str, Any] | None:
  """The summary of the same data, if they stand there already."""
  if place.is_vacant(folder):
    return None
  summary = _summary(folder / place.LAST)
  if summary.get("fingerprint") != fingerprint:
    ours = "fingerprint" in summary
    raise InputError(
      folder,
      expected="a new folder",
      got="data that were prepared from other recordings or options"
      if ours
      else "something else in it",
      fix="delete it, or give another",
    )
  if summary["left_out"] and bad == "refuse":
    raise InputError(
      folder,
      expected="data of which nothing was left out",
      got=f"{summary['left_out']} problems in {LEFT_OUT_FILE}",
      fix="correct them and prepare another folder, or give --skip_bad",
    )
  return summary


def _summary(file: epath.Path) -> dict[str, Any]:
  with storage(file, expected="a summary"):
    data = file.read_bytes() if file.exists() else b"{}"
  try:
    summary = json.loads(data)
  except ValueError:  # no JSON, or no text at all
    return {}
  return summary if isinstance(summary, dict) else {}


@contextlib.contextmanager
def _workplace(folder: epath.Path) -> Iterator[pathlib.Path]:
  """A local folder of this preparation alone, kept until it is complete."""
  work = place.workplace(folder)
  with storage(folder, expected="a folder that can be made"):
    _made(work)
  with locked(work, fix="choose another --out"):
    try:
      yield work
    finally:  # whose lock it is
      if not any(path.is_file() for path in work.glob("*/**/*")):
        shutil.rmtree(work, ignore_errors=True)


def _made(folder: pathlib.Path) -> pathlib.Path:
  folder.mkdir(parents=True, exist_ok=True)
  return folder


def _announce(problems: Problems, *, left: int) -> None:
  """Says what is known before recordings are decoded, which takes long."""
  if not left:
    problems.raise_any()
  if problems:
    first = next(iter(problems))
    tqdm.write(
      f"problems so far: {len(problems)}, such as\n  {first}\n"
      f"recordings that are now decoded: {left}",
      file=sys.stderr,
    )


def _refuse(problems: Problems, folder: epath.Path) -> None:
  """Raises what is wrong, if anything is; a list of all of it stands in a file."""
  if not problems:
    return
  file = _problems_file(folder)
  _list(problems, file)
  problems.raise_any(fix=f"all of them: {file}; {_SKIP}")


def _problems_file(folder: epath.Path) -> epath.Path:
  return folder.parent / f"{folder.name}.problems.ndjson"


def _list(problems: Problems, file: epath.PathLike) -> None:
  lines = (
    json.dumps(
      {
        "where": error.where,
        "expected": error.expected,
        "got": error.got,
        "fix": error.fix,
      }
    )
    for error in problems
  )
  write_aside(file, "".join(f"{line}\n" for line in lines).encode())
