"""A recording's bytes -> samples, by processes that strangers' bytes may end.

Enters: what a client sent, or a path. Leaves: `wave_S`, float32, mono, at
`dims.SAMPLE_RATE`, as `hra.data.audio` reads it; or one error. libsndfile is C, and
whatever a recording does to it (a crash, a hang, a great hunger for memory) costs that
recording alone: its process (`hra.serve.decoding_worker`) is replaced by another.

Nothing here waits on the event loop: a thread waits for each process.
"""

import asyncio
import concurrent.futures
import contextlib
import os
import queue
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np

from hra.config.serve import LimitsConfig
from hra.data import sound_files
from hra.errors import InputError
from hra.files import storage
from hra.serve import interface
from hra.serve.decoding_process import Died, Process, Refused
from hra.serve.decoding_worker import WHERE

WORKER = (sys.executable, "-m", "hra.serve.decoding_worker")
"""The command of a process that decodes."""

Recording = bytes | str | os.PathLike[str]


class TookTooLong(InputError):
  """A recording's decoding was given up."""


class Decoders:
  """Processes that decode, each one recording at a time."""

  def __init__(self, limits: LimitsConfig, *, worker: Sequence[str] = WORKER):
    """Starts them; each is ready within a second or so.

    Args:
      limits: how many, and what a recording may be and cost.
      worker: the command of a process.

    Raises:
      OSError: the system starts no more processes.
    """
    self._limits = limits
    self._command = worker
    self._lock = threading.Lock()
    self._closed = False
    self._waiting = 0
    self._slots = asyncio.Semaphore(limits.decoders)
    self._started: set[Process] = set()
    self._idle: queue.SimpleQueue[Process | None] = queue.SimpleQueue()
    for _ in range(limits.decoders):
      self._idle.put(self._start())
    self._threads = concurrent.futures.ThreadPoolExecutor(
      limits.decoders, thread_name_prefix="decoding"
    )

  async def decode(self, recording: Recording) -> np.ndarray:
    """A recording's samples. Of a caller who is cancelled, what waits isn't begun.

    Raises:
      TooLong: it is longer than a recording may be.
      TookTooLong: it is given up.
      Overloaded: too many wait already, or the system has no room.
      Closed: the decoders are, too.
      InputError: it can't be read, or decoded.
    """
    if self._closed:
      raise _closed()
    most = self._limits.decoder_queue
    if self._slots.locked() and self._waiting >= most:
      raise _overloaded(f"at most {most} that wait to be decoded", "one more")
    # What waited in the executor would keep its bytes when its caller is gone.
    self._waiting += 1
    try:
      await self._slots.acquire()
    finally:
      self._waiting -= 1
    if self._closed:
      self._slots.release()
      raise _closed()
    decoding = asyncio.get_running_loop().run_in_executor(
      self._threads, self._decode, recording
    )
    decoding.add_done_callback(self._leave)
    return await asyncio.shield(decoding)

  def _leave(self, decoding: "asyncio.Future[np.ndarray]") -> None:
    """Frees the slot of a thread, whose caller may be gone."""
    self._slots.release()
    if not decoding.cancelled():
      decoding.exception()  # has been looked at

  async def close(self) -> None:
    """Ends all processes; what is being decoded fails with `Closed`."""
    with self._lock:
      self._closed = True
      for process in self._started:
        process.kill()
    self._threads.shutdown(wait=False, cancel_futures=True)
    await asyncio.to_thread(self._threads.shutdown)
    for process in self._started:
      process.end()
    self._started.clear()

  def _decode(self, recording: Recording) -> np.ndarray:
    with _opened(recording) as descriptor:
      process = self._idle.get() or self._restart()
      whole = False
      try:
        wave_S = process.decode(descriptor)
        whole = True
        return wave_S
      except Refused as refused:
        whole = True
        raise refused.reason from None
      except Died:
        raise self._cause(process) from None
      finally:
        self._idle.put(process if whole else self._replace(process))

  def _cause(self, process: Process) -> InputError:
    """What a process died of.

    Raises:
      RuntimeError: it ended by itself, as none should.
    """
    if self._closed:
      return _closed()
    code, said = process.end()
    if process.late or code == -signal.SIGALRM:
      return TookTooLong(
        WHERE,
        expected=f"one that decodes in {self._limits.decode_seconds:g} s",
        got="one that takes longer",
        fix="cut it, or convert it to WAV or FLAC",
      )
    if code < 0:
      return InputError(
        WHERE,
        expected="one that can be decoded",
        got=f"one that ends the decoder ({signal.Signals(-code).name})",
        fix="convert it to WAV or FLAC",
      )
    raise RuntimeError(f"a decoding process ended with code {code}:\n{said}")

  def _replace(self, process: Process) -> Process | None:
    process.end()
    with self._lock:
      self._started.discard(process)
    try:
      return self._start()
    except (OSError, interface.Closed):
      return None  # Whoever needs it next tries again.

  def _restart(self) -> Process:
    try:
      return self._start()
    except OSError as error:
      self._idle.put(None)
      got = error.strerror or str(error)
      raise _overloaded("a process that decodes it", got) from error

  def _start(self) -> Process:
    with self._lock:
      if self._closed:
        raise _closed()
      process = Process(self._command, self._limits)
      self._started.add(process)
      return process


@contextlib.contextmanager
def _opened(recording: Recording) -> Iterator[int]:
  """A descriptor of it: in memory where the system can, so that no disk holds what
  people said."""
  if not isinstance(recording, bytes):
    with sound_files.opened(recording) as source:
      yield source.descriptor
    return
  with contextlib.ExitStack() as stack:
    try:
      with storage(WHERE, expected="room for it"):
        file = stack.enter_context(_nameless())
        file.write(recording)
        file.flush()
    except InputError as error:
      raise _overloaded(error.expected, error.got) from error
    yield file.fileno()


def _nameless() -> IO[bytes]:
  if hasattr(os, "memfd_create"):
    return os.fdopen(os.memfd_create("recording"), "w+b")
  return tempfile.TemporaryFile()


def _overloaded(expected: str, got: str) -> interface.Overloaded:
  return interface.Overloaded(
    WHERE, expected=expected, got=got, fix="try again later"
  )


def _closed() -> interface.Closed:
  return interface.Closed(
    "the server", expected="one that runs", got="one that was shut down"
  )
