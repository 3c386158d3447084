"""A split as labelled examples: what the loader lays into batches.

Enters: a split of prepared data and a tokenizer. Leaves: labels and audio by
index, checked against what was planned, and empty batches to lay them in.
"""

from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from hra.config import DataConfig, OptimizerConfig
from hra.data.batching import Batch
from hra.data.settings import Settings, settings
from hra.data.tokenizer import least_frames
from hra.dims import SAMPLE_RATE
from hra.errors import InputError

_NO_TASK = settings(OptimizerConfig(), steps=1)
"""What empty places carry."""

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

  def encode(self, text: str, /) -> list[int]:
    """Label ids; characters without one are left out."""
    ...

  def unknown(self, text: str, /) -> list[str]:
    """The characters that `encode` leaves out."""
    ...


class Unspelled(NamedTuple):
  """What the tokenizer could not say of the transcripts."""

  characters: tuple[str, ...]
  """Sorted."""
  utterances: int
  """That lost any of them."""


class Examples:
  """Utterances of a split with their labels; audio is read when asked for."""

  def __init__(
    self,
    split: Utterances,
    *,
    tokenizer: Encoder,
    used: np.ndarray,
    config: DataConfig,
    label_multiple: int = LABEL_MULTIPLE,
  ):
    """Encodes the transcripts of the utterances with the indices `used`.

    Args:
      label_multiple: of which the labels' axis is one; a larger one gives data
        sets of unlike transcripts the same shapes, and so the same programs.

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
        got=f"{seconds:.2f} s ({len(longer)} of {len(used)} are longer)",
        fix="cut the recordings or raise data.max_seconds",
      )
    labels, end, lost = array("i"), array("q", [0]), 0
    missing: set[str] = set()
    for index in used.tolist():
      text = split.texts[index]
      labels.extend(tokenizer.encode(text))
      end.append(len(labels))
      unknown = tokenizer.unknown(text)
      missing.update(unknown)
      lost += bool(unknown)
    self.unspelled = Unspelled(tuple(sorted(missing)), lost)
    self._labels = np.asarray(labels, np.int32)
    self._used = used
    self._label_multiple = label_multiple
    # Of each utterance of the split; 0 to 0 where it is not used.
    self._span = np.zeros((len(split), 2), np.int64)
    self._span[used] = np.stack([end[:-1], end[1:]], axis=1)
    self._label_width = self._width()

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
      for index in self._used.tolist()
      if frames(int(self._split.samples[index] / speed))
      < least_frames(self._labels_of(index).tolist())
    )

  def wordier(self, most: int) -> list[int]:
    """Indices of transcripts that have more labels than `most`."""
    labels = np.diff(self._span).ravel()
    return np.flatnonzero(labels > most).tolist()

  def leave_out(self, indices: Sequence[int]) -> None:
    """Makes batches no wider than the labels of all other utterances."""
    self._used = self._used[~np.isin(self._used, indices)]
    self._label_width = self._width()

  def empty_batch(
    self, *, utterances: int, samples: int, ids: np.ndarray
  ) -> Batch:
    """A batch of empty places, with these ids."""
    places = len(ids)
    cells = (places, utterances)
    return Batch(
      wave_KBS=np.zeros((*cells, samples), np.float32),
      lengths_KB=np.zeros(cells, np.int32),
      labels_KBU=np.zeros((*cells, self._label_width), np.int32),
      label_lengths_KB=np.zeros(cells, np.int32),
      augment_KB=np.zeros(cells, bool),
      task_K=ids.astype(np.int32),
      name_hash_K2=np.zeros((places, 2), np.uint32),
      own_step_K=np.zeros(places, np.int32),
      settings_K=Settings(*(np.repeat(each, places) for each in _NO_TASK)),
      shared_weight_K=np.zeros(places, np.float32),
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
    augment: bool = True,
  ) -> None:
    """Writes audio and labels of an utterance to a place (k, b) of a batch.

    Args:
      augment: whether SpecAugment may change it.
    """
    labels_U = self._labels_of(index)
    batch.wave_KBS[place][: len(wave_S)] = wave_S
    batch.lengths_KB[place] = len(wave_S)
    batch.labels_KBU[place][: len(labels_U)] = labels_U
    batch.label_lengths_KB[place] = len(labels_U)
    batch.augment_KB[place] = augment

  def _labels_of(self, index: int) -> np.ndarray:
    start, end = self._span[index]
    return self._labels[start:end]

  def _width(self) -> int:
    multiple = self._label_multiple
    longest = int(np.diff(self._span[self._used]).max(initial=0))
    return max(-(-longest // multiple), 1) * multiple
