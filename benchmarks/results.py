"""How a benchmark says what it found: JSON for programs, Markdown for people.

Enters: figures. Leaves: `NAME.json` and `NAME.md`, with date and hardware.
"""

import datetime
import os
import platform
from collections.abc import Mapping
from typing import Any

import jax
from absl import flags
from etils import epath

from hra.files import write_aside, write_json


def define_out() -> flags.FlagHolder[str]:
  """Defines `--out`, the folder of both files."""
  return flags.DEFINE_string("out", "docs", "Where the table goes.")


def about(name: str) -> dict[str, str]:
  """What made the figures of the benchmark `name`, on what, and when."""
  device = jax.devices()[0]
  accelerator = "" if device.platform == "cpu" else f", {device.device_kind}"
  return {
    "command": f"python benchmarks/{name}.py",
    "date": datetime.date.today().isoformat(),
    "hardware": f"{os.cpu_count()} cores, {platform.machine()}{accelerator}",
    "versions": f"Python {platform.python_version()}, jax {jax.__version__}",
  }


def title(told: Mapping[str, str], *, note: str) -> str:
  """The line above a table."""
  parts = (told["command"], told["date"], told["hardware"], told["versions"])
  command, *rest = parts
  return f"`{command}`, {', '.join(rest)}; {note}"


def write(
  name: str,
  *,
  figures: Mapping[str, Any],
  markdown: str,
  out: epath.PathLike,
) -> None:
  """Writes both files into the folder `out`, and prints the table."""
  out = epath.Path(out)
  out.mkdir(parents=True, exist_ok=True)
  write_json(out / f"{name}.json", figures)
  write_aside(out / f"{name}.md", markdown.encode())
  print(markdown)
