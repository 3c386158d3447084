"""One process of `hra.serve.decoding`: open files -> samples.

    python -m hra.serve.decoding_worker '{"max_seconds": ..., ...}'

Enters, on the socket that is its standard input: one byte for each recording, with an
open file. Leaves there: the size of a line of JSON, the line, and float32 samples if
it says how many:

    {"samples": N}
    {"refused": [KIND, expected, got, fix]}   KIND: "input", "long" or "storage"

The system bounds its memory, and ends it where one recording takes too long: nothing
else stops a decoder that is written in C. It writes no core file, which would hold what
people said. It ends when its parent does.
"""

import json
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from hra.data import audio
from hra.errors import InputError, StorageError

HEAD = struct.Struct("<I")
WHERE = "the recording"

Reply = tuple[Mapping[str, Any], np.ndarray | None]


def main() -> None:
  """Works until its parent closes the socket, or has ended."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent decides.
  signal.signal(signal.SIGALRM, signal.SIG_DFL)
  bounds = json.loads(sys.argv[1])
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  if sys.platform != "darwin":  # which knows no such bound
    resource.setrlimit(resource.RLIMIT_AS, (bounds["memory"], bounds["memory"]))
  limits = audio.Limits(max_seconds=bounds["max_seconds"])
  parent = socket.socket(fileno=os.dup(0))
  _silence()
  while True:
    _, descriptors, _, _ = socket.recv_fds(parent, 1, 1)
    if not descriptors:
      return
    signal.setitimer(signal.ITIMER_REAL, bounds["seconds"])
    told, wave_S = _decode(descriptors[0], limits)
    signal.setitimer(signal.ITIMER_REAL, 0)
    os.close(descriptors[0])
    _reply(parent, told, wave_S)


def _decode(descriptor: int, limits: audio.Limits) -> Reply:
  try:
    wave_S = np.ascontiguousarray(
      audio.decode_open(descriptor, WHERE, limits=limits)
    )
  except InputError as error:
    kind = "input"
    if isinstance(error, audio.TooLong):
      kind = "long"
    elif isinstance(error, StorageError):
      kind = "storage"
    return {"refused": [kind, error.expected, error.got, error.fix]}, None
  except MemoryError:
    expected = "one that a decoder's memory holds"
    return {
      "refused": ["input", expected, "one that needs more", "cut it"]
    }, None
  return {"samples": len(wave_S)}, wave_S


def _reply(
  parent: socket.socket, told: Mapping[str, Any], wave_S: np.ndarray | None
) -> None:
  head = json.dumps(told).encode()
  parent.sendall(HEAD.pack(len(head)) + head)
  if wave_S is not None:
    parent.sendall(wave_S.data)


def _silence() -> None:
  """Libraries print what they think of a file; Python's own last words remain."""
  sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
  nowhere = os.open(os.devnull, os.O_RDWR)
  for descriptor in (0, 1, 2):
    os.dup2(nowhere, descriptor)


if __name__ == "__main__":
  main()
