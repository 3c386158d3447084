"""Text -> batches of label ids, for language models.

Enters: lines of text, and a tokenizer. Leaves: `SentenceBatch`es, from any position
the same bit for bit: the position is all that a checkpoint has to keep.
"""

import gzip
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from hra.data.batching import TaskStream, bucket_bounds, evaluation_plan
from hra.data.examples import Encoder
from hra.errors import InputError
from hra.files import absolute, storage

_MULTIPLE = 8
"""Ends of length buckets are multiples of that many labels."""


class SentenceBatch(NamedTuple):
  """B sentences: NumPy on the host, then arrays on devices."""

  labels_BU: Any
  """int32, 0 after the end."""
  lengths_B: Any
  """int32; 0 is an empty place."""


class Sentences(NamedTuple):
  """Label ids of many sentences, one behind the other."""

  ids_X: np.ndarray
  """int32."""
  starts_N: np.ndarray
  """int64, where each begins."""
  lengths_N: np.ndarray
  """int64."""
  too_long: int
  """Sentences that were left out."""

  def batch(self, indices_B: np.ndarray, *, labels: int) -> SentenceBatch:
    """Some of them, padded to a number of labels; -1 is an empty place."""
    labels_BU = np.zeros((len(indices_B), labels), np.int32)
    lengths_B = np.zeros(len(indices_B), np.int32)
    for place, index in enumerate(indices_B):
      if index >= 0:
        start, length = self.starts_N[index], self.lengths_N[index]
        labels_BU[place, :length] = self.ids_X[start : start + length]
        lengths_B[place] = length
    return SentenceBatch(labels_BU, lengths_B)


def encode(
  texts: Iterable[str], tokenizer: Encoder, *, most: int, where: object
) -> Sentences:
  """The sentences of 1 to `most` labels.

  Raises:
    InputError: there is none; it says where.
  """
  # Of an array for each, the objects would outweigh the labels.
  kept, lengths, too_long = array("i"), array("q"), 0
  for text in texts:
    ids = tokenizer.encode(text)
    if len(ids) > most:
      too_long += 1
    elif ids:
      kept.extend(ids)
      lengths.append(len(ids))
  if not lengths:
    raise InputError(
      where,
      expected=f"sentences of 1 to {most} labels",
      got=f"{too_long} longer ones and no other",
    )
  lengths_N = np.asarray(lengths)
  starts_N = np.cumsum(lengths_N) - lengths_N
  return Sentences(np.asarray(kept), starts_N, lengths_N, too_long)


def read_lines(path: epath.PathLike) -> Iterator[str]:
  """The lines of a UTF-8 file, plain or compressed by gzip (`.gz`).

  Raises:
    InputError: `file:line` of what is no UTF-8; a damaged archive.
    StorageError: it can't be read.
  """
  path = absolute(path)
  expected = "a text file, a sentence a line"
  with storage(path, expected=expected), path.open("rb") as raw:
    file = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
    try:
      for number, line in enumerate(file, 1):
        try:
          yield line.decode()
        except UnicodeDecodeError as error:
          raise InputError(
            f"{path}:{number}", expected="UTF-8", got=str(error)
          ) from error
    except (EOFError, gzip.BadGzipFile) as error:
      raise InputError(path, expected=expected, got=str(error)) from error


class SentenceLoader:
  """`loader[i]` is the batch of step i: in an epoch each sentence stands once."""

  def __init__(
    self, sentences: Sentences, *, batch: int, buckets: int, seed: int
  ):
    lengths_N = sentences.lengths_N
    self.bounds = bucket_bounds(lengths_N, count=buckets, multiple=_MULTIPLE)
    """Labels to which sentences are padded."""
    self._sentences = sentences
    self._stream = TaskStream(
      "sentences",
      samples=lengths_N,
      bounds=self.bounds,
      utterances_per_batch=batch,
      seed=seed,
    )

  @property
  def steps_per_epoch(self) -> int:
    return self._stream.minibatches_per_epoch

  def __getitem__(self, step: int) -> SentenceBatch:
    minibatch = self._stream.minibatch(step)
    labels = self.bounds[minibatch.bucket]
    return self._sentences.batch(minibatch.indices_B, labels=labels)


def evaluation_batches(
  sentences: Sentences, *, batch: int, bounds: Sequence[int]
) -> Iterator[SentenceBatch]:
  """Every sentence once.

  Args:
    bounds: those of training, so that no other program is compiled, and one more
      where a sentence is longer.
  """
  lengths_N = sentences.lengths_N
  longest = int(-(-lengths_N.max() // _MULTIPLE) * _MULTIPLE)
  ends = sorted({*bounds, max(longest, *bounds)})
  for step in evaluation_plan(lengths_N, bounds=ends, batch=batch):
    yield sentences.batch(step.indices_B, labels=ends[step.bucket])
