"""A split as labelled examples: what the loader lays into batches.

Enters: a split of prepared data and a tokenizer. Leaves: labels and audio by
index, checked against what was planned, and empty batches to lay them in.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from hra.config import DataConfig
from hra.data.batching import Batch
from hra.dims import SAMPLE_RATE
from hra.errors import InputError

LABEL_MULTIPLE = 8
"""The label axis is rounded up: splits of like texts compile to one shape."""


class Utterances(Protocol):
  """A split: what `hra.data.dataset.Split` offers."""

  @property
  def ids(self) -> Sequence[str]: ...

  @property
  def tasks(self) -> Sequence[str]: ...

  @property
  def texts(self) -> Sequence[str]: ...

  @property
  def samples(self) -> np.ndarray: ...

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Any:
    """A record with `wave_S`, float32."""


class Encoder(Protocol):
  """A tokenizer."""

  def encode(self, text: str, /) -> list[int]: ...


class Examples:
  """Utterances of a split with their labels; audio is read when asked for."""

  def __init__(
    self,
    split: Utterances,
    *,
    tokenizer: Encoder,
    used: np.ndarray,
    config: DataConfig,
  ):
    """Encodes the transcripts of the utterances with the indices `used`.

    Raises:
      InputError: a recording is longer than `config.max_seconds`.
    """
    self._split = split
    longer = used[split.samples[used] > config.max_seconds * SAMPLE_RATE]
    if len(longer):
      first = int(longer[0])
      seconds = split.samples[first] / SAMPLE_RATE
      raise InputError(
        f"utterance {split.ids[first]!r}",
        expected=f"at most data.max_seconds = {config.max_seconds:g} s",
        got=f"{seconds:.1f} s ({len(longer)} of {len(used)} are longer)",
        fix="cut the recordings or raise data.max_seconds",
      )
    self._labels = {
      index: np.asarray(tokenizer.encode(split.texts[index]), np.int32)
      for index in used.tolist()
    }
    longest = max(map(len, self._labels.values()), default=0)
    self._label_width = max(-(-longest // LABEL_MULTIPLE), 1) * LABEL_MULTIPLE

  def unalignable(
    self, frames: Callable[[int], int], *, speed: float
  ) -> list[int]:
    """Indices of transcripts that CTC can't align to their audio.

    CTC needs a frame per label and one, for a blank, between equal neighbours.

    Args:
      frames: samples -> output frames of the model.
      speed: the highest speed at which the audio may be played.
    """
    return sorted(
      index
      for index, labels_U in self._labels.items()
      if frames(int(self._split.samples[index] / speed))
      < len(labels_U) + np.sum(labels_U[1:] == labels_U[:-1])
    )

  def empty_batch(
    self, *, places: int, utterances: int, samples: int, first_id: int
  ) -> Batch:
    """A batch of empty places, with the ids first_id, first_id + 1, ..."""
    cells = (places, utterances)
    return Batch(
      wave_KBS=np.zeros((*cells, samples), np.float32),
      lengths_KB=np.zeros(cells, np.int32),
      labels_KBU=np.zeros((*cells, self._label_width), np.int32),
      label_lengths_KB=np.zeros(cells, np.int32),
      task_K=np.arange(first_id, first_id + places, dtype=np.int32),
      name_hash_K2=np.zeros((places, 2), np.uint32),
      own_step_K=np.zeros(places, np.int32),
    )

  def read(self, index: int) -> np.ndarray:
    """The audio of an utterance.

    Raises:
      InputError: it isn't as long as the split's table of lengths says.
    """
    wave_S = self._split[index].wave_S
    if len(wave_S) != self._split.samples[index]:
      raise InputError(
        f"utterance {self._split.ids[index]!r}",
        expected=f"{self._split.samples[index]} samples",
        got=str(len(wave_S)),
        fix="prepare the data again",
      )
    return wave_S

  def lay(
    self,
    batch: Batch,
    *,
    place: tuple[int, int],
    index: int,
    wave_S: np.ndarray,
  ) -> None:
    """Writes audio and labels of an utterance to a place (k, b) of a batch."""
    labels_U = self._labels[index]
    batch.wave_KBS[place][: len(wave_S)] = wave_S
    batch.lengths_KB[place] = len(wave_S)
    batch.labels_KBU[place][: len(labels_U)] = labels_U
    batch.label_lengths_KB[place] = len(labels_U)
