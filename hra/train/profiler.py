"""Steps that are asked for -> a profile of them, in WORKDIR/profile.

Asked for by a range of steps, or by SIGUSR1: the next ones. A process writes a folder
of its own, which xprof and TensorBoard read, with a `perfetto_trace.json.gz` for
ui.perfetto.dev. Where nothing is asked for, a step costs one comparison more.
"""

import contextlib
import pathlib
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

import jax
from etils import epath

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


def ignore_requests() -> None:
  """Lets SIGUSR1 pass until a loop listens: it would end the process."""
  signal.signal(signal.SIGUSR1, signal.SIG_IGN)


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
    self._workdir = workdir
    self._steps = steps
    self._next = next_steps
    self._asked = False
    self._going: contextlib.ExitStack | None = None

  def __enter__(self) -> Self:
    self._listens = threading.current_thread() is threading.main_thread()
    if self._listens:
      self._before = signal.signal(signal.SIGUSR1, self._ask)
    return self

  def __exit__(self, *raised: object) -> None:
    if self._going is not None:
      with self._going:
        self._going = None
    if self._listens:
      signal.signal(signal.SIGUSR1, self._before)

  def _ask(self, number: int, frame: FrameType | None) -> None:
    del number, frame
    self._asked = True

  def step(
    self, position: int, state: Any
  ) -> contextlib.AbstractContextManager:
    """Around the dispatch of a step, which gets its number in a profile."""
    if self._asked:
      self._asked = False
      if self._going is None:
        self._steps = range(position, position + self._next)
    if self._steps is None or position not in self._steps:
      return contextlib.nullcontext()
    if self._going is None:
      jax.block_until_ready(state)  # steps before are no part of it
      self._steps = range(position, self._steps.stop)
      self._going = contextlib.ExitStack()
      self._going.enter_context(_capture(self._folder(self._steps)))
    return jax.profiler.StepTraceAnnotation("train", step_num=position)

  def done(self, position: int, state: Any) -> None:
    """Ends the profile behind its last step.

    Raises:
      StorageError: it can't be written.
    """
    if self._going is None or self._steps is None:
      return
    if position < self._steps.stop:
      return
    jax.block_until_ready(state)
    folder, self._steps = self._folder(self._steps), None
    going, self._going = self._going, None
    going.close()
    print(f"profile: {folder}", file=sys.stderr)

  def _folder(self, steps: range) -> epath.Path:
    """Of one profile and process: XLA's own names are but of the second."""
    name = f"steps-{steps.start}-{steps.stop - 1}"
    return self._workdir / NAME / name / f"process-{jax.process_index()}"


@contextlib.contextmanager
def _capture(folder: epath.Path) -> Iterator[None]:
  options = jax.profiler.ProfileOptions()
  options.python_tracer_level = 0  # each call of Python would slow it down
  with contextlib.ExitStack() as stack:
    local = folder
    if is_remote(folder):  # XLA writes to local folders
      made = stack.enter_context(tempfile.TemporaryDirectory())
      local = epath.Path(made)
      stack.callback(_copy, pathlib.Path(made), folder)
    with storage(local, expected="a folder that can be made"):
      local.mkdir(parents=True, exist_ok=True)
    with jax.profiler.trace(
      local, create_perfetto_trace=True, profiler_options=options
    ):
      yield


def _copy(source: pathlib.Path, target: epath.Path) -> None:
  with storage(target, expected="a folder that can be written"):
    for path in source.rglob("*"):
      if path.is_file():
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
