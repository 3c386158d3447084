"""Steps that are asked for -> a profile of them, in WORKDIR/profile.

Asked for by a range of steps, or by SIGUSR1: the next ones. A process writes a folder
of its own, which xprof and TensorBoard read, with a `perfetto_trace.json.gz` for
ui.perfetto.dev. Where nothing is asked for, a step costs two comparisons more. What
can't be captured or written is a line on stderr: no profile ends a training.
"""

import contextlib
import pathlib
import re
import signal
import sys
import tempfile
import threading
from types import FrameType
from typing import Any, Self

import jax
from etils import epath
from jax._src import profiler as jax_profiler

from hra.errors import InputError
from hra.files import is_remote, storage

NAME = "profile"

_RANGE = re.compile(r"(\d+):(\d+)")


def read_range(text: str) -> range | None:
  """FROM:TO -> the steps [FROM, TO); None for an empty text.

  Raises:
    InputError: it is no such range.
  """
  if not text:
    return None
  match = _RANGE.fullmatch(text)
  steps = range(*map(int, match.groups())) if match else range(0)
  if not steps:
    raise InputError(
      "--profile",
      expected="FROM:TO, two steps of which the first is lower",
      got=repr(text),
      fix="such as --profile=100:105",
    )
  return steps


class Profiler:
  """Captures steps; as a context, it listens for SIGUSR1."""

  def __init__(
    self,
    workdir: epath.Path,
    *,
    steps: range | None = None,
    next_steps: int,
  ):
    """Waits for the first of `steps`.

    Args:
      next_steps: how many a signal asks for.
    """
    self._folder = workdir / NAME
    self._waiting = steps
    self._next = next_steps
    self._asked = False
    self._going: _Capture | None = None
    self._steps = range(0)
    """Of the capture that goes on."""
    self._done = 0

  def __enter__(self) -> Self:
    self._listens = threading.current_thread() is threading.main_thread()
    if self._listens:
      self._before = signal.signal(signal.SIGUSR1, self._ask)
    return self

  def __exit__(self, *raised: object) -> None:
    self._end()
    if self._waiting is not None:
      _tell(f"steps {_name(self._waiting)} didn't come, and are not captured")
    if self._listens:
      signal.signal(signal.SIGUSR1, self._before)

  def _ask(self, number: int, frame: FrameType | None) -> None:
    del number, frame
    self._asked = True

  def step(
    self, position: int, state: Any
  ) -> contextlib.AbstractContextManager:
    """Around the dispatch of a step, which gets its number in a profile."""
    if self._asked or self._waiting is not None:
      self._look(position, state)
    if self._going is None:
      return contextlib.nullcontext()
    return jax.profiler.StepTraceAnnotation("train", step_num=position)

  def _look(self, position: int, state: Any) -> None:
    """Begins what is asked for, one profile at a time."""
    if self._asked:
      self._asked = False
      if self._going is None:
        self._begin(range(position, position + self._next), state)
      else:
        _tell(f"SIGUSR1 asks for nothing while {_name(self._steps)} goes on")
    waiting = self._waiting
    if self._going is None and waiting is not None:
      if position >= waiting.stop:
        _tell(
          f"steps {_name(waiting)} are over, and not captured by themselves"
        )
        self._waiting = None
      elif position >= waiting.start:
        self._begin(range(position, waiting.stop), state)
        self._waiting = None

  def _begin(self, steps: range, state: Any) -> None:
    jax.block_until_ready(state)  # steps before are no part of it
    try:
      self._going = _Capture(self._folder, steps)
    except Exception as error:  # as XLA's, which it names nowhere
      _tell(f"steps {_name(steps)} can't be captured: {_line(error)}")
    self._steps, self._done = steps, steps.start

  def done(self, position: int, state: Any) -> None:
    """Ends the profile behind its last step."""
    if self._going is None:
      return
    self._done = position
    if position >= self._steps.stop:
      jax.block_until_ready(state)
      self._end()

  def _end(self) -> None:
    going, self._going = self._going, None
    if going is None:
      return
    steps = range(self._steps.start, max(self._done, self._steps.start + 1))
    try:
      folder = going.end(steps)
    except Exception as error:
      _tell(f"steps {_name(steps)} can't be written: {_line(error)}")
      return
    cut = "" if steps == self._steps else f" (asked for {_name(self._steps)})"
    _tell(f"{folder}{cut}")


class _Capture:
  """A profile that goes on, in a folder of its own: XLA's names are of seconds."""

  def __init__(self, folder: epath.Path, steps: range):
    self._folder = folder
    self._stack = contextlib.ExitStack()
    self._local = self._target(steps)
    if is_remote(folder):  # XLA writes to local folders
      made = self._stack.enter_context(tempfile.TemporaryDirectory())
      self._local = epath.Path(made)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # each call of Python would slow it down
    with contextlib.ExitStack() as failed:
      failed.push(self._stack)
      with storage(self._local, expected="a folder that can be made"):
        self._local.mkdir(parents=True, exist_ok=True)
      jax.profiler.start_trace(
        self._local, create_perfetto_trace=True, profiler_options=options
      )
      failed.pop_all()

  def end(self, steps: range) -> epath.Path:
    """Writes it under the steps that it holds; returns the folder."""
    target = self._target(steps)
    with self._stack:
      try:
        jax.profiler.stop_trace()
      except BaseException:
        jax_profiler._profile_state.reset()  # else there is no other one
        raise
      if is_remote(target):
        _copy(pathlib.Path(self._local), target)
      elif target != self._local:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._local.rename(target)
        with contextlib.suppress(OSError):  # others' may be there
          self._local.parent.rmdir()
    return target

  def _target(self, steps: range) -> epath.Path:
    process = f"process-{jax.process_index()}"
    return self._folder / f"steps-{_name(steps)}" / process


def _name(steps: range) -> str:
  return f"{steps.start}-{steps.stop - 1}"


def _line(error: Exception) -> str:
  return " ".join(str(error).split()) or type(error).__name__


def _tell(text: str) -> None:
  print(f"profile: {text}", file=sys.stderr)


def _copy(source: pathlib.Path, target: epath.Path) -> None:
  with storage(target, expected="a folder that can be written"):
    for path in source.rglob("*"):
      if path.is_file():
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
