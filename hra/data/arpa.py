"""An ARPA file, as KenLM's lmplz and SRILM write it -> n-grams of label ids.

    \\data\\
    ngram 1=COUNT
    ...
    \\1-grams:
    LOG10_PROBABILITY WORD ... [LOG10_BACKOFF]
    ...
    \\end\\

`<s>`, with which a sentence begins, and `</s>`, with which it ends, are both id 0:
the first is never said, and the second never comes before anything.
"""

import contextlib
import gzip
import io
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import BinaryIO, NamedTuple

from etils import epath

from hra.data.tokenizer import BLANK
from hra.errors import InputError
from hra.files import absolute, storage

BEGIN, END, UNKNOWN = "<s>", "</s>", ("<unk>", "<UNK>")
_SPECIAL = (BEGIN, END, *UNKNOWN)
_EXPECTED = "an ARPA file"
_COUNT = re.compile(r"ngram\s+(\d+)\s*=\s*(\d+)")
_SECTION = re.compile(r"\\(\d+)-grams:")
_SPACE = re.compile(r"[ \t]+")

Gram = tuple[int, ...]


class Entry(NamedTuple):
  """Of an n-gram; log10, as they are written."""

  log: float
  backoff: float
  """Of what comes after it, where the file doesn't say; 0 if it isn't there."""


class Arpa(NamedTuple):
  """What a file holds."""

  orders: list[dict[Gram, Entry]]
  """By length, of 1 on. (0,) has the end's probability and the beginning's
  back-off."""
  unknown: float | None
  """log10 probability of any other word, if it has one."""


def read(path: epath.PathLike, ids: Mapping[str, int]) -> Arpa:
  """A file of n-grams over labels, plain or compressed by gzip (`.gz`).

  Args:
    ids: labels by name, as they stand in the file; without those of sentences'
      ends. Longer n-grams with an unknown word are left out, if that is none.

  Raises:
    InputError: `file:line` of what is no ARPA file, or not of these labels.
    StorageError: it can't be read.
  """
  path = absolute(path)
  with _opened(path) as file:
    reader = _Reader(path, file, ids)
    counts = reader.counts()
    orders = [
      reader.section(order, count, last=order == len(counts))
      for order, count in enumerate(counts, 1)
    ]
    reader.expect("\\end\\")
  _check_contexts(path, orders)
  return Arpa(orders, reader.unknown)


@contextlib.contextmanager
def _opened(path: epath.Path) -> Iterator[BinaryIO]:
  with storage(path, expected=_EXPECTED):
    try:
      with path.open("rb") as file:
        if path.suffix == ".gz":
          file = io.BufferedReader(gzip.GzipFile(fileobj=file))
        yield file
    except (EOFError, gzip.BadGzipFile) as error:
      raise InputError(path, expected=_EXPECTED, got=str(error)) from error


class _Reader:
  """Goes through the lines that aren't empty, once."""

  def __init__(self, path: epath.Path, file: BinaryIO, ids: Mapping[str, int]):
    self.unknown: float | None = None
    self._path = path
    self._ids = ids
    self._number = 0
    self._lines = self._numbered(file)
    self._line = next(self._lines, "")

  def _numbered(self, file: BinaryIO) -> Iterator[str]:
    for self._number, line in enumerate(file, 1):
      try:
        text = line.decode().strip(" \t\r\n")
      except UnicodeDecodeError as error:
        raise self._error("UTF-8", str(error)) from error
      if text:
        yield text
    self._number += 1

  def _error(self, expected: str, got: str, fix: str = "") -> InputError:
    where = f"{self._path}:{self._number}"
    return InputError(where, expected=expected, got=got, fix=fix)

  def _next(self) -> None:
    self._line = next(self._lines, "")

  def expect(self, line: str) -> None:
    if self._line != line:
      raise self._error(line, self._line or "the end of the file")
    self._next()

  def counts(self) -> list[int]:
    """How many n-grams there are of each length."""
    while self._line and self._line != "\\data\\":  # anything may precede it
      self._next()
    self.expect("\\data\\")
    counts: list[int] = []
    while found := _COUNT.fullmatch(self._line):
      order, count = map(int, found.groups())
      if order != len(counts) + 1:
        raise self._error(f"ngram {len(counts) + 1}=COUNT", self._line)
      counts.append(count)
      self._next()
    if not counts:
      raise self._error("ngram 1=COUNT", self._line or "the end of the file")
    return counts

  def section(self, order: int, count: int, *, last: bool) -> dict[Gram, Entry]:
    """The n-grams of one length."""
    self.expect(f"\\{order}-grams:")
    found: dict[Gram, Entry] = {}
    lines = 0
    while self._line and not self._line.startswith("\\"):
      self._add(found, order, last=last)
      lines += 1
      self._next()
    if lines != count:
      raise self._error(f"{count} {order}-grams", f"{lines} before this line")
    return found

  def _add(self, found: dict[Gram, Entry], order: int, *, last: bool) -> None:
    log, *words = _SPACE.split(self._line)
    backoff = words.pop() if len(words) == order + 1 and not last else "0"
    if len(words) != order:
      form = f"LOG10 {'WORD ' * order}{'' if last else '[BACKOFF]'}".strip()
      raise self._error(form, repr(self._line))
    entry = Entry(self._number_of(log), self._number_of(backoff))
    if entry.log > 0:
      raise self._error("a log-probability of at most 0", log)
    for word in words:
      if word not in self._ids and word not in _SPECIAL:
        raise self._error(
          "labels of the tokenizer",
          repr(word),
          "n-grams are of labels, not of words: see hra.decoders.ngram",
        )
    if order == 1 and words[0] in UNKNOWN:
      self.unknown = entry.log
    self._keep(found, words, entry)

  def _keep(
    self, found: dict[Gram, Entry], words: list[str], entry: Entry
  ) -> None:
    if BEGIN in words[1:] or END in words[:-1]:
      raise self._error(
        f"{BEGIN} at the beginning and {END} at the end only", " ".join(words)
      )
    markers = {BEGIN: BLANK, END: BLANK}
    gram = tuple(markers.get(w, self._ids.get(w, -1)) for w in words)
    if -1 in gram:
      return
    if gram == (BLANK,):  # one of two lines: each says one half
      other = found.get(gram, Entry(-math.inf, 0.0))
      begins = words == [BEGIN]
      entry = Entry(
        other.log if begins else entry.log,
        entry.backoff if begins else other.backoff,
      )
    elif gram in found:
      raise self._error("each n-gram once", f"{' '.join(words)!r} again")
    found[gram] = entry

  def _number_of(self, text: str) -> float:
    try:
      number = float(text)
    except ValueError:
      number = math.nan
    if math.isnan(number):
      raise self._error("a number", repr(text))
    return number


def _check_contexts(path: epath.Path, orders: list[dict[Gram, Entry]]) -> None:
  for shorter, longer in itertools.pairwise(orders):
    for gram in longer:
      if gram[:-1] not in shorter:
        raise InputError(
          path,
          expected=f"what {len(gram)}-grams begin with among the shorter ones",
          got=f"none with the label ids {gram[:-1]}",
          fix="the file is incomplete: estimate it again",
        )
