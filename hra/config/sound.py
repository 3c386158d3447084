"""How utterances are made to sound otherwise on the host: a part of `hra.config`."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

WALL = 0.5
"""Metres that talkers and microphones keep from every wall."""


def most_distant(size: Sequence[float]) -> float:
  """Metres between talker and microphone at most: half the diagonal of what a room
  has between its walls' margins, so that places for both are found soon."""
  return math.hypot(*(edge - 2 * WALL for edge in size)) / 2


@dataclasses.dataclass
class RoomsConfig:
  """Simulated rooms (`hra.data.rooms`): boxes with a talker and a microphone each.

  They are made once and kept in $HRA_CACHE.
  """

  count: int = 100
  """Rooms; more keep the first ones as they are."""
  size_low: tuple[float, ...] = (3.0, 3.0, 2.5)
  """Length, width and height in metres, each uniform."""
  size_high: tuple[float, ...] = (10.0, 8.0, 4.0)
  rt60_low: float = 0.2
  """Seconds in which sound falls by 60 dB (by Sabine's formula), uniform. The time
  to simulate a room grows with the third power."""
  rt60_high: float = 0.6
  distance_low: float = 0.5
  """Metres between talker and microphone, uniform; `most_distant` at most."""
  distance_high: float = 3.0
  seed: int = 0
  """Of the rooms. Not `config.seed`, so that the runs of a sweep share them."""


@dataclasses.dataclass
class MultistyleConfig:
  """Multistyle training (MTR): noise and rooms (`hra.data.perturb`).

  Without `noise` and `reverb` there is none.
  """

  part: float = 0.2
  """Part of the utterances that is noise-perturbed: with noise, in a room, or both;
  0.2 mixes them 8:2 with the raw ones."""
  mix: Literal["instead", "both"] = "instead"
  """`instead`: an utterance is either noise-perturbed or given to SpecAugment, as
  all others are (arXiv 1912.05533). `both`: SpecAugment comes on top, which that
  paper found to hurt. Speed counts as neither."""
  parts: str = ""
  """A JSON file {task: part} for tasks, as domains are, whose part is another; also
  of the tasks in a pool."""
  noise: Literal["none", "coloured", "files", "either"] = "none"
  """`coloured`: Gaussian, from white to brown; `files`: stretches of recordings;
  `either`: each noise is one or the other, as likely."""
  noise_files: str = ""
  """Recordings of noise, in a folder or a manifest of {"audio_filepath": ...} and,
  for a segment, offset and duration. All are as likely; short ones repeat."""
  noises: int = 1
  """Of an utterance, at the same time: ~ U{1..noises}, each as loud."""
  snr: Literal["uniform", "gaussian"] = "uniform"
  """How decibels of speech above all noise are distributed between `snr_low` and
  `snr_high`; `gaussian` is cut off there."""
  snr_low: float = 10.0
  snr_high: float = 30.0
  snr_mean: float = 20.0
  """(gaussian)"""
  snr_deviation: float = 5.0
  """(gaussian), before it is cut off."""
  reverb: Literal["none", "rooms", "files"] = "none"
  """`rooms`: simulated ones; `files`: measured impulse responses."""
  reverb_probability: float = 1.0
  """Part of the noise-perturbed utterances that is in a room."""
  responses: str = ""
  """Impulse responses of one channel each, in a folder or a manifest like that of
  noise. All are as likely."""
  rooms: RoomsConfig = dataclasses.field(default_factory=RoomsConfig)

  @property
  def active(self) -> bool:
    """Whether any utterance can be noise-perturbed."""
    return self.noise != "none" or self.reverb != "none"
