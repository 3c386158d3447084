"""Runs of the study in a process of their own, which `study.py` starts.

    python benchmarks/study_worker.py --folders=RUN,RUN --split=test

Enters: RUN/asked.json, the configuration that is asked for. Leaves: each RUN trained
and scored, one after the other, so that runs of one program are traced once; and
RUN/cost.json, the CPU and wall seconds of all that was done for it. The first run of a
process pays for its start. What is done is passed over; what is trained is scored.

`train`: the run as it is configured. `enroll`: its speakers are added to a copy
of the run --parent, whose figures come to RUN. `apply`: the shared parameters
of --parent are heard on its speakers, who own nothing.
"""

import contextlib
import json
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence

from absl import app, flags, logging
from etils import epath

from hra import claim
from hra.commands import process
from hra.config import Config
from hra.errors import InputError, Interrupted
from hra.files import write_aside, write_json
from hra.sweeps.record import ASKED

COST = "cost.json"
_COPY = "parent"
_BEGAN = time.monotonic()
_MADE = (
  "config.json",
  "tasks.json",
  "metrics.jsonl",
  "verdicts.json",
  "transcripts.jsonl",
  "results.json",  # last: it says that the others are there
)
"""What an enrolment's figures are read from."""
_NOT_COPIED = ("audio", "tensorboard", "enrolled", "*.html", "*.txt", "asked.*")
INTERRUPTED = 75


def define_flags() -> None:
  """Defines the process's flags; who imports this file has other ones."""
  flags.DEFINE_list("folders", [], "The runs'.")
  flags.DEFINE_string("split", "test", "What is scored at the end.")
  flags.DEFINE_enum("do", "train", list(_DOERS), "What is done.")
  flags.DEFINE_string("parent", "", "The run whose shared parts serve.")
  flags.DEFINE_string("init", "mean", "What an enrolment starts from.")
  flags.DEFINE_string("fit", "auto", "What an enrolment fits.")


def main(argv: Sequence[str]) -> None:
  del argv
  folders = [epath.Path(folder) for folder in flags.FLAGS.folders]
  folders = [folder for folder in folders if not _is_scored(folder)]
  if not folders:
    return
  logging.set_verbosity(logging.FATAL)
  process.set_up()
  spent = Spent()
  failed = False
  for folder in folders:
    try:
      with spent.noted(folder):
        _do(folder)
    except Interrupted as error:
      print(error, file=sys.stderr)
      sys.exit(INTERRUPTED)
    except Exception as error:  # what one run meets doesn't end the others
      failed = True
      if not isinstance(error, InputError):
        traceback.print_exc()
      print(f"{folder}: {error}", file=sys.stderr, flush=True)
  if failed:
    sys.exit(1)


def _do(folder: epath.Path) -> None:
  """Trains and scores a run, or scores it where it is trained."""
  asked = json.loads((folder / ASKED).read_text())
  if asked["trained"]:
    _score(folder)
  else:
    _DOERS[flags.FLAGS.do](folder)
    write_json(folder / ASKED, asked | {"trained": True})


def _train(folder: epath.Path) -> None:
  from hra import jobs, run, scoring

  parts = run.assemble(_asked(folder), folder)
  trained = jobs.train(parts)
  jobs.finish(parts, trained)
  if flags.FLAGS.split != parts.config.data.dev_split:
    scoring.evaluate(parts, trained, split=flags.FLAGS.split)


def _enroll(folder: epath.Path) -> None:
  from hra import jobs, run
  from hra.growth.enrolment import enroll
  from hra.growth.options import Options

  config = _asked(folder)
  parent = _copied(folder)
  home = _enrolment(folder)
  if home is None or not jobs.is_finished(home):
    corpus = epath.Path(config.data.path) / "corpus"
    run.with_data(config, folder)  # where it isn't made yet
    rows, train = config.train.rows, config.train
    options = Options(
      init=flags.FLAGS.init,
      fit=flags.FLAGS.fit,
      steps=train.steps,
      unguarded=True,  # of five recordings one is dev
      settings=(
        f"train.rows.learning_rate={rows.learning_rate}",
        f"train.rows.warmup_steps={rows.warmup_steps}",
        f"train.eval_every={train.eval_every}",
        f"train.select={train.select}",
        f"train.patience={train.patience}",
        f"data.eval_batch={config.data.eval_batch}",
      ),
    )
    enroll(parent, str(corpus), options)
  _score(folder)


def _apply(folder: epath.Path) -> None:
  from hra import run, scoring

  parts = run.assemble(_asked(folder), folder)
  trained = run.trained_state(run.reopen(flags.FLAGS.parent))
  applied = run.initial_state(parts)._replace(shared=trained.shared)
  (folder / "metrics.jsonl").touch()  # of a run that has no steps
  scoring.evaluate(parts, applied, split=flags.FLAGS.split)


def _score(folder: epath.Path) -> None:
  from hra import run, scoring

  home = _enrolment(folder)
  parts = run.reopen(home or folder)
  if flags.FLAGS.split != parts.config.data.dev_split or home is None:
    scoring.evaluate(parts, run.trained_state(parts), split=flags.FLAGS.split)
  if home is not None:
    for name in _MADE:
      write_aside(folder / name, (home / name).read_bytes())


_DOERS = {
  "train": _train,
  "enroll": _enroll,
  "apply": _apply,
}


def _asked(folder: epath.Path) -> Config:
  path = folder / ASKED
  asked = json.loads(path.read_text())["config"]
  return claim.stored_config(asked, path=str(path))


def _copied(folder: epath.Path) -> epath.Path:
  """A copy of the parent: a run takes a newcomer once, and he comes often."""
  copy, aside = folder / _COPY, folder / f".{_COPY}.partial"
  if not copy.exists():
    shutil.rmtree(aside, ignore_errors=True)
    left = shutil.ignore_patterns(*_NOT_COPIED)
    shutil.copytree(flags.FLAGS.parent, aside, ignore=left)
    aside.rename(copy)
  return copy


def _enrolment(folder: epath.Path) -> epath.Path | None:
  """The one enrolment in the copy of a parent, if this run is one."""
  return next(iter(claim.enrolments(folder / _COPY)), None)


def _is_scored(folder: epath.Path) -> bool:
  """Whether all that is asked of a run is done."""
  path = folder / "results.json"
  if (
    not path.exists() or not json.loads((folder / ASKED).read_text())["trained"]
  ):
    return False
  return json.loads(path.read_text())["split"] == flags.FLAGS.split


class Spent:
  """CPU and wall seconds of this process, each noted once."""

  def __init__(self) -> None:
    self._noted = (0.0, _BEGAN)

  @contextlib.contextmanager
  def noted(self, folder: epath.Path) -> Iterator[None]:
    """Adds what this process took since it was last asked to a run's cost."""
    try:
      yield
    finally:
      path = folder / COST
      spent = {"cpu_seconds": 0.0, "wall_seconds": 0.0, "processes": 0}
      if path.exists():
        spent = json.loads(path.read_text())
      now = (_cpu_seconds(), time.monotonic())
      spent["cpu_seconds"] += now[0] - self._noted[0]
      spent["wall_seconds"] += now[1] - self._noted[1]
      spent["processes"] += 1
      self._noted = now
      write_json(path, spent)


def _cpu_seconds() -> float:
  usages = map(
    resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  )
  return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  define_flags()
  app.run(main)
