"""One process of `hra.data.shards`: recordings -> an array_record file.

Enters: jobs, a line of JSON each on the standard input. Leaves: the file of each
job, and lines of JSON on the standard output:

    {"at": PLACE}      before each recording, so that it is known at which one the
                       process died; null when only the file has to be closed
    {"made": {...}}    the job is done: places, samples and rates of what is in the
                       file, its size, and the problems of what isn't
    {"refused": [...]} the disk refuses: where, expected, got, fix

A command line of its own rather than `multiprocessing`: a spawned child would
import the parent's main module (and JAX with it), a forked one is unsafe once
JAX has threads. It starts in 0.2 s, for it imports neither JAX nor TFDS.
"""

import contextlib
import errno
import json
import os
import pathlib
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from array_record.python import array_record_module

from hra.data import audio
from hra.data.records import Record
from hra.errors import InputError, StorageError
from hra.files import storage

_OPTIONS = "group_size:1"
"""Each record can be read by itself: what TFDS writes, too."""
_BYTES = 2
"""The wire type of what has a length, in protocol buffers."""

Say = Callable[[Mapping[str, Any]], None]


def main() -> None:
  """Works until the standard input ends, which it does when the parent dies."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent decides.
  signal.signal(signal.SIGALRM, signal.SIG_DFL)
  say = _speaker()
  jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
  threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
  while True:
    job = json.loads(jobs.get())
    try:
      say({"made": make(job, say=say)})
    except StorageError as error:
      say({"refused": [error.where, error.expected, error.got, error.fix]})


def make(job: Mapping[str, Any], *, say: Say) -> dict[str, Any]:
  """Decodes records, one at a time, and writes those that can be used.

  Args:
    job: `records`, pairs of a place and the fields of a `Record`; `file`, the
      local path to write, or null only to see which can be decoded; `limits` of
      `audio.Limits`; `timeout`, the most seconds for one of them.
    say: is told the place of each recording before it is decoded.

  Returns:
    `places`, `samples` and source `rates` of the recordings in the file; its
    `size` in bytes, null where there is none; `problems`, each a place and what
    an `InputError` says.

  Raises:
    StorageError: the file can't be written, or a recording not be reached.
  """
  made: dict[str, Any] = {
    name: [] for name in ("places", "samples", "rates", "problems")
  }
  limits = audio.Limits(*job["limits"])
  with _writer(job["file"]) as write:
    for place, fields in job["records"]:
      say({"at": place})
      record = Record(**fields)
      read = _read(record, limits=limits, timeout=job["timeout"])
      if isinstance(read, InputError):
        problem = [place, read.expected, read.got, read.fix]
        made["problems"].append(problem)
        continue
      wave_S, rate = read
      write(serialize(record, audio.encode_int16(wave_S).tobytes()))
      made["places"].append(place)
      made["samples"].append(len(wave_S))
      made["rates"].append(rate)
    say({"at": None})
  written = job["file"] is not None and made["places"]
  made["size"] = os.path.getsize(job["file"]) if written else None
  return made


def serialize(record: Record, samples: bytes) -> bytes:
  """A `tf.train.Example` of byte strings, in protocol buffers' wire format.

  By hand because a map's order is otherwise up to the library, and the bytes
  here depend on the record alone; nor is TFDS imported, which takes 0.4 s.
  https://protobuf.dev/programming-guides/encoding
  """
  features = {
    "id": record.id.encode(),
    "samples": samples,
    "task": record.task.encode(),
    "text": record.text.encode(),
  }
  entries = [
    _field(1, _field(1, name.encode()), _field(2, _field(1, _field(1, value))))
    for name, value in features.items()
  ]
  return _field(1, *entries)


def _field(number: int, *parts: bytes) -> bytes:
  length = sum(map(len, parts))
  header = bytearray([number << 3 | _BYTES])
  while length > 127:
    header.append(length & 127 | 128)
    length >>= 7
  header.append(length)
  return b"".join((header, *parts))


def _read(
  record: Record, *, limits: audio.Limits, timeout: float
) -> audio.Recording | InputError:
  """The recording, or what is wrong with it.

  The system ends this process if it takes too long: nothing else stops a decoder
  that is written in C.
  """
  signal.setitimer(signal.ITIMER_REAL, timeout)
  try:
    return audio.read_record(record, limits=limits)
  except StorageError:
    raise
  except InputError as error:
    return error
  except MemoryError:
    return InputError(
      record.where,
      expected="a recording that the memory can hold",
      got=record.path,
    )
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def _writer(path: str | None) -> Iterator[Callable[[bytes], None]]:
  """Gives a function that appends to a file, which appears when it is whole."""
  if path is None:
    yield lambda example: None
    return
  final = pathlib.Path(path)
  aside = final.with_name(f".{final.name}.{os.getpid()}")
  written = 0
  try:
    with _disk(final):
      writer = array_record_module.ArrayRecordWriter(os.fspath(aside), _OPTIONS)

    def write(example: bytes) -> None:
      nonlocal written
      with _disk(final):
        writer.write(example)
      written += 1

    yield write
    with _disk(final):
      writer.close()
      # Of what stood here before; it must not speak of this one.
      final.with_suffix(".json").unlink(missing_ok=True)
      if written:
        aside.replace(final)
      else:
        final.unlink(missing_ok=True)
  finally:
    with contextlib.suppress(OSError):
      aside.unlink(missing_ok=True)


@contextlib.contextmanager
def _disk(path: pathlib.Path) -> Iterator[None]:
  """`storage`, also of the system's errors in array_record's RuntimeErrors."""
  with storage(path, expected="a file that can be written"):
    try:
      yield
    except RuntimeError as error:
      for code in errno.errorcode:
        if os.strerror(code) in str(error):
          raise OSError(code, os.strerror(code)) from error
      raise


def _speaker() -> Say:
  """Says lines on the standard output, where nobody else can from now on."""
  out = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # Libraries that print must not break the protocol.

  def say(message: Mapping[str, Any]) -> None:
    print(json.dumps(message), file=out, flush=True)

  return say


def _listen(jobs: "queue.SimpleQueue[str]") -> None:
  for line in sys.stdin:
    jobs.put(line)
  # Not `sys.exit`: the main thread may be deep in a decoder.
  os._exit(0)


if __name__ == "__main__":
  main()
