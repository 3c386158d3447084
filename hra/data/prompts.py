"""What begins a sentence of a prompted decoder, by the names of its labels.

In: a tokenizer, a language and a task. Out: labels (Radford et al. 2022, arXiv 2212.04356,
section 2.3).
"""

import re
from collections.abc import Sequence

from hra.errors import InputError

_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
_WITHOUT_TIMES = "<|notimestamps|>"


def prompt(
  labels: Sequence[str],
  *,
  start: int,
  language: str,
  task: str,
  timestamps: bool,
) -> tuple[int, ...]:
  """The labels of a prompt.

  Args:
    labels: the tokenizer's names of all labels.
    start: the first label of every sentence.
    language: such as `de`; empty where the decoder knows one alone, and no task.

  Raises:
    InputError: a language that the decoder doesn't know.
  """
  names = []
  if language:
    known = languages(labels)
    if language not in known:
      raise InputError(
        "config.backbone.decoder.language",
        expected=f"one of the decoder's {len(known)}: {', '.join(known)}"
        if known
        else "none: the decoder knows one alone",
        got=repr(language),
        fix="give its code, as --language=de",
      )
    names += [f"<|{language}|>", f"<|{task}|>"]
  if not timestamps and _WITHOUT_TIMES in labels:
    names.append(_WITHOUT_TIMES)
  return (start, *map(list(labels).index, names))


def languages(labels: Sequence[str]) -> list[str]:
  """Those that have a label."""
  found = map(_LANGUAGE.fullmatch, labels)
  return [match[1] for match in found if match]
