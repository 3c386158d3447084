"""What a step costs as tasks in the table, layers, seconds and devices grow.

    python benchmarks/growth.py
    python benchmarks/growth.py --axes=rows --device=gpu --out=docs/h100

The quickstart's step (HRA on 8 tasks x 5 recordings of noise), one thing changed at a
time:

- *rows*: tasks in the table, 16 to 65,536, of which a batch has 8. The controller is 64
  wide, a quarter of the quickstart's, so that the largest table fits beside the others:
  its rows and moments are 3.2 GiB.
- *layers*: of a Conformer of random weights, 4 to 32, as wide as the bundled one.
- *seconds*: of each recording.
- *devices*: simulated, which divide the batch, and a table of 4,096 tasks at its own
  width: what is compiled is read, and nothing runs.

The sizes of an axis take turns in one process, in blocks of steps. FLOPs are of the traced
step, loops as often as they run. Writes docs/growth.json, docs/growth.md and
docs/growth.png.
"""

import dataclasses
import io
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import devices
import jax
import results
import tqdm
import training
from absl import app, flags, logging
from etils import epath
from timing import take_turns

from hra.commands import configs, process
from hra.config import Config
from hra.files import write_aside

SECONDS = 3.36
"""The end of the quickstart's middle length bucket."""
NARROW = 64
TASKS_OF_DEVICES = 4096
GOAL = "rows", 128, 16_384, 1.1
"""A step with so many rows costs at most so many times that with so few."""
SIZES = {
  "rows": (16, 128, 1024, 16_384, 65_536),
  "layers": (4, 8, 16, 32),
  "seconds": (1, 2, 4, 8, 16),
  "devices": (1, 2, 4, 8),
}
UNITS = {
  "rows": "tasks in the table",
  "layers": "layers",
  "seconds": "seconds of a recording",
  "devices": "devices",
}


def define_flags() -> None:
  """Only of the program: tests import this module too."""
  results.define_out()
  devices.define_device()
  flags.DEFINE_list("axes", list(SIZES), "What grows.")
  flags.register_validator(
    "axes",
    lambda given: bool(given) and set(given) <= set(SIZES),
    message=f"knows {', '.join(SIZES)}",
  )
  for axis, sizes in SIZES.items():
    devices.define_counts(axis, sizes, f"Sizes: {UNITS[axis]}.")
  flags.DEFINE_integer("blocks", 7, "Blocks of each size.", lower_bound=1)
  flags.DEFINE_integer("steps", 2, "Steps of a block.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
  del argv
  logging.set_verbosity(logging.FATAL)
  devices.choose()
  process.set_up()
  axes = {}
  for axis in flags.FLAGS.axes:
    sizes = [int(size) for size in flags.FLAGS[axis].value]
    axes[axis] = compiled(sizes) if axis == "devices" else timed(axis, sizes)
  about = results.about("growth")
  out = epath.Path(flags.FLAGS.out)
  results.write(
    "growth",
    figures={**about, "axes": axes},
    markdown=markdown(about, axes),
    out=out,
  )
  draw(out / "growth.png", axes)


def timed(axis: str, sizes: Sequence[int]) -> list[dict[str, Any]]:
  """Of each size: seconds, FLOPs, and bytes of a step."""
  # The largest first, while no other holds memory.
  made = {
    size: _MADE[axis](size)
    for size in tqdm.tqdm(sorted(sizes, reverse=True), f"compiling {axis}")
  }
  held = {
    size: sum(leaf.nbytes for leaf in jax.tree.leaves(case.state))
    for size, case in made.items()
  }
  runs = {size: training.advancing(made[size]) for size in sizes}
  times = take_turns(runs, blocks=flags.FLAGS.blocks, steps=flags.FLAGS.steps)
  return [
    {
      "size": size,
      "wall_seconds": times[size].wall,
      "wall_range": [min(times[size].walls), max(times[size].walls)],
      "cpu_seconds": times[size].cpu,
      "flops": made[size].model_flops(),
      "temporary_bytes": made[size].temporaries,
      "state_bytes": held[size],
    }
    for size in sizes
  ]


def quickstart(*, width: int | None = None) -> Config:
  """The quickstart's configuration."""
  config = configs.load(configs.experiment("quickstart"))
  if width is not None:
    config.adapter.width = width
  return config


def of_rows(rows: int) -> training.Training:
  config = quickstart(width=NARROW)
  return training.make(config, tasks=rows, seconds=SECONDS)


def of_layers(layers: int) -> training.Training:
  """A backbone as wide as the bundled one."""
  config = quickstart()
  bundled = training.bundled(config).module.config
  deep = dataclasses.replace(bundled, layers=layers)
  backbone = training.random_backbone(deep)
  tasks = config.data.tasks_per_batch
  return training.make(config, tasks=tasks, seconds=SECONDS, backbone=backbone)


def of_seconds(seconds: int) -> training.Training:
  config = quickstart()
  tasks = config.data.tasks_per_batch
  return training.make(config, tasks=tasks, seconds=seconds)


_MADE: Mapping[str, Callable[[int], training.Training]] = {
  "rows": of_rows,
  "layers": of_layers,
  "seconds": of_seconds,
}


def compiled(sizes: Sequence[int]) -> list[dict[str, Any]]:
  """What devices send each other, by their number."""
  worker = Path(__file__).parent / "growth_devices.py"
  found = []
  for size in tqdm.tqdm(sizes, "compiling devices"):
    command = [sys.executable, str(worker), str(size), str(TASKS_OF_DEVICES)]
    done = subprocess.run(
      command, check=True, stdout=subprocess.PIPE, text=True
    )
    found.append(json.loads(done.stdout.splitlines()[-1]))
  return found


def markdown(
  about: Mapping[str, str], axes: Mapping[str, Sequence[Mapping[str, Any]]]
) -> str:
  """The page."""
  given = flags.FLAGS
  lines = [
    "# A step as things grow",
    "",
    results.title(
      about, note=f"medians of {given.blocks} blocks of {given.steps} steps."
    ),
  ]
  for axis, table in axes.items():
    if axis == "devices":
      lines += ["", *_sent(table)]
      continue
    lines += ["", *_table(axis, table)]
    if axis == GOAL[0]:
      lines += goal(table)
  return "\n".join([*lines, ""])


def _table(axis: str, table: Sequence[Mapping[str, Any]]) -> list[str]:
  first = table[0]
  lines = [
    f"| {UNITS[axis]} | wall, s | CPU, s | GFLOP | temporaries, MiB | state, MiB | "
    "wall / first | CPU / first | FLOPs / first |",
    "|---|---|---|---|---|---|---|---|---|",
  ]
  for row in table:
    ratios = " | ".join(
      f"{row[field] / first[field]:.3f}"
      for field in ("wall_seconds", "cpu_seconds", "flops")
    )
    lines.append(
      f"| {row['size']:,} | {row['wall_seconds']:.4f} | {row['cpu_seconds']:.4f} | "
      f"{row['flops'] / 1e9:.2f} | {row['temporary_bytes'] / 2**20:.0f} | "
      f"{row['state_bytes'] / 2**20:.0f} | {ratios} |"
    )
  return lines


def goal(table: Sequence[Mapping[str, Any]]) -> list[str]:
  """Whether the step is flat, where both sizes were measured."""
  _, few, many, most = GOAL
  seconds = {row["size"]: row["wall_seconds"] for row in table}
  if not {few, many} <= seconds.keys():
    return []
  ratio = seconds[many] / seconds[few]
  met = "met" if ratio <= most else "**not** met"
  return [
    "",
    f"{many:,} rows cost {ratio:.3f} of {few:,}; the goal, {most:g}, is {met}.",
  ]


def _sent(table: Sequence[Mapping[str, Any]]) -> list[str]:
  lines = [
    f"Of each simulated device, {table[0]['tasks']:,} tasks in the table:",
    "",
    "| devices | GFLOP | temporaries, MiB | collectives of a step: times, KiB sent |",
    "|---|---|---|---|",
  ]
  for row in table:
    kinds = ", ".join(
      f"{kind} {each['times']}, {each['bytes'] / 2**10:.0f}"
      for kind, each in row["sent"].items()
    )
    lines.append(
      f"| {row['devices']} | {row['flops'] / 1e9:.2f} | "
      f"{row['temporary_bytes'] / 2**20:.0f} | {kinds or 'none'} |"
    )
  return lines


def draw(
  path: epath.PathLike, axes: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
  """Seconds of a step, a panel for each axis that was timed."""
  shown = {axis: table for axis, table in axes.items() if axis != "devices"}
  if not shown:
    return
  import matplotlib.figure  # a leaf: slow to import

  figure = matplotlib.figure.Figure(
    figsize=(3.2 * len(shown), 3), dpi=150, layout="constrained"
  )
  panels = figure.subplots(1, len(shown), squeeze=False)[0]
  for panel, (axis, table) in zip(panels, shown.items(), strict=True):
    sizes = [row["size"] for row in table]
    for field, style in (("wall_seconds", "o-"), ("cpu_seconds", "s:")):
      label = field.partition("_")[0]
      panel.plot(sizes, [row[field] for row in table], style, label=label)
    panel.set_xscale("log", base=2)
    panel.set_ylim(bottom=0)
    panel.set_xlabel(UNITS[axis])
  panels[0].set_ylabel("seconds of a step")
  panels[0].legend(frameon=False)
  content = io.BytesIO()
  figure.savefig(content, format="png", metadata={"Software": None})
  write_aside(path, content.getvalue())


if __name__ == "__main__":
  define_flags()
  app.run(main)
