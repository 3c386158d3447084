"""Samples of one recording as they come in, and where it is quiet.

In: bytes of 16 kHz mono, pcm16 or float32, little-endian, cut anywhere. Out: float32 in
[-1, 1], as a file of the same samples would be read.
"""

import asyncio
from typing import Literal

import numpy as np

from hra.data.audio import decode_int16
from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.serve import interface
from hra.serve.http.held import Held

Encoding = Literal["pcm16", "float32"]

_WHERE = "the recording"
_TYPES: dict[Encoding, np.dtype] = {
  "pcm16": np.dtype("<i2"),
  "float32": np.dtype("<f4"),
}
_SILENT = 0.5 / 2**15
_QUIET = SAMPLE_RATE // 10
"""Samples that are quiet together."""


class Samples:
  """What came so far; of one event loop."""

  def __init__(self, encoding: Encoding, held: Held, *, most: float):
    """Begins a recording.

    Args:
      held: what counts its bytes.
      most: seconds that it may last.
    """
    self._type = _TYPES[encoding]
    self._held = held
    self._most = most
    self._rest = b""
    self._data = bytearray()
    self._more = asyncio.Event()

  def __len__(self) -> int:
    return len(self._data) // 4

  @property
  def seconds(self) -> float:
    return len(self) / SAMPLE_RATE

  def add(self, data: bytes) -> None:
    """Takes what came.

    Raises:
      TooLong: it lasts too long by now.
      InputError: samples that are no numbers.
      Refusal: all clients together sent too much.
    """
    data = self._rest + data
    whole = len(data) - len(data) % self._type.itemsize
    self._rest = data[whole:]
    wave_S = self._floats(np.frombuffer(data[:whole], self._type))
    if len(self) + len(wave_S) > self._most * SAMPLE_RATE:
      raise interface.TooLong(
        _WHERE, expected=f"at most {self._most:g} s", got="more"
      )
    self._held.take(wave_S.nbytes)
    self._data += wave_S.tobytes()
    self._more.set()

  def between(self, start: int, stop: int) -> np.ndarray:
    """A copy of a part."""
    return np.frombuffer(bytes(self._data[4 * start : 4 * stop]), np.float32)

  def whole(self) -> np.ndarray:
    """All of it; nothing can be added any more.

    Raises:
      InputError: there is nothing to be heard in it.
    """
    if self._rest or not self._data:
      got = "half a sample at the end" if self._rest else "none"
      raise InputError(_WHERE, expected="whole samples", got=got)
    wave_S = np.frombuffer(self._data, np.float32)
    if max(float(wave_S.max()), -float(wave_S.min())) <= _SILENT:
      raise InputError(_WHERE, expected="a recording with sound", got="silence")
    return wave_S

  async def more_than(self, count: int) -> None:
    """Waits until so many samples have come."""
    while len(self) < count:
      self._more.clear()
      await self._more.wait()

  def _floats(self, samples_S: np.ndarray) -> np.ndarray:
    if self._type.kind == "i":
      return decode_int16(samples_S)
    if not np.isfinite(samples_S).all():
      raise InputError(
        _WHERE, expected="finite samples", got="NaN or infinite ones"
      )
    return np.clip(samples_S, -1.0, 1.0).astype(np.float32)


def quietest(wave_S: np.ndarray) -> int:
  """The middle of the quietest tenth of a second, the latest of equals."""
  count = len(wave_S) // _QUIET
  parts = wave_S[len(wave_S) - count * _QUIET :].reshape(count, _QUIET)
  energy = np.square(parts, dtype=np.float64).sum(1)
  last = count - 1 - int(np.argmin(energy[::-1]))
  return len(wave_S) - (count - last) * _QUIET + _QUIET // 2
