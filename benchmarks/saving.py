"""What a checkpoint costs: the time that one save adds to the steps beside it.

    python benchmarks/saving.py

Blocks of steps with one save and without take turns; the medians of the wall and
CPU seconds that the saves add, until all is on the disk, are divided by the minute
that `config.train.save_seconds` leaves between two saves. The quickstart's shape
(16 speakers), the same with 2,000 speakers, and the pretraining of its backbone;
random audio of the middle length bucket. Writes docs/saving.json and docs/saving.md.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import results
import training
from absl import app, flags, logging

from hra.checkpoint import Checkpoints
from hra.commands import configs, process
from hra.config import Config

_OUT = results.define_out()
_FOLDER = flags.DEFINE_string(
  "folder", "", "Where checkpoints go; empty is a temporary folder."
)
_BLOCKS = flags.DEFINE_integer("blocks", 9, "Pairs of blocks for each row.")
_STEPS = flags.DEFINE_integer("steps", 4, "Steps of a block.")

SECONDS = 3.36
"""The end of the quickstart's middle length bucket."""


class Case(NamedTuple):
  """A state that trains, and what a step of it is."""

  name: str
  config: Config
  tasks: int


class Costs(NamedTuple):
  """Seconds."""

  wall: float
  cpu: float
  blocked: float
  """Wall time that the loop waits for `save` to return."""


def main(argv: Sequence[str]) -> None:
  del argv
  logging.set_verbosity(logging.FATAL)
  process.set_up()
  quickstart = configs.load(configs.experiment("quickstart"))
  pretraining = configs.load(configs.experiment("tiny_backbone"))
  cases = (
    Case("quickstart, 16 tasks", quickstart, 16),
    Case("2,000 tasks", quickstart, 2000),
    Case("pretraining", pretraining, 1),
  )
  rows = []
  for case in cases:
    with tempfile.TemporaryDirectory(dir=_FOLDER.value or None) as folder:
      rows.append(_measure(case, folder))
  about = results.about("saving")
  results.write(
    "saving",
    figures={**about, "rows": rows},
    markdown=_markdown(about, rows),
    out=_OUT.value,
  )


def _measure(case: Case, folder: str) -> dict[str, Any]:
  """One row of the table: medians over pairs of blocks."""
  made = training.make(case.config, tasks=case.tasks, seconds=SECONDS)
  trained, advance = made.state, made.advance
  checkpoints = Checkpoints(folder, keep=case.config.train.keep)
  position = 0

  def block(*, saves: bool) -> Costs:
    nonlocal trained, position
    wall, cpu, blocked = time.perf_counter(), time.process_time(), 0.0
    if saves:
      position += 1
      checkpoints.save(position, trained)
      blocked = time.perf_counter() - wall
    for _ in range(_STEPS.value):
      trained = advance(trained)
      checkpoints.check()
    jax.block_until_ready(trained)
    checkpoints.wait()
    return Costs(
      wall=time.perf_counter() - wall,
      cpu=time.process_time() - cpu,
      blocked=blocked,
    )

  for saves in (False, True, True):  # compiles, and opens what opens once
    block(saves=saves)
  without, with_save = [], []
  for index in range(_BLOCKS.value):
    order = (False, True) if index % 2 else (True, False)
    for saves in order:
      (with_save if saves else without).append(block(saves=saves))
  checkpoints.close()
  added = {
    field: statistics.median(
      getattr(one, field) - getattr(other, field)
      for one, other in zip(with_save, without, strict=True)
    )
    for field in Costs._fields
  }
  minute = 60.0
  return {
    "case": case.name,
    "leaves": len(jax.tree.leaves(trained)),
    "mebibytes": sum(x.nbytes for x in jax.tree.leaves(trained)) / 2**20,
    "step_seconds": statistics.median(each.wall for each in without)
    / _STEPS.value,
    **{f"{field}_seconds": value for field, value in added.items()},
    "wall_ratio": added["wall"] / minute,
    "cpu_ratio": added["cpu"]
    / (minute * statistics.median(each.cpu / each.wall for each in without)),
  }


def _markdown(about: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
  lines = [
    results.title(
      about,
      note=f"medians of {_BLOCKS.value} pairs of blocks of {_STEPS.value} steps.",
    ),
    "",
    "| state | MiB | leaves | step, s | a save adds: wall, s | CPU, s | of which "
    "the loop waits, s | one a minute: wall | CPU |",
    "|---|---|---|---|---|---|---|---|---|",
  ]
  lines += [
    f"| {row['case']} | {row['mebibytes']:.1f} | {row['leaves']} | "
    f"{row['step_seconds']:.3f} | {row['wall_seconds']:.3f} | "
    f"{row['cpu_seconds']:.3f} | {row['blocked_seconds']:.3f} | "
    f"{row['wall_ratio']:.2%} | {row['cpu_ratio']:.2%} |"
    for row in rows
  ]
  return "\n".join([*lines, ""])


if __name__ == "__main__":
  app.run(main)
