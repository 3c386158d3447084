"""One process that decodes, as the one that started it sees it.

Enters: descriptors of recordings, one at a time. Leaves: samples, or what is wrong.
What it says isn't believed either: it has read what strangers wrote.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hra import dims
from hra.config.serve import LimitsConfig
from hra.errors import InputError, StorageError
from hra.serve import interface
from hra.serve.decoding_worker import HEAD, WHERE

_GRACE = 2.0
"""Seconds that a process may be late, before its parent ends it."""
_START = 60.0
"""Seconds in which a process has started, on a machine that is busy."""
_HEAD = 1 << 16
"""Bytes of a reply's line."""
_TAIL = 2000
"""Characters of a process's last words."""
_ENVIRONMENT = ("LANG", "LD_LIBRARY_PATH", "PATH", "TMPDIR")
"""What a process is told of this one's: nothing that may be a secret."""
_KINDS = {"long": interface.TooLong, "storage": StorageError}


class Died(Exception):
  """A process ended, didn't answer in time, or says what makes no sense."""


class Refused(Exception):
  """A process says what is wrong with a recording, and goes on."""

  def __init__(self, reason: InputError):
    super().__init__(str(reason))
    self.reason = reason


class Process:
  """A process that decodes."""

  def __init__(self, command: Sequence[str], limits: LimitsConfig):
    """Starts it.

    Raises:
      OSError: the system starts no more processes.
    """
    self.late = False
    """Whether it was ended for being late."""
    self._limits = limits
    self._fresh = True
    bounds = {
      "max_seconds": limits.max_seconds,
      "memory": limits.decoder_mib << 20,
      "seconds": limits.decode_seconds,
    }
    with contextlib.ExitStack() as stack:
      self._errors = stack.enter_context(tempfile.TemporaryFile())
      self._socket, theirs = socket.socketpair()
      stack.enter_context(self._socket)
      with theirs:
        self._process = subprocess.Popen(
          [*command, json.dumps(bounds)],
          stdin=theirs.fileno(),
          stdout=self._errors,
          stderr=self._errors,
          env=_environment(),
        )
      self._open = stack.pop_all()

  def decode(self, descriptor: int) -> np.ndarray:
    """The samples of a recording.

    Raises:
      Refused: with what it says.
      Died: it is to be replaced.
    """
    seconds = self._limits.decode_seconds + _GRACE
    deadline = time.monotonic() + seconds + (_START if self._fresh else 0)
    with self._by(deadline):
      socket.send_fds(self._socket, [b"\0"], [descriptor])
    told = self._told(deadline)
    self._fresh = False
    match told:
      case {"refused": [str(kind), str(expected), str(got), str(fix)]}:
        raise Refused(
          _KINDS.get(kind, InputError)(
            WHERE,
            expected=expected,
            got=got,
            fix="cut it" if kind == "long" else fix,
          )
        )
      case {"samples": int(count)} if 0 < count <= self._most():
        wave_S = np.empty(count, np.float32)
        self._fill(wave_S.data.cast("B"), deadline)
        return wave_S
    raise self._ended()

  def kill(self) -> None:
    """Ends it now, from whichever thread."""
    self._process.kill()

  def end(self) -> tuple[int, str]:
    """Ends it if it hasn't; its exit code and last words."""
    with contextlib.suppress(OSError):
      self._socket.shutdown(socket.SHUT_RDWR)
    try:
      code = self._process.wait(timeout=_GRACE)
    except subprocess.TimeoutExpired:
      self._process.kill()
      code = self._process.wait()
    said = ""
    if not self._errors.closed:
      self._errors.seek(0)
      said = self._errors.read().decode(errors="replace")[-_TAIL:].strip()
    self._open.close()
    return code, said

  def _most(self) -> int:
    return int((self._limits.max_seconds + 1) * dims.SAMPLE_RATE)

  def _told(self, deadline: float) -> Any:
    (size,) = HEAD.unpack(self._receive(HEAD.size, deadline))
    if size > _HEAD:
      raise self._ended()
    try:
      return json.loads(bytes(self._receive(size, deadline)))
    except ValueError:
      raise self._ended() from None

  def _ended(self) -> Died:
    """For what can't be believed."""
    self._process.kill()
    return Died()

  def _receive(self, size: int, deadline: float) -> bytearray:
    data = bytearray(size)
    self._fill(memoryview(data), deadline)
    return data

  def _fill(self, view: memoryview, deadline: float) -> None:
    while view:
      with self._by(deadline):
        count = self._socket.recv_into(view)
      if not count:
        raise Died
      view = view[count:]

  @contextlib.contextmanager
  def _by(self, deadline: float) -> Iterator[None]:
    try:
      left = deadline - time.monotonic()
      if left <= 0:
        raise TimeoutError
      self._socket.settimeout(left)
      yield
    except TimeoutError as error:
      self.late = True
      raise self._ended() from error
    except OSError as error:
      raise Died from error


def _environment() -> dict[str, str]:
  told = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
  return told | {
    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    "OPENBLAS_NUM_THREADS": "1",
  }
