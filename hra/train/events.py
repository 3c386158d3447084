"""Scalars -> records of a TensorBoard event file.

The form: TFRecords (length, its masked CRC-32C, data, its masked CRC-32C) of Event
messages; https://www.tensorflow.org/tutorials/load_data/tfrecord. Of a message's
fields few are needed, so that protocol buffers are written here: packages that do it
import PyTorch where that is installed, 1.5 s and more before the first step.
"""

import math
import struct
from collections.abc import Mapping

_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5
"""Wire types of protocol buffers."""


def version(time: float) -> bytes:
  """The record that a file begins with."""
  return _record(_wall(time) + _bytes(3, b"brain.Event:2"))


def start(time: float, *, step: int) -> bytes:
  """A session's start, which hides what earlier files hold from `step` on."""
  return _record(_wall(time) + _number(2, step) + _bytes(7, _number(1, 1)))


def scalars(time: float, values: Mapping[str, float], *, step: int) -> bytes:
  """Scalars of a step, by name."""
  summary = b"".join(
    _bytes(1, _bytes(1, name.encode()) + _float(2, value))
    for name, value in values.items()
  )
  return _record(_wall(time) + _number(2, step) + _bytes(5, summary))


def _record(event: bytes) -> bytes:
  length = struct.pack("<Q", len(event))
  return length + _checksum(length) + event + _checksum(event)


def _checksum(data: bytes) -> bytes:
  """The masked CRC-32C (Castagnoli)."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
  crc ^= 0xFFFFFFFF
  masked = ((crc >> 15) | (crc << 17)) + 0xA282EAD8
  return struct.pack("<I", masked & 0xFFFFFFFF)


def _crc_of(byte: int) -> int:
  for _ in range(8):
    byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
  return byte


_TABLE = tuple(map(_crc_of, range(256)))


def _wall(time: float) -> bytes:
  return _tag(1, _DOUBLE) + struct.pack("<d", time)


def _float(field: int, value: float) -> bytes:
  try:
    packed = struct.pack("<f", value)
  except OverflowError:  # beyond float32
    packed = struct.pack("<f", math.copysign(math.inf, value))
  return _tag(field, _FLOAT) + packed


def _number(field: int, value: int) -> bytes:
  return _tag(field, _VARINT) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
  return _tag(field, _BYTES) + _varint(len(value)) + value


def _tag(field: int, wire: int) -> bytes:
  return _varint(field << 3 | wire)


def _varint(value: int) -> bytes:
  """Seven bits a byte, the lowest first."""
  found = bytearray()
  while value > 0x7F:
    found.append(value & 0x7F | 0x80)
    value >>= 7
  found.append(value)
  return bytes(found)
