"""What adapting.py measured -> its page. Nothing is measured here."""

from collections.abc import Mapping, Sequence
from typing import Any

import results
from adapting_ours import JOINT, Shape
from timing import median_ratio

_MIB = 2**20


def page(about: Mapping[str, Any], found: Mapping[str, Any]) -> str:
  lines = [
    "# A training step for all speakers",
    "",
    results.title(about, note=f"{about['setting']}."),
    "",
    "One step of every speaker's own LoRA, from waveforms to AdamW's update. `/ ours` "
    "is the median of each block's quotient by the block of the joint step beside it: "
    "above 1 we are ahead. `first` is the time until the contestant stands, for us "
    "with compilation.",
    "",
    "| speakers x recordings | | wall, s | range | CPU, s | wall / ours | CPU / ours "
    "| first, s | XLA's temporaries, MiB |",
    "|---|---|---|---|---|---|---|---|---|",
  ]
  for cell in found["cells"]:
    lines += _rows(cell)
  lines += ["", _gate(found["cells"]), "", *_memory(found["memory"]), ""]
  lines += _registered(found["registration"])
  return "\n".join([*lines, ""])


def _rows(cell: Mapping[str, Any]) -> list[str]:
  ours = cell["contestants"][JOINT]
  lines = []
  for name, row in cell["contestants"].items():
    walls, cpus = row["walls"], row["cpus"]
    temporaries = row["temporaries"]
    held = "" if temporaries is None else f"{temporaries / _MIB:,.0f}"
    lines.append(
      f"| {Shape(**cell['shape'])} | {name} | {_median(walls):.3f} | "
      f"{min(walls):.3f}-{max(walls):.3f} | {_median(cpus):.3f} | "
      f"{median_ratio(walls, ours['walls']):.2f} | "
      f"{median_ratio(cpus, ours['cpus']):.2f} | {row['first_seconds']:.1f} | "
      f"{held} |"
    )
  return lines


def _median(values: Sequence[float]) -> float:
  return median_ratio(values, [1.0] * len(values))


def _gate(cells: Sequence[Mapping[str, Any]]) -> str:
  """How near those were to each other that were timed."""
  loss, gradient = (
    max(
      each[what]
      for cell in cells
      for each in cell["gate"]["gradients"].values()
    )
    for what in ("loss", "gradient")
  )
  rows = max(cell["gate"]["joint steps"] for cell in cells)
  return (
    f"Before: losses were {loss:.1g} from PEFT's in 64 bits at most, gradients of the "
    f"LoRAs {gradient:.1g} of the largest number of each, torch's and ours, on the "
    f"same folders; rows after joint steps and after steps alone {rows:.1g} of their way."
  )


def _memory(found: Mapping[str, Any]) -> list[str]:
  lines = [
    f"Resident memory of a process that has one contestant only, of "
    f"{Shape(**found['shape'])}, in MiB:",
    "",
    "| | peak | of it imports |",
    "|---|---|---|",
  ]
  return lines + [
    f"| {name} | {row['peak'] / _MIB:,.0f} | {row['before'] / _MIB:,.0f} |"
    for name, row in found["contestants"].items()
  ]


def _registered(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
  lines = [
    "Registration of adapters of the same rows; PEFT's seconds grow with the adapters "
    "that are there, and a straight line through those that were timed says the rest:",
    "",
    "| | all, s | timed | the first, ms | the last, ms |",
    "|---|---|---|---|---|",
  ]
  return lines + [
    f"| {name} | {row['seconds']:,.2f} | {row['timed']:,} | "
    f"{1e3 * row['first']:.2f} | {1e3 * row['last']:.2f} |"
    for name, row in found.items()
  ]
