"""Requests of any size -> few shapes of compiled programs, and what they must be.

In: waveforms and members of a request. Out: batches of as many places as the next
power of two, padded to multiples of half a second.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hra.dims import SAMPLE_RATE
from hra.errors import InputError

_ROUND = SAMPLE_RATE // 2
"""Batches are padded to multiples of half a second: few compiled shapes."""


def places(count: int) -> int:
  """The next power of two: few compiled shapes serve requests of all sizes."""
  return 1 << (count - 1).bit_length() if count else 0


def filled(members: Sequence[Any]) -> list[Any]:
  """As many as there are places; the first fills up."""
  given = list(members)
  return given + given[:1] * (places(len(given)) - len(given))


def check_count(submodels: Sequence[Any], count: int) -> None:
  if len(submodels) != count:
    raise InputError(
      "submodels",
      expected=f"one for each of {count}",
      got=str(len(submodels)),
    )


def check_waves(waves: Sequence[np.ndarray]) -> None:
  for index, wave in enumerate(waves):
    if np.ndim(wave) != 1 or not np.issubdtype(
      np.asarray(wave).dtype, np.floating
    ):
      raise InputError(
        f"waveform {index}",
        expected="one-dimensional float samples in [-1, 1] at 16 kHz",
        got=f"{np.asarray(wave).dtype} of shape {np.shape(wave)}",
        fix="hra.data.audio.decode reads files so",
      )


def stacked(waves: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  lengths_B = np.array([len(wave) for wave in waves], np.int32)
  size = max(-(-int(lengths_B.max(initial=1)) // _ROUND) * _ROUND, _ROUND)
  wave_BS = np.zeros((len(waves), size), np.float32)
  for index, wave in enumerate(waves):
    wave_BS[index, : len(wave)] = wave
  return wave_BS, lengths_B
