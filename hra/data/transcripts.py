"""Which transcripts can be used, before any recording is decoded.

Enters: the records of a corpus. Leaves: those whose transcripts can be spelt and
that stand there once; the others among the problems; and, once they are divided,
how much sound each transcript needs.
"""

import dataclasses
from collections.abc import Iterable

from hra.config import PrepareConfig
from hra.data.corpora import segments
from hra.data.records import Problems, Record, repeated
from hra.data.splits import Splits
from hra.data.text import normalize_transcript
from hra.data.tokenizer import Tokenizer, least_frames
from hra.errors import InputError


def usable(
  records: Iterable[Record],
  problems: Problems,
  *,
  tokenizer: Tokenizer | None,
  config: PrepareConfig,
) -> list[Record]:
  """The records whose transcripts can be used, and that stand there once."""
  usable = []
  anew = config.split_by in ("sentence", "session")
  ids: dict[tuple[str | None, str], Record] = {}
  recordings: dict[segments.Key, Record] = {}
  for record in records:
    error = (
      _spelling(record, tokenizer, unknown=config.unknown)
      or _again(
        record,
        ids.setdefault((None if anew else record.split, record.id), record),
        "id",
        repr(record.id),
      )
      or _again(
        record,
        recordings.setdefault(segments.key(record), record),
        "recording",
        segments.shown(record),
      )
    )
    if error is None:
      usable.append(record)
    else:
      problems.add(error)
  return usable


def _spelling(
  record: Record, tokenizer: Tokenizer | None, *, unknown: str
) -> InputError | None:
  if not normalize_transcript(record.text):
    return InputError(record.where, expected="words", got=repr(record.text))
  if tokenizer is None:
    return None
  missing = tokenizer.unknown(record.text)
  if missing and unknown == "problem":
    return _unspelled(record, tokenizer, fix=" or give --unknown=drop")
  return (
    None if tokenizer.encode(record.text) else _unspelled(record, tokenizer)
  )


def _unspelled(
  record: Record, tokenizer: Tokenizer, *, fix: str = ""
) -> InputError:
  missing = "".join(tokenizer.unknown(record.text))
  return InputError(
    record.where,
    expected="characters that the tokenizer can spell",
    got=f"{missing!r} in {record.text!r}",
    fix=f"spell it otherwise{fix}",
  )


def _again(
  record: Record, first: Record, what: str, shown: str
) -> InputError | None:
  if first is record:
    return None
  return repeated(record.where, what=what, shown=shown, first=first.where)


def counted(
  splits: Splits, problems: Problems, *, tokenizer: Tokenizer
) -> Splits:
  """The records with the frames that CTC needs for their labels, if any."""
  result: Splits = {name: [] for name in splits}
  for name, part in splits.items():
    for record in part:
      labels = tokenizer.encode(record.text)
      if labels:
        result[name].append(
          dataclasses.replace(record, labels=least_frames(labels))
        )
      else:
        problems.add(_unspelled(record, tokenizer))
  return result
