"""The training step, compiled for chips that aren't there.

Enters: a configuration and a topology. Leaves: what XLA says the real step takes of
each chip: memory, FLOPs, and what chips send each other. The step, its shardings
and its batch are those of a job; only the arrays are shapes.
"""

import math
import re
import time
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from hra.config import Config
from hra.errors import InputError
from hra.features import specaugment
from hra.planning import hlo, links, scale
from hra.planning.links import Sent
from hra.planning.outlines import Outline
from hra.planning.parts import Parts, batch_of, terms_of
from hra.planning.topology import Topology
from hra.sharding import BATCH, make_mesh, placed_shapes, replicated
from hra.train.placement import batch_placement, jitted, laid_out
from hra.train.step import make_step

_TOO_LARGE = (
  r"\(([\d.]+[KMGT])\) exceeds available HBM \(([\d.]+[KMGT])\)",
  r"Used ([\d.]+[KMGT]) of ([\d.]+[KMGT]) hbm",
)


class Memory(NamedTuple):
  """Bytes of a chip."""

  arguments: int
  """What is kept, and the batch."""
  outputs: int
  """That take no argument's place."""
  temporaries: int
  program: int

  @property
  def total(self) -> int:
    return sum(self)


class Compiled(NamedTuple):
  """A step, of each chip."""

  topology: Topology
  memory: Memory
  """All zero where XLA found that the step doesn't fit."""
  refused: str
  """What XLA says of a step that doesn't fit; empty where it compiled."""
  flops: float
  sent: dict[str, Sent]
  """By kind of collective."""
  seconds: float
  """That compiling took."""
  text: str
  """The program."""

  @property
  def fits(self) -> bool:
    return (
      not self.refused and self.memory.total <= self.topology.chip.memory_bytes
    )

  @property
  def compute_seconds(self) -> float:
    """Of a step at the chip's peak rate."""
    return self.flops / self.topology.chip.bf16_flops_per_s

  @property
  def link_seconds(self) -> float:
    """Of a step's collectives, all links busy."""
    moved = sum(kind.bytes for kind in self.sent.values())
    return moved / self.topology.chip.link_bytes_per_s


def compile_step(
  config: Config,
  outline: Outline,
  topology: Topology,
  *,
  tasks: int | None = None,
  seconds: float | None = None,
) -> Compiled:
  """Compiles the step of the longest bucket, which takes minutes.

  Args:
    tasks: how many there are, in place of the data's.
    seconds: end of the longest length bucket, in place of the data's.

  Raises:
    InputError: the mesh isn't one of the topology's chips, or divides neither
      the batch nor a parameter.
  """
  mesh = make_mesh(config.mesh, topology.devices)
  lowered = _lowered(config, outline, mesh, tasks=tasks, seconds=seconds)
  began = time.monotonic()
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    nothing = Memory(0, 0, 0, 0)
    took = time.monotonic() - began
    return Compiled(topology, nothing, _refusal(str(error)), 0.0, {}, took, "")
  told: Any = compiled.memory_analysis()
  text = str(compiled.as_text())
  program = hlo.parse(text)
  return Compiled(
    topology=topology,
    memory=Memory(
      arguments=told.argument_size_in_bytes,
      outputs=told.output_size_in_bytes - told.alias_size_in_bytes,
      temporaries=told.temp_size_in_bytes,
      program=told.generated_code_size_in_bytes,
    ),
    refused="",
    flops=hlo.flops(program),
    sent=links.sent(program),
    seconds=time.monotonic() - began,
    text=text,
  )


def check_fits(compiled: Compiled, config: Config, outline: Outline) -> None:
  """Whether a step fits its chips.

  Raises:
    InputError: it doesn't; the line says what to change.
  """
  if compiled.fits:
    return
  chip = compiled.topology.chip
  raise InputError(
    f"--topology={compiled.topology.name}",
    expected=f"a step that fits the {chip.memory_bytes / 2**30:.0f} GiB of a "
    f"{chip.name}",
    got=compiled.refused or f"one of {compiled.memory.total / 2**30:.1f} GiB",
    fix=_what_to_change(config, outline),
  )


def _what_to_change(config: Config, outline: Outline) -> str:
  """Fields that make a step smaller and aren't at their smallest."""
  backbone, mesh = outline.config, config.mesh
  changes = []
  if backbone.remat != "full":
    changes.append("config.backbone.remat=full")
  if backbone.param_dtype == "float32":
    changes.append("config.backbone.param_dtype=bfloat16")
  if backbone.dtype == "float32":
    changes.append("config.backbone.dtype=bfloat16")
  if mesh.fsdp == 1:
    changes.append("a larger config.mesh.fsdp")
  if config.data.utterances_per_task > 1:
    changes.append("a smaller config.data.utterances_per_task")
  changes.append("a larger config.mesh.tensor, or more chips")
  return "try " + ", ".join(changes)


def _lowered(
  config: Config,
  outline: Outline,
  mesh: Mesh,
  *,
  tasks: int | None,
  seconds: float | None,
) -> jax.stages.Lowered:
  sizes = scale.of_config(
    config,
    outline,
    batch_parts=math.prod(mesh.shape[axis] for axis in BATCH),
    tasks=tasks,
    seconds=seconds,
  )
  made = Parts(config, outline, sizes)
  placement = batch_placement(mesh, axis=scale.split_axis(sizes))
  step = make_step(
    made.model,
    made.space,
    made.optimizers,
    policy=specaugment.chosen(config.augment),
    placement=placement,
  )
  state = laid_out(made.state, mesh, shard_rows=config.mesh.shard_rows)
  frozen = placed_shapes({"backbone": made.frozen}, mesh)["backbone"]
  terms = jax.eval_shape(lambda: terms_of(made))
  everywhere = jax.tree.map(lambda _: replicated(mesh), terms)
  return jitted(step, state, mesh).lower(
    state,
    frozen,
    _placed(batch_of(sizes), placement),
    _placed(terms, everywhere),
  )


def _placed(tree: Any, shardings: Any) -> Any:
  """Shapes, as they lie on the devices."""
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    tree,
    shardings,
  )


def _refusal(message: str) -> str:
  """XLA's own figures, if it says them: `20.4G of 15.75G`."""
  for form in _TOO_LARGE:
    found = re.search(form, message)
    if found:
      return f"{found[1]}iB where XLA has {found[2]}iB"
  return "more than there is, XLA says"
