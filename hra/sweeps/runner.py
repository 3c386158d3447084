"""The runs of a sweep -> finished folders, some processes at a time.

A run is two processes of the program's own command line, in a folder of its own.
One that fails stops no other; one that was done before is left alone; one that
was interrupted goes on from its checkpoint.
"""

import collections
import contextlib
import os
import pathlib
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, NamedTuple, Self, TextIO

from etils import epath
from tqdm import tqdm

from hra.data.place import LAST
from hra.errors import InputError
from hra.evaluate.table import interval, percent
from hra.files import is_remote, storage
from hra.sweeps import cores, endings, guards, plan, record
from hra.train.interrupt import Signals

_QUIET = {"TQDM_MININTERVAL": "30", "PYTHONUNBUFFERED": "1"}
"""Environment of a process whose terminal is a file."""

_GRACE = 60.0
"""Seconds in which the runs can save when something ends the sweep itself."""

_PAUSE = 0.1
"""Seconds between two looks at the processes."""

_PATIENCE = 2.0
"""Seconds between two looks at speech that others make."""

_REFRESH = 0.5
"""Seconds between two states of the progress line."""

Commands = Callable[[plan.Run], Mapping[str, Sequence[str]]]


class Outcome(NamedTuple):
  """How a sweep ended; names of runs of the plan."""

  done: tuple[str, ...]
  failed: tuple[str, ...]
  left: tuple[str, ...]
  """Interrupted, or not started."""
  died: tuple[str, ...] = ()
  """Of those that failed: by no bad input, so that another start may do."""


def run(
  sweep: plan.Sweep,
  *,
  jobs: int,
  out: TextIO,
  commands: Commands | None = None,
  only: Sequence[str] = (),
) -> Outcome:
  """Does what is left to do of a sweep.

  Runs that are named may be done by several processes at a time, on several machines
  that share the folder; what they did is listed by the next call without names.
  SIGTERM, Ctrl-C and the end of the terminal are handed to the runs, which save;
  a second Ctrl-C kills them.

  Args:
    jobs: processes at once; with 0, nothing is run and all is listed as it is.
    out: where a progress line goes, if it is a terminal, and a line per run.
    commands: verb -> command line of a run; `hra.sweeps.plan.commands` if None.
    only: names of runs; all others are left alone.

  Raises:
    InputError: before anything starts: a folder that is another run's, a sweep at
      work in the same folder, one that isn't local, a backbone that isn't there;
      later, a sweep.json that can't be written: the runs save.
  """
  least = 1 if only else 0
  if jobs < least:
    raise InputError("--jobs", expected=f"at least {least}", got=str(jobs))
  sweep = plan.only(sweep, only)
  if is_remote(sweep.workdir):
    raise InputError(
      sweep.workdir,
      expected="a local folder, for the runs' logs",
      got="a URL",
      fix="give a local --workdir and copy what it holds",
    )
  guards.check_backbones(sweep)
  with storage(sweep.workdir, expected="a folder that can be made"):
    sweep.workdir.mkdir(parents=True, exist_ok=True)
  with contextlib.ExitStack() as stack:
    locks = guards.lock(sweep, stack, apart=bool(only))
    needs = {run.name: record.check(run) for run in sweep.runs}
    listed = record.Record(sweep, apart=bool(only), anew=jobs > 0)
    for each in sweep.runs:
      if needs[each.name] == "nothing":
        listed.finish(each)
    listed.write()
    pool = _Pool(
      sweep,
      listed,
      needs,
      jobs=jobs,
      locks=locks,
      out=out,
      commands=commands or (lambda run: plan.commands(sweep, run)),
    )
    if jobs:
      with Signals() as signals, guards.hangup(signals), pool:
        pool.work(signals)
  names: dict[str, list[str]] = {"done": [], "failed": [], "left": []}
  for each in sweep.runs:
    status = listed.entries[each.name]["status"]
    names[status if status in names else "left"].append(each.name)
  done, failed, left = map(tuple, names.values())
  return Outcome(done, failed, left, tuple(pool.died))


class _Active:
  """A run that goes on: its present process and the verbs that follow."""

  def __init__(self, run: plan.Run, *, place: int, verbs: Sequence[str]):
    self.run = run
    self.place = place
    self.verbs = list(verbs)
    self.log = pathlib.Path(run.folder / endings.LOG)
    self.process: subprocess.Popen | None = None
    self.told_from = 0
    """Where the log of the present process begins."""


class _Pool:
  """Runs side by side; leaving it as a context ends what still goes on.

  What goes wrong with the files or the process of one run is that run's failure.
  """

  def __init__(
    self,
    sweep: plan.Sweep,
    listed: record.Record,
    needs: Mapping[str, record.Needs],
    *,
    jobs: int,
    locks: Sequence[IO[str]],
    out: TextIO,
    commands: Commands,
  ):
    waiting = [run for run in sweep.runs if needs[run.name] != "nothing"]
    self._waiting = collections.deque(waiting)
    self._listed = listed
    self._needs = needs
    self._jobs = max(1, min(jobs, len(waiting)))
    self._locks = locks
    self.died: list[str] = []
    self._making: dict[str, tuple[contextlib.ExitStack, IO[str]]] = {}
    """What unlocks the speech that each run makes, and its lock."""
    self._out = out
    self._commands = commands
    self._active: list[_Active] = []
    self._machine = (cores.usable_cores(), cores.usable_gpus())
    self._failed = 0
    self._told = False
    """Whether the runs that go on were asked to stop."""
    self._shown = 0.0
    self._bar = tqdm(
      total=len(waiting),
      desc="sweep",
      file=out,
      disable=not out.isatty(),
      dynamic_ncols=True,
      leave=False,
      bar_format="{desc}: {n_fmt}/{total_fmt} runs |{bar:16}| {elapsed}{postfix}",
    )

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
    try:
      if kind is not KeyboardInterrupt:  # which is the second
        self._stop()
        self._wait(time.monotonic() + _GRACE)
    finally:
      for each in self._active:
        if each.process is not None:
          with contextlib.suppress(ProcessLookupError):
            os.killpg(each.process.pid, signal.SIGKILL)
          each.process.wait()
        with contextlib.suppress(InputError):  # the disk may be full
          self._listed.interrupt(each.run)
      with contextlib.suppress(OSError):
        self._bar.close()

  def _stop(self) -> None:
    """Asks the runs to save and end; asked again, they would end at once."""
    if not self._told:
      self._told = True
      for each in self._active:
        if each.process is not None:
          each.process.send_signal(signal.SIGTERM)

  def _wait(self, deadline: float) -> None:
    while time.monotonic() < deadline and any(
      each.process is not None and each.process.poll() is None
      for each in self._active
    ):
      time.sleep(_PAUSE)

  def work(self, signals: Signals) -> None:
    """Until all runs have ended, or, after a signal, those that go on."""
    while self._active or (self._waiting and signals.first is None):
      if signals.first is None:
        self._fill()
      elif not self._told:
        self._stop()
        self._say("stopping: the runs save; once more ends them at once")
      pause = _PAUSE if self._active else _PATIENCE
      for each in tuple(self._active):
        self._look(each, stopping=signals.first is not None)
      self._show()
      time.sleep(pause)

  def _fill(self) -> None:
    while len(self._active) < self._jobs:
      run = next((run for run in self._waiting if self._may_start(run)), None)
      if run is None:
        return
      self._waiting.remove(run)
      taken = {each.place for each in self._active}
      place = next(place for place in range(self._jobs) if place not in taken)
      needs = self._needs[run.name]
      verbs = ("evaluate",) if needs == "evaluation" else ("train", "evaluate")
      active = _Active(run, place=place, verbs=verbs)
      self._listed.start(run)
      self._active.append(active)
      try:
        record.ask(run, needs=needs)
        self._start(active)
      except (OSError, InputError) as error:
        self._end(active, error=str(error))

  def _may_start(self, run: plan.Run) -> bool:
    """One run makes the speech that several hear; the others wait for it."""
    made = epath.Path(run.corpus) / "prepared" / LAST
    if not run.corpus or made.exists():
      return True
    if any(each.run.corpus == run.corpus for each in self._active):
      return False
    return is_remote(run.corpus) or self._makes(run)

  def _makes(self, run: plan.Run) -> bool:
    """Whether it is this run that makes its speech, and nobody elsewhere."""
    stack = contextlib.ExitStack()
    made = guards.makes(run.corpus, stack)
    if made is None:
      return False
    self._making[run.name] = stack, made
    return True

  def _start(self, active: _Active) -> None:
    """Starts a process for the first of a run's verbs.

    Raises:
      InputError: its log can't be written, or the process not be started.
    """
    verb = active.verbs[0]
    command = self._commands(active.run)[verb]
    locks = [*self._locks, *self._making.get(active.run.name, ())[1:]]
    found, gpus = self._machine
    share = cores.share(active.place, jobs=self._jobs, cores=found, gpus=gpus)
    with storage(active.log, expected="a file that can be written"):
      log = active.log.open("ab", buffering=0)
      log.write(f"$ {shlex.join(command)}\n".encode())
      active.told_from = log.tell()
    with log:
      try:
        active.process = subprocess.Popen(
          command,
          stdin=subprocess.DEVNULL,
          stdout=log,
          stderr=subprocess.STDOUT,
          env={**_QUIET, **share.threads, **os.environ, **share.devices},
          # A group of its own: Ctrl-C reaches a run once, from here. What
          # outlives this process keeps the folders locked.
          start_new_session=True,
          pass_fds=[lock.fileno() for lock in locks],
        )
      except OSError as error:
        raise InputError(
          command[0],
          expected=f"a process of hra {verb}",
          got=error.strerror or str(error),
        ) from error
    with contextlib.suppress(ProcessLookupError):  # it may have ended
      cores.confine(active.process.pid, share.cores)

  def _look(self, active: _Active, *, stopping: bool) -> None:
    """Sees whether a run's process has ended, and what follows from that."""
    code = None if active.process is None else active.process.poll()
    if code is None:
      return
    verb = active.verbs.pop(0)
    stopped = code in endings.INTERRUPTED or (
      code == 0 and active.verbs and stopping
    )
    try:
      if code == 0 and verb == "train":
        record.note_trained(active.run)
      if code == 0 and active.verbs and not stopping:
        self._start(active)
        return
      error = ""
      if not stopped:
        told_from = active.told_from
        error = endings.error(active.run, verb, code, told_from=told_from)
      if error and code != endings.BAD_INPUT:
        self.died.append(active.run.name)
      see = f"; see {active.log}"
    except (OSError, InputError) as caught:
      error, see = str(caught), ""
    self._end(active, error=error, see=see, stopped=bool(stopped and not error))

  def _end(
    self, active: _Active, *, error: str, see: str = "", stopped: bool = False
  ) -> None:
    """Lists and tells how a run ended: well without an error."""
    run = active.run
    self._active.remove(active)
    if run.name in self._making:
      self._making.pop(run.name)[0].close()
    if stopped:
      self._listed.interrupt(run)
      self._tell(run, "stopped", "")
      return
    self._listed.finish(run, error=error)
    self._failed += bool(error)
    with contextlib.suppress(OSError):
      self._bar.update()
    if error:
      self._tell(run, "failed", f"{error}{see}")
    else:
      overall = self._listed.entries[run.name]["results"]["overall"]
      rate = f"WER {percent(overall['wer'])}% ({interval(overall)})"
      self._tell(run, "done", rate)

  def _tell(self, run: plan.Run, how: str, what: str) -> None:
    seconds = _clock(self._listed.elapsed(run))
    self._say(f"{how:<8}{run.name}  {seconds}  {what}".rstrip())

  def _say(self, line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may have gone
      self._bar.clear()
      self._out.write(f"{line}\n")
      self._out.flush()

  def _show(self) -> None:
    if self._bar.disable or time.monotonic() < self._shown + _REFRESH:
      return
    self._shown = time.monotonic()
    known = [
      entry["seconds"]
      for entry in self._listed.entries.values()
      if entry["status"] == "done" and entry["seconds"]
    ]
    left = _left(
      [self._listed.elapsed(each.run) for each in self._active],
      waiting=len(self._waiting),
      typical=sum(known) / len(known) if known else None,
      jobs=self._jobs,
    )
    parts = [
      f"{self._failed} failed" if self._failed else "",
      "" if left is None else f"about {_clock(left)} left",
      " ".join(each.run.name for each in self._active),
    ]
    self._bar.set_postfix_str("; ".join(filter(None, parts)), refresh=False)
    with contextlib.suppress(OSError):
      self._bar.refresh()


def _left(
  elapsed: Sequence[float],
  *,
  waiting: int,
  typical: float | None,
  jobs: int,
) -> float | None:
  """Seconds until all is done, if runs take as long as those that are."""
  if typical is None:
    return None
  going = [max(0.0, typical - each) for each in elapsed]
  return max([*going, (sum(going) + waiting * typical) / jobs])


def _clock(seconds: float) -> str:
  return tqdm.format_interval(round(seconds))
