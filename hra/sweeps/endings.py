"""How a run of a sweep ended: its process's exit code and what its log says."""

import os
import pathlib
import re
import signal

from hra.sweeps import plan, record

LOG = "log.txt"

BAD_INPUT = 2
INTERRUPTED = (75, 130, 143, -signal.SIGINT, -signal.SIGTERM)
"""Exit codes of a process that was asked to stop."""

_TAIL = 1 << 16
"""Bytes of a log that are searched for what went wrong."""


def error(run: plan.Run, verb: str, code: int, *, told_from: int) -> str:
  """What went wrong with a run whose process has ended, in one line; or nothing.

  Args:
    told_from: where the log of that process begins, in bytes.

  Raises:
    InputError: what it left can't be read.
  """
  if code != 0:
    return _last_words(run, verb, code, told_from)
  if record.headline(run) is not None:
    return ""
  split = run.split
  return f"hra {verb} ended well, but left no results.json of {split!r}"


def _last_words(run: plan.Run, verb: str, code: int, told_from: int) -> str:
  """What a run says of its end, in one line."""
  if code < 0:
    fix = ": is the memory enough?" if code == -signal.SIGKILL else ""
    return f"hra {verb} was killed by {signal.Signals(-code).name}{fix}"
  with pathlib.Path(run.folder / LOG).open("rb") as log:
    end = log.seek(0, os.SEEK_END)
    log.seek(max(told_from, end - _TAIL))
    text = log.read().decode("utf-8", "replace")
  lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
  told = [line for line in lines if line.startswith(f"hra {verb}: ")]
  return (told or lines or [f"hra {verb} ended with exit code {code}"])[-1]
