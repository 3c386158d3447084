"""Chunks of records -> decoded chunks, by processes any of which may die.

Enters: chunks, and the command that starts a worker (what it reads and says is
told in `hra.data.shard_worker`). Leaves: the facts of each chunk when its file is
there. Recordings that crash or hang a decoder are among its problems.

One thread waits for all workers at once, so that an interruption finds it at any
moment; the workers die with it.
"""

import collections
import contextlib
import json
import os
import pathlib
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, NamedTuple

from hra.data.audio import Limits
from hra.data.records import Record
from hra.data.sound_files import printable
from hra.errors import InputError, StorageError

TIMEOUT_SECONDS = 120.0
"""For one recording; an hour of sound takes less."""
_UNEXPLAINED = 8
"""Deaths of workers over one chunk that no recording explains."""
_TAIL = 4000
"""Characters of a failed worker's last words."""

Facts = dict[str, Any]


class Chunk(NamedTuple):
  """Records that become one file."""

  file: pathlib.Path
  records: Sequence[Record]
  known: Facts | None = None
  """Of an earlier time: if what was bad still is, they stand."""


def make(
  chunks: Sequence[Chunk],
  *,
  limits: Limits,
  jobs: int,
  command: Sequence[str],
  progress: Callable[[int], object],
) -> Generator[tuple[Chunk, Facts], None, None]:
  """Decodes chunks and yields what became of each, as they are finished.

  Args:
    chunks: in the order in which they are begun.
    limits: of a usable recording.
    jobs: processes at the same time.
    command: starts a worker.
    progress: is told how many more recordings are done with.

  Raises:
    StorageError: the disk refuses.
    InputError: workers are killed again and again.
    RuntimeError: a worker fails as none should.
  """
  waiting = collections.deque(chunks)
  with contextlib.ExitStack() as stack:
    selector = stack.enter_context(selectors.DefaultSelector())

    def start(making: _Making) -> None:
      worker = stack.enter_context(_Worker(command))
      selector.register(worker, selectors.EVENT_READ, (worker, making))
      worker.send(making.job())

    for _ in range(min(jobs, len(chunks))):
      start(_Making(waiting.popleft(), limits=limits, progress=progress))
    while selector.get_map():
      for key, _ in selector.select():
        worker, making = key.data
        messages = worker.receive()
        if messages is None:
          selector.unregister(worker)
          making.outlive(worker.last_words())
          start(making)
          continue
        if not making.hear(messages):
          continue
        if making.facts is not None:
          yield making.chunk, making.facts
          if not waiting:
            selector.unregister(worker)
            continue
          making = _Making(waiting.popleft(), limits=limits, progress=progress)
          selector.modify(worker, selectors.EVENT_READ, (worker, making))
        worker.send(making.job())


class _Making:
  """A chunk on its way: what its workers said, and which recordings to avoid.

  A worker writes the whole chunk. If it dies, others only decode, from the
  recording of the death on, until all are known that kill a worker twice; then
  one writes the rest. So however many crash, no recording is decoded more than
  three times but those.

  Of a chunk that is known from an earlier time, only what was bad is decoded: a
  file may be readable now, and a machine may have more memory.
  """

  def __init__(
    self,
    chunk: Chunk,
    *,
    limits: Limits,
    progress: Callable[[int], object],
  ):
    self.chunk = chunk
    self.facts: Facts | None = None
    """What the chunk came to, at the end."""
    self._limits = limits
    self._progress = progress
    self._known = chunk.known
    self._done = len(chunk.records) if chunk.known else 0
    self._at: int | None = None
    self._checked_from: int | None = None
    self._suspects: set[int] = set()
    self._problems: dict[int, list[Any]] = {}
    self._idle_deaths = 0

  def job(self) -> dict[str, Any]:
    """What a worker has to do next."""
    self._at = None
    places: Iterable[int] = range(len(self.chunk.records))
    if self._known is not None:
      places = [place for place, *_ in self._known["problems"]]
    first = self._checked_from or 0
    return {
      "file": None if self._checking() else os.fspath(self.chunk.file),
      "records": [
        [place, vars(self.chunk.records[place])]
        for place in places
        if place >= first and place not in self._problems
      ],
      "limits": self._limits,
      "timeout": TIMEOUT_SECONDS,
    }

  def hear(self, messages: Sequence[dict[str, Any]]) -> bool:
    """Whether the worker is done, with the chunk if there are `facts`."""
    for message in messages:
      match message:
        case {"at": place}:
          self._at = place
          self._count(place or 0)
        case {"refused": [where, expected, got, fix]}:
          raise StorageError(where, expected=expected, got=got, fix=fix)
        case {"made": facts}:
          self._settle(facts)
          return True
    return False

  def outlive(self, cause: signal.Signals) -> None:
    """Takes note of a worker's death.

    Raises:
      InputError: there were too many, and no recording is to blame.
    """
    place = self._at
    self._known = None
    if place is None:
      self._idle_deaths += 1
    else:
      self._checked_from = place
      if cause == signal.SIGALRM or place in self._suspects:
        self._suspects.discard(place)
        self._problems[place] = self._blame(place, cause)
      else:
        self._suspects.add(place)
    unexplained = self._idle_deaths + len(self._suspects)
    if unexplained > _UNEXPLAINED:
      raise InputError(
        self.chunk.records[place or 0].where or self.chunk.file,
        expected="processes that are left alone while they decode",
        got=f"{unexplained} of them killed, the last by {cause.name}",
        fix="give the same command again, with fewer jobs if memory is short",
      )

  def _checking(self) -> bool:
    return self._known is not None or self._checked_from is not None

  def _settle(self, facts: Facts) -> None:
    known, checking = self._known, self._checking()
    self._known = self._checked_from = None
    if known is not None and not facts["places"]:
      facts = known | {"problems": facts["problems"]}
    elif checking:
      return  # What is well has to be written now.
    problems = [*facts["problems"], *self._problems.values()]
    self.facts = facts | {"problems": sorted(problems)}
    self._count(len(self.chunk.records))

  def _count(self, done: int) -> None:
    if done > self._done:
      self._progress(done - self._done)
      self._done = done

  def _blame(self, place: int, cause: signal.Signals) -> list[Any]:
    path = printable(self.chunk.records[place].path)
    fix = ""
    match cause:
      case signal.SIGALRM:
        got = f"it took over {TIMEOUT_SECONDS:g} s"
      case signal.SIGKILL:
        got = "the decoder was killed, twice (SIGKILL)"
        fix = "memory may be short: cut the recording, or take fewer jobs"
      case _:
        got = f"the decoder crashed ({cause.name})"
    return [place, "a readable recording", f"{path}: {got}", fix]


class _Worker:
  """A process that is told jobs, one at a time, and says how it gets on."""

  def __init__(self, command: Sequence[str]):
    self._errors = tempfile.TemporaryFile()  # noqa: SIM115
    self._process = subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._errors,
      env={
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OPENBLAS_NUM_THREADS": "1",
      },
    )
    assert self._process.stdin is not None
    assert self._process.stdout is not None
    self._input = self._process.stdin
    self._output = self._process.stdout
    self._rest = b""

  def __enter__(self) -> "_Worker":
    return self

  def __exit__(self, *_: object) -> None:
    self._process.kill()
    self._process.wait()
    with contextlib.suppress(BrokenPipeError):
      self._input.close()
    self._output.close()
    self._errors.close()

  def fileno(self) -> int:
    return self._output.fileno()

  def send(self, job: dict[str, Any]) -> None:
    # If the pipe is broken it has died, and its output says so by ending.
    with contextlib.suppress(BrokenPipeError):
      self._input.write(json.dumps(job).encode() + b"\n")
      self._input.flush()

  def receive(self) -> list[dict[str, Any]] | None:
    """The messages that are there; None: no more will come."""
    data = os.read(self.fileno(), 1 << 16)
    if not data:
      return None
    *lines, self._rest = (self._rest + data).split(b"\n")
    return [json.loads(line) for line in lines]

  def last_words(self) -> signal.Signals:
    """The signal that ended the process.

    Raises:
      RuntimeError: it ended by itself, with what it wrote to standard error.
    """
    code = self._process.wait()
    if code < 0:
      return signal.Signals(-code)
    self._errors.seek(0)
    said = self._errors.read().decode(errors="replace")[-_TAIL:].strip()
    raise RuntimeError(f"a decoding process ended with code {code}:\n{said}")
