"""Processes of one job on this machine: started together, ended together, started again.

Enters: their command lines. Leaves: the exit code that the job ends with.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, NamedTuple

from hra.errors import InputError
from launch.job import BAD_INPUT, INTERRUPTED

_POLL_SECONDS = 0.05
_KILL_SECONDS = 5.0
"""Between a SIGTERM to who was left behind, and SIGKILL."""


class Command(NamedTuple):
  """A process to start."""

  words: tuple[str, ...]
  variables: Mapping[str, str]
  """Set beside those that this process has."""
  folder: str = ""
  """Where it runs, if not here."""


class Ended(NamedTuple):
  """How all processes of one start ended."""

  code: int
  """In one number; that of a signal is negative."""
  asked: bool
  """Whether somebody had asked for it: SIGTERM, Ctrl-C, a closed terminal."""


def keep_running(
  run: Callable[[], Ended], *, retries: int, pause: float
) -> int:
  """Runs a job until it ends well, is interrupted or has died too often.

  Args:
    run: starts all its processes, and waits for them.
    pause: seconds before the first new start; doubled each time.

  Returns:
    The exit code to end with.
  """
  for attempt in range(retries + 1):
    code, asked = run()
    if asked or code in (0, BAD_INPUT, INTERRUPTED):
      break
    if attempt < retries:
      wait = pause * 2**attempt
      print(
        f"the job died ({_describe(code)}); start {attempt + 2} of "
        f"{retries + 1} in {wait:g} s",
        file=sys.stderr,
        flush=True,
      )
      if asked_for := _pause(wait):
        return 128 + asked_for[0]
  return code if code >= 0 else 128 - code


def _pause(seconds: float) -> list[int]:
  """Waits; signals that came meanwhile end it."""
  asked: list[int] = []
  until = time.monotonic() + seconds
  with _signals(asked.append):
    while not asked and time.monotonic() < until:
      time.sleep(_POLL_SECONDS)
  return asked


def together(
  commands: Sequence[Command],
  *,
  grace: float,
  stop: Callable[[int], None] | None = None,
  read: Callable[[str], None] | None = None,
) -> Ended:
  """Runs processes that need each other, and waits for all.

  When one has failed, the others have `grace` seconds to end: they may be saving.

  Args:
    stop: what a signal to end does in place of being handed on.
    read: is told each line that they print.

  Raises:
    InputError: there is no such program.
  """
  many = len(commands) > 1 or read is not None
  started: list[subprocess.Popen[str]] = []
  readers: list[threading.Thread] = []
  asked: list[int] = []
  waiting: list[int] = []

  def hand_on() -> None:
    while waiting:
      number = waiting.pop()
      if stop is not None:
        stop(number)
      else:
        for process in started:
          process.send_signal(number)

  def act(number: int) -> None:
    asked.append(number)
    waiting.append(number)
    if len(started) == len(commands):
      hand_on()

  with _signals(act):
    for index, command in enumerate(commands):
      process = _start(command, piped=many)
      started.append(process)
      if process.stdout is not None:
        prefix = f"{index}: " if len(commands) > 1 else ""
        readers.append(_pass_on(process.stdout, prefix, read))
    hand_on()
    codes = _wait(started, grace)
  for reader in readers:
    reader.join()
  return Ended(outcome(codes), bool(asked))


def outcome(codes: Sequence[int]) -> int:
  """What processes that need each other ended with, in one number.

  Bad input explains all else; then a death does, also of one that was killed by a
  signal, which subprocess gives as a negative number.
  """
  if BAD_INPUT in codes:
    return BAD_INPUT
  died = [code for code in codes if code not in (0, INTERRUPTED)]
  return died[0] if died else max(codes)


def _start(command: Command, *, piped: bool) -> subprocess.Popen[str]:
  try:
    # A group of its own: Ctrl-C reaches the job once, from here.
    return subprocess.Popen(
      command.words,
      env={**os.environ, **command.variables},
      cwd=command.folder or None,
      start_new_session=True,
      stdout=subprocess.PIPE if piped else None,
      stderr=subprocess.STDOUT if piped else None,
      text=piped,
      errors="replace" if piped else None,
    )
  except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
    raise InputError(
      error.filename or command.words[0],
      expected="what the job can be started with",
      got=error.strerror or "none",
    ) from error


def _wait(started: Sequence[subprocess.Popen[str]], grace: float) -> list[int]:
  """Each one's exit code; kills who stays after another failed, and those last."""
  deadline = None
  codes: dict[int, int] = {}
  while True:
    for process in started:
      code = process.poll()
      if code is not None:
        codes.setdefault(process.pid, code)
    if len(codes) == len(started):
      return list(codes.values())
    if deadline is None and any(codes.values()):
      deadline = time.monotonic() + grace
    if deadline is not None and time.monotonic() > deadline:
      left = [each for each in started if each.poll() is None]
      for process in left:
        process.terminate()
      _kill_after(left, _KILL_SECONDS)
      return list(codes.values())
    time.sleep(_POLL_SECONDS)


def _kill_after(left: Sequence[subprocess.Popen[str]], seconds: float) -> None:
  deadline = time.monotonic() + seconds
  for process in left:
    try:
      process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()


def _pass_on(
  stream: IO[str], prefix: str, read: Callable[[str], None] | None
) -> threading.Thread:
  """Prints the lines of one process, and says whose they are."""

  def copy() -> None:
    for line in stream:
      _show(f"{prefix}{line}")
      if read is not None:
        read(line)

  thread = threading.Thread(target=copy, daemon=True)
  thread.start()
  return thread


def _show(text: str) -> None:
  """Prints; where nobody reads any more the job goes on unseen."""
  try:
    print(text, end="", flush=True)
  except UnicodeError:
    pass
  except BrokenPipeError:
    # What the buffer holds would fail again as the launcher ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  except OSError:
    pass


@contextmanager
def _signals(act: Callable[[int], None]) -> Iterator[None]:
  """Of a terminal that closes, processes are told by SIGTERM."""
  watched = [signal.SIGTERM, signal.SIGINT]
  if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
    watched.append(signal.SIGHUP)

  def handle(number: int, _: object) -> None:
    act(signal.SIGTERM if number == signal.SIGHUP else number)

  before = {number: signal.signal(number, handle) for number in watched}
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _describe(code: int) -> str:
  return f"exit code {code}" if code > 0 else signal.Signals(-code).name
