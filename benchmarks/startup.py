"""From the command to the first step, and to the first transcript.

    python benchmarks/startup.py --workdir=runs/startup

Real processes, one after the other: `hra train` of the quickstart's model on eight
prepared speakers until its first line of metrics is on the disk (every step writes one
here), and `hra transcribe` of one recording by the bundled backbone until its text is
printed. *Cold*: nothing is compiled; *cached*: what the cold run before it compiled is
there. Preparing data and byte-compiling Python's files, which installing does once,
aren't counted. CPU seconds are the process's own, of all its threads.

Where the seconds go is said by one run more of each kind, with `-X importtime` and with
a listener of JAX's events, which take some time too. Writes docs/startup.json and
docs/startup.md.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import results
import speakers
import startup_figures
import tqdm
from absl import app, flags

from hra.errors import InputError

GOALS = {"train, cold": 20.0, "train, cached": 5.0}
"""Wall seconds of the project's goals."""
KINDS = (
  "train, cold",
  "train, cached",
  "transcribe, cold",
  "transcribe, cached",
)
_POLL = 0.01
_ROOT = Path(__file__).parent.parent


class Started(NamedTuple):
  """A process that got as far as was asked."""

  wall: float
  cpu: float
  began: float
  """On the clock of `time.monotonic`."""
  errors: str


def define_flags() -> None:
  """Only of the program: tests import this module too."""
  results.define_out()
  flags.DEFINE_string("workdir", "runs/startup", "Data and runs.")
  flags.DEFINE_integer("runs", 5, "Of each kind.", lower_bound=1)
  flags.DEFINE_float("limit", 300.0, "Seconds after which a run is given up.")


def main(argv: Sequence[str]) -> None:
  del argv
  folder = Path(flags.FLAGS.workdir).absolute()
  data = Path(speakers.quickstart(folder).data.path)
  # Byte code is made where runs look for it.
  for kind in ("train, cold", "transcribe, cold"):
    start(kind, folder, data)
  found: dict[str, list[Started]] = {kind: [] for kind in KINDS}
  for _ in tqdm.trange(flags.FLAGS.runs, desc="runs"):
    for kind in KINDS:
      found[kind].append(start(kind, folder, data))
  cases = {kind: figures(runs) for kind, runs in found.items()}
  for kind in KINDS:
    cases[kind] |= explain(kind, folder, data)
  about = results.about("startup")
  results.write(
    "startup",
    figures={**about, "goals": GOALS, "cases": cases},
    markdown=markdown(about, cases),
    out=flags.FLAGS.out,
  )


def start(
  kind: str, folder: Path, data: Path, *, told: bool = False
) -> Started:
  """Starts a command, and ends it when it has got where it should.

  Args:
    told: whether it notes what it does.

  Raises:
    InputError: it ended before, or took too long.
  """
  verb, _, cache = kind.partition(", ")
  caches, run = folder / f"cache-{verb}", folder / "run"
  if cache == "cold":
    shutil.rmtree(caches, ignore_errors=True)
  shutil.rmtree(run, ignore_errors=True)
  output, errors = folder / "stdout", folder / "stderr"
  command = [sys.executable, *(["-X", "importtime"] if told else [])]
  listening = str(_ROOT / "benchmarks" / "started.py")
  command += [listening, verb] if told else ["-m", f"hra.commands.{verb}"]
  command += _asked(verb, run, data)
  done = run / "metrics.jsonl" if verb == "train" else output
  with output.open("w") as out, errors.open("w") as err:
    began = time.monotonic()
    process = subprocess.Popen(
      command,
      cwd=_ROOT,
      env=_environment(folder, caches),
      stdout=out,
      stderr=err,
    )
    try:
      cpu = _await(process, lambda: done.exists() and done.stat().st_size > 0)
      wall = time.monotonic() - began
    finally:
      process.kill()
      process.wait()
  if cpu is None:
    raise InputError(
      f"hra {verb}",
      expected=f"to get as far within {flags.FLAGS.limit:g} s",
      got=errors.read_text()[-500:] or "nothing",
    )
  return Started(wall, cpu, began, errors.read_text())


def _asked(verb: str, run: Path, data: Path) -> list[str]:
  if verb == "train":
    return [
      "--config=experiments/quickstart.py",
      f"--workdir={run}",
      "--config.data.source=prepared",
      f"--config.data.path={data}",
      "--config.train.log_every=1",
    ]
  recordings = sorted((data.parent / "corpus" / "audio").glob("**/*.wav"))
  return ["--backbone=tiny", str(recordings[0])]


def _environment(folder: Path, caches: Path) -> dict[str, str]:
  """With compiled Python kept, whatever the shell says of it."""
  kept = dict(os.environ)
  for name in ("PYTHONDONTWRITEBYTECODE", "JAX_COMPILATION_CACHE_DIR"):
    kept.pop(name, None)
  paths = [str(_ROOT), kept.get("PYTHONPATH", "")]
  return kept | {
    "HRA_CACHE": str(caches),
    "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
    "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    "STARTED_EVENTS": str(folder / "events"),
  }


def _await(
  process: subprocess.Popen[bytes], is_done: Callable[[], bool]
) -> float | None:
  """CPU seconds of a process when something is done; None where it never is."""
  until = time.monotonic() + flags.FLAGS.limit
  while time.monotonic() < until:
    # Who has ended stays to be asked until `wait`.
    there = os.WEXITED | os.WNOHANG | os.WNOWAIT
    ended = os.waitid(os.P_PID, process.pid, there) is not None
    if is_done():
      return _cpu_seconds(process.pid)
    if ended:
      return None
    time.sleep(_POLL)
  return None


def _cpu_seconds(pid: int) -> float:
  """Of a process that nobody has waited for, in user and system mode."""
  fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
  return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def figures(runs: Sequence[Started]) -> dict[str, Any]:
  """Medians and ranges."""
  told: dict[str, Any] = {"runs": len(runs)}
  for field in ("wall", "cpu"):
    seconds = [getattr(run, field) for run in runs]
    told[f"{field}_seconds"] = statistics.median(seconds)
    told[f"{field}_range"] = [min(seconds), max(seconds)]
  return told


def explain(kind: str, folder: Path, data: Path) -> dict[str, Any]:
  """Where the wall seconds of one run go."""
  run = start(kind, folder, data, told=True)
  events = startup_figures.read_events((folder / "events").read_text())
  imported = startup_figures.imports(run.errors)
  ended = run.began + run.wall
  return {
    "explained_seconds": run.wall,
    "shares": startup_figures.shares(
      events, imported, began=run.began, ended=ended
    ),
    "slowest_imports": dict(list(imported.items())[:6]),
    "programs": startup_figures.programs(events, ended=ended),
  }


def markdown(
  about: Mapping[str, str], cases: Mapping[str, Mapping[str, Any]]
) -> str:
  """The page."""
  runs = next(iter(cases.values()))["runs"]
  phases = list(next(iter(cases.values()))["shares"])
  lines = [
    "# From the command to the first step and the first transcript",
    "",
    results.title(
      about, note=f"medians (and ranges) of {runs} processes each."
    ),
    "",
    "| | wall, s | CPU, s | goal, s | programs |",
    "|---|---|---|---|---|",
  ]
  for kind, told in cases.items():
    goal = GOALS.get(kind)
    wall, cpu = (
      f"{told[f'{field}_seconds']:.1f} ({low:.1f}-{high:.1f})"
      for field in ("wall", "cpu")
      for low, high in [told[f"{field}_range"]]
    )
    met = "" if goal is None else f"{goal:g}, {_met(told, goal)}"
    lines.append(f"| {kind} | {wall} | {cpu} | {met} | {told['programs']} |")
  lines += [
    "",
    "Wall seconds of one run more of each, which notes what it does. `tracing` to "
    "`compiling` are JAX's own figures (reading the cache is compiling there); "
    "imports are all modules; `rest` is reading data and backbone, running programs "
    "and whatever else.",
    "",
    f"| | all | {' | '.join(phases)} | slowest imports |",
    "|---|---|" + "---|" * len(phases) + "---|",
  ]
  for kind, told in cases.items():
    slow = ", ".join(f"{n} {s:.1f}" for n, s in told["slowest_imports"].items())
    seconds = " | ".join(f"{told['shares'][phase]:.1f}" for phase in phases)
    lines.append(
      f"| {kind} | {told['explained_seconds']:.1f} | {seconds} | {slow} |"
    )
  return "\n".join([*lines, ""])


def _met(told: Mapping[str, Any], goal: float) -> str:
  return "met" if told["wall_seconds"] <= goal else "**not** met"


if __name__ == "__main__":
  define_flags()
  app.run(main)
