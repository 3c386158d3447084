"""What a step costs as the table grows: 128, 1,024 and 16,384 rows, one batch.

    python benchmarks/tables.py

The quickstart's step (bundled backbone, HRA) on the same batch of 8 tasks x 5
recordings of noise. Blocks of steps of the sizes take turns in one process; wall and
CPU seconds are medians. Writes docs/tables.json and docs/tables.md.
"""

from collections.abc import Sequence
from typing import Any

import jax
import results
import training
from absl import app, flags, logging
from timing import take_turns

from hra.commands import configs, process

_OUT = results.define_out()
_ROWS = flags.DEFINE_list(
  "rows", ["128", "1024", "16384"], "Rows of the tables."
)
_BLOCKS = flags.DEFINE_integer("blocks", 15, "Blocks of each size.")
_STEPS = flags.DEFINE_integer("steps", 4, "Steps of a block.")

SECONDS = 3.36
"""The end of the quickstart's middle length bucket."""


def main(argv: Sequence[str]) -> None:
  del argv
  logging.set_verbosity(logging.FATAL)
  process.set_up()
  config = configs.load(configs.experiment("quickstart"))
  sizes = [int(rows) for rows in _ROWS.value]
  cases = {
    rows: training.make(config, tasks=rows, seconds=SECONDS) for rows in sizes
  }
  runs = {rows: training.advancing(case) for rows, case in cases.items()}
  held = {
    rows: sum(x.nbytes for x in jax.tree.leaves(case.state))
    for rows, case in cases.items()
  }
  times = take_turns(runs, blocks=_BLOCKS.value, steps=_STEPS.value)
  table = [
    {
      "rows": rows,
      "mebibytes": held[rows] / 2**20,
      "flops": cases[rows].flops,
      "wall_seconds": times[rows].wall,
      "cpu_seconds": times[rows].cpu,
    }
    for rows in sizes
  ]
  about = results.about("tables")
  results.write(
    "tables",
    figures={**about, "rows": table},
    markdown=_markdown(about, table),
    out=_OUT.value,
  )


def _markdown(about: dict[str, Any], table: Sequence[dict[str, Any]]) -> str:
  first = table[0]
  lines = [
    results.title(
      about, note=f"medians of {_BLOCKS.value} blocks of {_STEPS.value} steps."
    ),
    "",
    "| rows | table and moments, MiB | step: wall, s | CPU, s | wall / first | "
    "CPU / first | FLOPs / first |",
    "|---|---|---|---|---|---|---|",
  ]
  lines += [
    f"| {row['rows']:,} | {row['mebibytes']:.1f} | {row['wall_seconds']:.3f} | "
    f"{row['cpu_seconds']:.3f} | "
    + " | ".join(
      f"{row[field] / first[field]:.3f}"
      for field in ("wall_seconds", "cpu_seconds", "flops")
    )
    + " |"
    for row in table
  ]
  return "\n".join([*lines, ""])


if __name__ == "__main__":
  app.run(main)
