"""The whole job: one `hra train` for all speakers, or one for each.

    python benchmarks/one_job.py

Synthesised speakers of the quickstart's kind, a few dozen recordings each, made once
for all. Each way is the real command in a process of its own: the same recordings,
epochs and own steps, from an empty compilation cache. One job for each of 128
speakers would take too long: a seeded sample of them is run, one after the other,
with one cache among them, and stands for the rest. Rows that share nothing have to
come out the same (residual); HRA alone trains a controller of its own.

Writes docs/one_job.json, .md and .png.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import one_job_figures as figures
import results
import tqdm
from absl import app, flags, logging
from etils import epath

from hra import run
from hra.commands import configs, process
from hra.config import Config
from hra.data.dataset import open_split
from hra.errors import InputError
from hra.files import read_json

ADAPTERS = {
  "hra": [],
  "residual": ["adapter.family=residual", "adapter.heads=personal"],
}
"""Beside the quickstart's settings."""
CONTAINED = ("residual",)
"""Whose rows depend on nothing that tasks share."""
NEAR = 1e-2
"""Of the loss, and of a row's norm, by which a speaker alone may differ for float32's
rounding, which AdamW's near-zero gradients let grow: 3e-3 was seen after 50 steps. Of 20
steps, tests/train/test_independence.py asks for 1e-3, and in float64 for 1e-9."""


def define_flags() -> None:
  """Only of the program: tests import this module too."""
  results.define_out()
  flags.DEFINE_string("workdir", "", "Where runs go; empty is a temporary one.")
  flags.DEFINE_list("adapters", ["residual", "hra"], "Of hra and residual.")
  flags.DEFINE_integer("speakers", 128, "Speakers.", lower_bound=2)
  flags.DEFINE_integer("sample", 6, "Who is trained alone.", lower_bound=2)
  flags.DEFINE_integer("recordings", 24, "Of a speaker.", lower_bound=1)
  flags.DEFINE_integer("dev", 4, "Recordings to judge by.", lower_bound=1)
  flags.DEFINE_integer("epochs", 10, "Over the recordings.", lower_bound=1)
  flags.DEFINE_integer("seed", 0, "Of speakers, and of the sample.")
  flags.register_validator(
    "adapters",
    lambda given: bool(given) and set(given) <= set(ADAPTERS),
    message="some of hra, residual",
  )
  flags.register_multi_flags_validator(
    ["speakers", "sample"],
    lambda given: given["sample"] <= given["speakers"],
    message="--sample is of --speakers: at most as many",
  )


def main(argv: Sequence[str]) -> None:
  del argv
  logging.set_verbosity(logging.FATAL)
  given = flags.FLAGS
  with tempfile.TemporaryDirectory() as temporary:
    folder = epath.Path(given.workdir or temporary).resolve()
    config, chosen = _setting(folder)
    ran = {
      adapter: _run_both(folder / adapter, config, adapter, chosen)
      for adapter in given.adapters
    }
    process.set_up()  # from here on there is something to compute
    found = {}
    for adapter, (joint, alone) in ran.items():
      row = figures.compared(joint, alone, speakers=config.synthetic.speakers)
      heard = _heard(folder / adapter, chosen)
      contained = adapter in CONTAINED
      if contained:
        check_equal(heard)
      found[adapter] = {**row, "speakers_heard": heard, "contained": contained}
  about = results.about("one_job") | {"setting": _described(config)}
  results.write(
    "one_job",
    figures={**about, "adapters": found},
    markdown=figures.page(about, found),
    out=given.out,
  )
  import study_plots  # matplotlib: slow to import

  study_plots.parts_of_time(
    _bars(found),
    parts=figures.PARTS,
    label="seconds a Submodel",
    path=epath.Path(given.out) / "one_job.png",
  )


def _setting(folder: epath.Path) -> tuple[Config, list[str]]:
  """The quickstart's configuration on the data of these speakers, which are made;
  and who is trained alone."""
  given = flags.FLAGS
  config = configs.load(configs.experiment("quickstart"))
  spoken = config.synthetic
  spoken.speakers, spoken.seed = given.speakers, given.seed
  spoken.train_utterances, spoken.dev_utterances = given.recordings, given.dev
  spoken.test_utterances = 1
  per_epoch = -(-given.recordings // config.data.utterances_per_task)
  config.train.steps = given.epochs * per_epoch
  config = run.with_data(config, folder)
  names = sorted(set(open_split(config.data.path, "train").tasks))
  rng = np.random.default_rng(given.seed)
  return config, rng.choice(names, given.sample, replace=False).tolist()


def _run_both(
  folder: epath.Path, config: Config, adapter: str, chosen: Sequence[str]
) -> tuple[figures.Job, list[figures.Job]]:
  """The joint job, and those of the sample."""
  common = [
    "data.source=prepared",
    f"data.path={config.data.path}",
    f"train.steps={config.train.steps}",
    *ADAPTERS[adapter],
  ]
  joint = _train(folder / "joint", common, cache=folder / "cache-joint")
  alone = [
    _train(
      folder / "alone" / name,
      [*common, f"data.tasks={name}"],
      cache=folder / "cache-alone",
    )
    for name in tqdm.tqdm(chosen, f"{adapter}: one by one")
  ]
  return joint, alone


def _train(
  workdir: epath.Path, settings: Sequence[str], *, cache: epath.Path
) -> figures.Job:
  """One real `hra train`, with a compilation cache of its own.

  Raises:
    InputError: it failed.
  """
  if workdir.exists():
    raise InputError(
      workdir, expected="a new run", got="a folder that is there"
    )
  cache.mkdir(parents=True, exist_ok=True)
  before = _programs(cache)
  command = [
    *(sys.executable, "-m", "hra.commands.train"),
    f"--config={configs.experiment('quickstart')}",
    f"--workdir={workdir}",
    *(f"--config.{each}" for each in settings),
  ]
  with tempfile.TemporaryFile() as said:
    began, clock = time.time(), time.perf_counter()
    child = subprocess.Popen(
      command,
      env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
      stdout=said,
      stderr=subprocess.STDOUT,
    )
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - clock
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
      said.seek(0)
      raise InputError(
        " ".join(command),
        expected="a job that ends well",
        got=said.read().decode()[-2000:],
      )
  ledger = read_json(workdir / "goodput.json", keys=("started", "seconds"))
  return figures.Job(
    wall=wall,
    cpu=usage.ru_utime + usage.ru_stime,
    parts=figures.parts_of(ledger, began=began, wall=wall),
    peak_bytes=usage.ru_maxrss * 1024,
    compiled=_programs(cache) - before,
  )


def _programs(cache: epath.Path) -> int:
  return sum(path.name.endswith("-cache") for path in cache.iterdir())


def _heard(folder: epath.Path, chosen: Sequence[str]) -> list[dict[str, Any]]:
  """Of each speaker that was trained both ways: losses, WER, and rows apart."""
  from one_job_losses import dev_losses  # JAX: after the jobs

  found = dev_losses(
    folder / "joint", {name: folder / "alone" / name for name in chosen}
  )
  joint = read_json(folder / "joint" / "results.json", keys=("tasks",))
  for name, row in found.items():
    alone = read_json(folder / "alone" / name / "results.json", keys=("tasks",))
    row["joint_wer"] = joint["tasks"][name]["wer"]
    row["alone_wer"] = alone["tasks"][name]["wer"]
  return [{"speaker": name, **row} for name, row in found.items()]


def check_equal(heard: Sequence[Mapping[str, Any]]) -> None:
  """Whether speakers alone are what they are among others.

  Raises:
    InputError: one is not: what was timed is not the same work.
  """
  for row in heard:
    joint, alone = row["joint_loss"], row["alone_loss"]
    # `not <=`, which NaN doesn't pass either.
    if not (
      abs(alone - joint) <= NEAR * abs(joint) and row["rows_apart"] <= NEAR
    ):
      raise InputError(
        f"speaker {row['speaker']!r}",
        expected=f"the same alone and among others, within {NEAR:g}",
        got=f"dev loss {alone:.6g} and {joint:.6g}, rows {row['rows_apart']:.2g} of "
        "their norm apart",
      )


def _described(config: Config) -> str:
  spoken, data = config.synthetic, config.data
  return (
    f"{spoken.speakers} synthesised speakers x {spoken.train_utterances} recordings, "
    f"{config.train.steps} own steps of {data.utterances_per_task} recordings each, "
    f"{data.tasks_per_batch} speakers a joint step; the bundled backbone and the "
    f"settings of experiments/quickstart.py; {len(os.sched_getaffinity(0))} cores for "
    "either."
  )


def _bars(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
  """Seconds a Submodel, by part."""
  bars = {}
  for adapter, row in found.items():
    joint = row["joint"]["parts"]
    bars[f"{adapter}, one job"] = {
      part: seconds / row["speakers"] for part, seconds in joint.items()
    }
    bars[f"{adapter}, one each"] = row["alone"]["mean_parts"]
  return bars


if __name__ == "__main__":
  define_flags()
  app.run(main)
