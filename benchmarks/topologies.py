"""What the step of two billion frozen parameters takes of TPUs that aren't here.

    PYTHONPATH=LIBTPU python benchmarks/topologies.py --workdir=runs/topologies

Each case is one `hra plan --topology`, minutes and two gigabytes of this machine; what
stands in the folder already isn't planned again. Writes docs/plan.json and
docs/plan.md.
"""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import results
from absl import app, flags
from etils import epath

from hra.files import read_json
from hra.planning.page import size

_OUT = results.define_out()
_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/topologies", "Where each case's figures are kept."
)

_CASES = flags.DEFINE_list("cases", None, "Which; all where none is named.")

CONFIG = "experiments/usm_2b_euphonia.py"
CASES = {
  "v5e_128": ("--topology=v5e:16x16", "--tasks=128"),
  "v5e_4096": ("--topology=v5e:16x16", "--tasks=4096"),
  "two_slices": (
    "--topology=2*v5e:16x16",
    "--tasks=4096",
    "--config.mesh.slices=2",
    "--config.data.tasks_per_batch=128",
  ),
  "v4_128": (
    "--topology=v4:2x2x4",
    "--tasks=128",
    "--config.data.tasks_per_batch=16",
  ),
}


def main(argv: Sequence[str]) -> None:
  del argv
  folder = epath.Path(_WORKDIR.value)
  folder.mkdir(parents=True, exist_ok=True)
  cases = {name: _planned(folder, name) for name in _CASES.value or CASES}
  about = results.about("topologies")
  results.write(
    "plan",
    figures={**about, "cases": cases},
    markdown=_markdown(about, cases),
    out=_OUT.value,
  )


def _planned(folder: epath.Path, name: str) -> dict[str, Any]:
  path = folder / f"{name}.json"
  if not path.exists():
    command = [
      *(sys.executable, "-m", "hra.commands.plan", f"--config={CONFIG}"),
      *CASES[name],
      f"--json={path}",
    ]
    subprocess.run(command, check=True)
  return read_json(path, keys=("compiled",))


def _markdown(about: dict[str, Any], cases: dict[str, dict[str, Any]]) -> str:
  parts = [
    "# The step of experiments/usm_2b_euphonia.py on TPUs",
    "",
    results.title(
      about,
      note=f"compiled by libtpu {version('libtpu')} on this machine, which has no TPU "
      "and other work to do.",
    ),
    "",
    "Largest batch: the longest bucket, 30 s. Nothing ran: bytes, FLOPs and "
    "collectives are those of XLA's program, each loop's body as often as it runs, "
    "and the seconds are what peak rates allow at best.",
  ]
  for name, case in cases.items():
    parts += ["", *_case(CASES[name], case)]
  return "\n".join([*parts, ""])


def _case(flags_: tuple[str, ...], case: dict[str, Any]) -> list[str]:
  told, memory = case["compiled"], case["compiled"]["memory_bytes"]
  axes = ", ".join(f"{axis} {size}" for axis, size in case["mesh"].items())
  batch = case["batch"]
  command = shlex.join(["hra", "plan", f"--config={CONFIG}", *flags_])
  traced = case["step_flops_per_device"]
  lines = [
    f"## {case['devices']} x {told['chip']}, {case['tasks']:,} tasks",
    "",
    f"`{command}`: mesh {axes}; {batch['tasks']} tasks x {batch['utterances']} "
    f"recordings. Compiled in {told['compile_seconds']:.0f} s.",
    "",
    "| of a chip | |",
    "|---|---|",
    *(f"| {part} | {size(count)} |" for part, count in memory.items()),
    f"| of {size(told['chip_memory_bytes'])} | "
    f"{'fits' if told['fits'] else 'does **not** fit'} |",
  ]
  lines += [
    f"| {kind}, {sent['times']:,} times | sends {size(sent['bytes'])} |"
    for kind, sent in told["collectives"].items()
  ]
  between = (
    "; those between slices are slower than is assumed here"
    if case["mesh"]["slice"] > 1
    else ""
  )
  return [
    *lines,
    f"| FLOPs | {told['flops_per_chip'] / 1e12:.1f} T, "
    f"{told['flops_per_chip'] / traced:.2f} of its part of the traced step |",
    f"| at best | {told['compute_seconds']:.3f} s of FLOPs, "
    f"{told['link_seconds']:.3f} s on links{between} |",
  ]


if __name__ == "__main__":
  app.run(main)
