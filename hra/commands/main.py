"""The console script: `hra VERB --flags`.

What goes wrong is one line on stderr, and an exit code:

  2    bad input, or a disk or bucket that refuses: mend it, then run it again
  75   a training that was interrupted, and has saved: run it again (EX_TEMPFAIL)
  130  stopped by Ctrl-C outside of training, or by a second one while it saved
  143  the same by SIGTERM
"""

import contextlib
import importlib
import importlib.metadata
import inspect
import io
import multiprocessing
import os
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Sequence
from types import FrameType, ModuleType
from typing import NoReturn, TextIO

from absl import app, flags, logging

from hra import processes
from hra.commands import configs
from hra.config_tree import nearest
from hra.errors import InputError, Interrupted, StorageError

VERBS = {
  "quickstart": "adapt synthesised speakers in one job, start to end",
  "prepare": "recordings and transcripts -> data that training reads",
  "convert": "a public checkpoint -> a backbone to adapt",
  "plan": "parameters, bytes a device and FLOPs a step, without devices",
  "train": "pretrain or adapt, as the config says; resumes by itself",
  "enroll": "add a task to a finished run, all else frozen",
  "forget": "remove a task, and all that is its alone, from a run",
  "export": "Submodels -> a store, or a LoRA folder that PEFT loads",
  "store": "Submodels of a store: list, publish, roll back, delete, pack",
  "evaluate": "WER and CER per task, adapted and backbone",
  "transcribe": "audio files -> text, with a Submodel or without",
  "serve": "an HTTP server: each speaker by their own Submodel",
  "key": "who may ask a server, and for whose Submodels",
  "report": "one self-contained HTML page from finished runs",
  "sweep": "an experiment under several settings, compared",
}

INTERRUPTED = 75

RESUMED = ("quickstart", "prepare", "train", "enroll", "forget", "sweep")
"""Verbs that go on from what they did before they were stopped."""


class _Terminated(KeyboardInterrupt):
  """SIGTERM: unwinds like Ctrl-C, so that files and processes are cleared away."""


def run() -> None:
  """The entry point of the `hra` script."""
  if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help", "help"):
    print(_usage())
    sys.exit(0 if len(sys.argv) > 1 else 2)
  verb = sys.argv.pop(1)
  if verb == "--version":
    print(importlib.metadata.version("hra"))
    return
  if verb not in VERBS:
    print(
      f"hra {verb}: no such verb; did you mean {nearest(verb, VERBS)}?\n\n"
      f"{_usage()}",
      file=sys.stderr,
    )
    sys.exit(2)
  run_verb(verb)


def run_verb(verb: str) -> None:
  """Runs one verb's `main` with its flags."""
  signal.signal(signal.SIGTERM, _terminate)
  if isinstance(sys.stdout, io.TextIOWrapper):
    # A terminal that can't show a transcript must not end hours of work.
    sys.stdout.reconfigure(errors="backslashreplace")
  try:
    _run_verb(verb)
    sys.stdout.flush()
  except KeyboardInterrupt as error:
    _leave(verb, error)
  except BrokenPipeError:  # `hra ... | head` has read enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


def _run_verb(verb: str) -> None:
  module = _module(f"hra.commands.{verb}")

  def parse(argv: Sequence[str]) -> list[str]:
    if any(argument in ("-h", "--help") for argument in argv[1:]):
      print(_help(verb, module))
      sys.exit(0)
    try:
      rest = flags.FLAGS(configs.rewrite(argv))
    except flags.Error as error:
      _fail(verb, f"{error}; see hra {verb} --help")
    if len(rest) > 1 and not getattr(module, "TAKES_FILES", False):
      _fail(verb, f"expected flags, got {rest[1]!r}; see hra {verb} --help")
    return rest

  def guarded(argv: Sequence[str]) -> None:
    # Orbax logs what it raises, traces and all, from each of its threads.
    logging.set_verbosity(logging.FATAL)
    with contextlib.redirect_stderr(_KnownThreads(sys.stderr)):
      try:
        _until_all_end(module.main, argv)
      except StorageError as error:
        # TensorStore's threads would go on to tell of the save that failed.
        _quit(verb, str(error), code=2)
      except InputError as error:
        _refuse(verb, str(error))
      except Interrupted as error:
        _fail(verb, str(error), code=INTERRUPTED)
      except Exception as error:
        if processes.count() == 1:
          raise
        # JAX would wait for the others at the end, and they for this one.
        processes.hear_others()
        traceback.print_exc()
        _quit(verb, f"{type(error).__name__}: {_first_line(error)}", code=1)

  app.run(guarded, flags_parser=parse)


def _until_all_end(
  main: Callable[[Sequence[str]], None], argv: Sequence[str]
) -> None:
  """Until all processes of a job have done what they do, or were stopped.

  JAX, too, waits at the end, and aborts who waits longer than a heartbeat.
  """
  try:
    main(argv)
  except Interrupted:
    processes.wait_for_all("end")
    raise
  processes.wait_for_all("end")


def _module(name: str) -> ModuleType:
  """A verb's module; under `python -m` it runs already, as `__main__`."""
  running = sys.modules["__main__"]
  spec = getattr(running, "__spec__", None)
  if spec is not None and spec.name == name:
    return running
  return importlib.import_module(name)


class _KnownThreads(io.TextIOBase):
  """Standard error of the threads that Python started.

  TensorStore's, in C, print a trace for each callback of a save that failed.
  """

  def __init__(self, stream: TextIO):
    self._stream = stream

  def write(self, text: str) -> int:
    if isinstance(threading.current_thread(), threading._DummyThread):
      return len(text)
    return self._stream.write(text)

  def flush(self) -> None:
    self._stream.flush()

  def fileno(self) -> int:
    return self._stream.fileno()

  def isatty(self) -> bool:
    return self._stream.isatty()


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
  del number, frame
  raise _Terminated


def _leave(verb: str, error: KeyboardInterrupt) -> NoReturn:
  """Leaves at once: a thread that still writes leaves no half file behind."""
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
  for child in multiprocessing.active_children():
    child.kill()
  again = "; the same command goes on from what is done"
  number = signal.SIGTERM if isinstance(error, _Terminated) else signal.SIGINT
  _quit(verb, f"stopped{again if verb in RESUMED else ''}", code=128 + number)


def _refuse(verb: str, message: str) -> NoReturn:
  """Ends all processes of a job, as one can't go on."""
  if processes.count() > 1:
    _quit(verb, message, code=2)
  _fail(verb, message)


def _first_line(error: Exception) -> str:
  return str(error).partition("\n")[0]


def _quit(verb: str, message: str, *, code: int) -> NoReturn:
  """Ends the process now, and its threads with it; and those of its job."""
  print(f"hra {verb}: {message}", file=sys.stderr)
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(processes.fail(message, code=code))


def _fail(verb: str, message: str, *, code: int = 2) -> NoReturn:
  print(f"hra {verb}: {message}", file=sys.stderr)
  sys.exit(code)


def _usage() -> str:
  lines = [f"  hra {verb:<12} {does}" for verb, does in VERBS.items()]
  return "\n".join(
    ["usage: hra VERB --flags", "", *lines, "", "hra VERB --help says more"]
  )


def _help(verb: str, module: ModuleType) -> str:
  """A verb's docstring and the flags that it has or adopted, not absl's hundred others."""
  parts = [inspect.cleandoc(module.__doc__ or ""), "flags:"]
  shown = [
    *flags.FLAGS.get_key_flags_for_module(module.__name__),
    *flags.FLAGS.get_flags_for_module(configs.__name__),
  ]
  for flag in sorted(shown, key=lambda flag: flag.name):
    default = "" if flag.default in (None, "", []) else f" [{flag.default}]"
    text = textwrap.fill(
      f"{flag.help}{default}",
      width=78,
      initial_indent="      ",
      subsequent_indent="      ",
    )
    parts.append(f"  --{flag.name}\n{text}")
  return "\n".join([f"hra {verb}: {VERBS[verb]}", "", *parts])
