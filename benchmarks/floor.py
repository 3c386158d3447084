"""A step beside the least that this machine could do it in, and where it goes.

    python benchmarks/floor.py --workdir=runs/floor

- *rates*: the fastest product of square matrices in the step's type, and the fastest
  copy of a large array, both by JAX, by as many threads as it takes.
- *floor*: of a program as XLA compiled it, the FLOPs at that rate or the bytes that its
  instructions read and write (loops as often as they run) at the other, whichever takes
  longer. Caches can beat the bytes; no program of the same products beats the FLOPs.
- *parts*: what a step takes beyond a program without the part (`floor_parts`), medians
  of programs that take turns. *Data* is what the host does for a batch of the
  quickstart, beside the step.

On CPUs: programs of GPUs call libraries, whose FLOPs their text doesn't tell; steps.py
says what share of a card's peak a step reaches.

The quickstart's step on its middle length, and one of a Conformer of 10M parameters.
Writes docs/floor.json and docs/floor.md.
"""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import devices
import floor_parts
import rates
import results
import speakers
import tqdm
import training
from absl import app, flags, logging
from etils import epath
from floor_parts import Part
from timing import Times, take_turns

from hra import jobs, run
from hra.commands import configs, process
from hra.config import AdapterConfig, BackboneConfig, Config

SHOWN = ("forward", "gradients", "step")
SECONDS = {"quickstart": 3.36, "conformer": 4.0}
"""The end of the quickstart's middle length bucket; what steps.py hears."""


def define_flags() -> None:
  """Only of the program: tests import this module too."""
  results.define_out()
  flags.DEFINE_string("workdir", "runs/floor", "Where data are made.")
  flags.DEFINE_list("cases", list(SECONDS), "Of quickstart and conformer.")
  flags.register_validator(
    "cases",
    lambda given: set(given) <= set(SECONDS),
    message=f"knows {', '.join(SECONDS)}",
  )
  flags.DEFINE_integer("blocks", 7, "Blocks of each program.")
  flags.DEFINE_integer("steps", 2, "Runs of a block.")
  flags.DEFINE_integer("batches", 20, "Of data; 0 makes none.")
  devices.define_counts("sizes", (512, 1024, 2048), "Of matrices.")
  flags.DEFINE_integer("mebibytes", 256, "Of what is copied.")


def main(argv: Sequence[str]) -> None:
  del argv
  logging.set_verbosity(logging.FATAL)
  process.set_up()
  given = flags.FLAGS
  measured = rates.measured(
    "float32",
    sizes=tuple(map(int, given.sizes)),
    mebibytes=given.mebibytes,
  )
  cases = {name: case(name, measured) for name in given.cases}
  data = host(epath.Path(given.workdir), batches=given.batches)
  about = results.about("floor") | {"threads": str(os.cpu_count())}
  figures = {
    **about,
    "rates": measured._asdict(),
    "cases": cases,
    "data": data,
  }
  results.write(
    "floor",
    figures=figures,
    markdown=markdown(about, figures),
    out=given.out,
  )


def case(name: str, measured: rates.Rates) -> dict[str, Any]:
  """Costs and seconds of a case's programs."""
  parts = tqdm.tqdm(total=2, desc=f"compiling {name}")
  config, backbone = chosen(name)
  tasks = config.data.tasks_per_batch
  given = {"tasks": tasks, "seconds": SECONDS[name], "backbone": backbone}
  made = training.make(config, **given)
  parts.update()
  width = made.learner.frozen.config.width
  bare = training.make(config, **given, adapter=floor_parts.Bias(width))
  found = floor_parts.programs(made, bare)
  found["step"] = floor_parts.costs(made.compiled, training.advancing(made))
  parts.update()
  parts.close()
  times = take_turns(
    {name: part.run for name, part in found.items()},
    blocks=flags.FLAGS.blocks,
    steps=flags.FLAGS.steps,
  )
  return told(found, times, measured)


def chosen(name: str) -> tuple[Config, training.Adaptee | None]:
  """A case's configuration, and its backbone unless that is the bundled one."""
  if name == "quickstart":
    return configs.load(configs.experiment("quickstart")), None
  backbone = BackboneConfig(
    width=144,
    layers=16,
    heads=4,
    feed_forward=576,
    kernel=31,
    vocabulary=1024,
  )
  config = Config(adapter=AdapterConfig(family="hra", width=36))
  config.data.tasks_per_batch, config.data.utterances_per_task = 8, 1
  return config, training.random_backbone(backbone)


def told(
  found: Mapping[str, Part],
  times: Mapping[str, Times],
  measured: rates.Rates,
) -> dict[str, Any]:
  """What is written of a case."""
  programs = {}
  for name, part in found.items():
    floor = floor_parts.floor_seconds(
      part.flops,
      part.bytes,
      flop_rate=measured.flops,
      byte_rate=measured.bytes,
    )
    programs[name] = {
      "flops": part.flops,
      "bytes": part.bytes,
      "floor_seconds": floor,
      "wall_seconds": times[name].wall,
      "wall_range": [min(times[name].walls), max(times[name].walls)],
      "cpu_seconds": times[name].cpu,
      "over_floor": times[name].wall / floor,
    }
  return {
    "programs": programs,
    "wall_parts": floor_parts.shares({n: t.wall for n, t in times.items()}),
    "cpu_parts": floor_parts.shares({n: t.cpu for n, t in times.items()}),
  }


def host(folder: epath.Path, *, batches: int) -> dict[str, float] | None:
  """Seconds of a batch of the quickstart, on the host alone."""
  if not batches:
    return None
  config = speakers.quickstart(folder)
  parts = run.assemble(config, folder / "run")
  loader = iter(jobs.make_loader(parts).batches(0))
  for _ in range(3):  # readers open their files
    next(loader)
  wall, cpu = time.perf_counter(), time.process_time()
  for _ in tqdm.trange(batches, desc="batches"):
    next(loader)
  return {
    "wall_seconds": (time.perf_counter() - wall) / batches,
    "cpu_seconds": (time.process_time() - cpu) / batches,
  }


def markdown(about: Mapping[str, str], figures: Mapping[str, Any]) -> str:
  """The page."""
  given = flags.FLAGS
  rate = figures["rates"]
  lines = [
    "# Against the floor",
    "",
    results.title(
      about, note=f"medians of {given.blocks} blocks of {given.steps} runs."
    ),
    "",
    f"Measured rates, float32: {rate['flops'] / 1e9:.0f} GFLOP/s (a product of "
    f"{rate['size']} x {rate['size']}), {rate['bytes'] / 1e9:.1f} GB/s copied.",
  ]
  for name, case in figures["cases"].items():
    lines += ["", f"## {name}", "", *_programs(case), "", *_parts(case)]
  if figures["data"]:
    data = figures["data"]
    lines += [
      "",
      f"A batch of the quickstart's data, beside the step: {_ms(data['wall_seconds'])} "
      f"ms, {_ms(data['cpu_seconds'])} of CPU time.",
    ]
  return "\n".join([*lines, ""])


def _programs(case: Mapping[str, Any]) -> list[str]:
  lines = [
    "| | GFLOP | MB | floor, ms | wall, ms | CPU, ms | wall / floor |",
    "|---|---|---|---|---|---|---|",
  ]
  for name in SHOWN:
    row = case["programs"][name]
    lines.append(
      f"| {name} | {row['flops'] / 1e9:.2f} | {row['bytes'] / 1e6:.0f} | "
      f"{_ms(row['floor_seconds'])} | {_ms(row['wall_seconds'])} | "
      f"{_ms(row['cpu_seconds'])} | {row['over_floor']:.1f} |"
    )
  return lines


def _parts(case: Mapping[str, Any]) -> list[str]:
  lines = [
    "| part of a step | wall, ms | share | CPU, ms | share |",
    "|---|---|---|---|---|",
  ]
  wall, cpu = case["wall_parts"], case["cpu_parts"]
  for part in floor_parts.PARTS:
    lines.append(
      f"| {part} | {_ms(wall[part])} | {_share(wall, part)} | {_ms(cpu[part])} | "
      f"{_share(cpu, part)} |"
    )
  return lines


def _share(parts: Mapping[str, float], part: str) -> str:
  return f"{100 * parts[part] / sum(parts.values()):.1f}%"


def _ms(seconds: float) -> str:
  return f"{1e3 * seconds:.1f}"


if __name__ == "__main__":
  define_flags()
  app.run(main)
