"""A plan -> what a person reads, and what a program does."""

from typing import Any

from hra.config import Config
from hra.dims import SAMPLE_RATE
from hra.evaluate.table import aligned
from hra.planning.aot import Compiled
from hra.planning.plan import Plan

_NAMES = {
  "shared": "shared by tasks",
  "shared optimizer": "  its optimizer",
  "rows": "rows of all tasks",
  "rows optimizer": "  their optimizers",
  "progress": "progress of tasks",
  "batch": "a batch",
}
_KEPT = ("backbone", *_NAMES)


def text(plan: Plan, config: Config, *, compiled: bool = False) -> str:
  """A table of what is exact, then what is estimated.

  Args:
    compiled: whether temporaries are those of a compiled step.
  """
  backbone = "backbone that trains" if _pretrains(config) else "frozen backbone"
  names = {"backbone": backbone, **_NAMES}
  rows = [("exact", "numbers", "bytes on a device")]
  rows += [
    (names[name], f"{plan.kept[name].numbers:,}", size(held))
    for name in _KEPT
    if (held := plan.kept[name].device_bytes)
  ]
  rows.append(("together", "", size(plan.kept_bytes)))
  told = plan.estimates
  how = "as compiled here" if compiled else "estimate"
  rows.append((how, "", ""))
  rows.append(("temporaries of a step", "", size(told.temporaries)))
  if told.gathered:
    rows.append(("a layer, gathered", "", size(told.gathered)))
  rows.append(("peak", "", size(told.peak)))
  return "\n".join(
    [
      *_about(plan, config),
      "",
      *aligned(rows),
      "",
      f"FLOPs of a step: {_flops(told.flops)}, on each device "
      f"{_flops(told.flops / plan.devices)}",
    ]
  )


def _about(plan: Plan, config: Config) -> list[str]:
  outline, scale = plan.outline, plan.scale
  backbone, adapter = outline.config, config.adapter
  axes = ", ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
  return [
    f"{outline.name}: {plan.parameters:,} parameters in {backbone.layers} layers "
    f"of {backbone.width}, {backbone.param_dtype}"
    f"{' and int8' if backbone.weights == 'int8' else ''}; "
    f"computes in {backbone.dtype}, rematerialisation {backbone.remat!r}",
    f"adapter {adapter.family!r}: {plan.kept['shared'].numbers:,} shared, "
    f"{plan.per_task:,} per task, {scale.tasks:,} task(s)",
    f"{plan.devices} device(s) ({axes}); a batch of {scale.places} x "
    f"{scale.utterances} recordings of up to "
    f"{scale.samples / SAMPLE_RATE:.1f} s",
  ]


def figures(
  plan: Plan, config: Config, *, compiled: bool = False
) -> dict[str, Any]:
  """For JSON; bytes and FLOPs as they are."""
  scale, told = plan.scale, plan.estimates
  return {
    "backbone": plan.outline.name,
    "adapter": config.adapter.family,
    "devices": plan.devices,
    "mesh": plan.mesh,
    "batch": {
      "tasks": scale.places,
      "utterances": scale.utterances,
      "seconds": scale.samples / SAMPLE_RATE,
      "labels": scale.labels,
    },
    "tasks": scale.tasks,
    "parameters": {
      "backbone": plan.parameters,
      "shared": plan.kept["shared"].numbers,
      "per_task": plan.per_task,
    },
    "device_bytes": {
      name.replace(" ", "_"): plan.kept[name].device_bytes for name in _KEPT
    },
    "temporary_bytes": told.temporaries,
    "temporary_bytes_are": "compiled" if compiled else "estimated",
    "gathered_bytes": told.gathered,
    "peak_bytes": told.peak,
    "step_flops": told.flops,
    "step_flops_per_device": told.flops / plan.devices,
  }


def compiled_text(compiled: Compiled, plan: Plan) -> str:
  """What XLA says of a step on the chips of a topology."""
  topology = compiled.topology
  chip = topology.chip
  about = (
    f"compiled for {len(topology.devices)} x {chip.name} ({topology.name}) in "
    f"{compiled.seconds:.0f} s"
  )
  if compiled.refused:
    return f"{about}: does NOT fit: {compiled.refused}"
  memory = compiled.memory
  rows = [(about, "", "bytes on a chip")]
  rows += [(name, "", size(getattr(memory, name))) for name in memory._fields]
  verdict = "fits" if compiled.fits else "does NOT fit"
  rows.append(
    (f"together: {verdict} {size(chip.memory_bytes)}", "", size(memory.total))
  )
  rows.append(("collectives of a step", "times", "bytes that a chip sends"))
  rows += [
    (kind, f"{sent.times:,}", size(sent.bytes))
    for kind, sent in compiled.sent.items()
  ]
  traced = plan.estimates.flops / plan.devices
  return "\n".join(
    [
      *aligned(rows),
      "",
      f"FLOPs of a step on each chip: {_flops(compiled.flops)}, "
      f"{compiled.flops / traced:.2f} of its part of the traced step's",
      f"at peak rates, {compiled.compute_seconds:.3f} s of FLOPs and "
      f"{compiled.link_seconds:.3f} s of collectives: no step is faster than "
      "the longer of both",
    ]
  )


def compiled_figures(compiled: Compiled) -> dict[str, Any]:
  """For JSON."""
  topology, memory = compiled.topology, compiled.memory
  return {
    "topology": topology.name,
    "chip": topology.chip.name,
    "chip_memory_bytes": topology.chip.memory_bytes,
    "fits": compiled.fits,
    "refused": compiled.refused,
    "memory_bytes": {**memory._asdict(), "together": memory.total},
    "collectives": {
      kind: sent._asdict() for kind, sent in compiled.sent.items()
    },
    "flops_per_chip": compiled.flops,
    "compute_seconds": compiled.compute_seconds,
    "link_seconds": compiled.link_seconds,
    "compile_seconds": compiled.seconds,
  }


def size(count: float) -> str:
  """Bytes for people: 1.5 GiB."""
  units = ("B", "KiB", "MiB", "GiB", "TiB")
  power = 0
  while count >= 1024 and power < len(units) - 1:
    count, power = count / 1024, power + 1
  return f"{count:.{1 if power else 0}f} {units[power]}"


def _flops(count: float) -> str:
  for power, name in ((15, "P"), (12, "T"), (9, "G")):
    if count >= 10**power:
      return f"{count / 10**power:.3g} {name}FLOP"
  return f"{count / 10**6:.3g} MFLOP"


def _pretrains(config: Config) -> bool:
  return config.train.mode == "pretrain"
