"""The mesh, and one ordered table from parameter path to PartitionSpec.

Paths are those of the run's trees: `backbone/layers/attention/query/kernel`,
`rows/head/output/kernel`, `shared/adapter/controller/kernel`; an optimizer's
moments end in the path of what they belong to. The first pattern that is found in
a path gives its spec. Axes: `slice` and `data` split the batch's tasks (`slice` over
the slow network between slices of TPUs), `fsdp` splits the batch and the parameters,
`tensor` splits the inner widths. Where tasks own much, all axes split that by task.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import (
  AbstractMesh,
  AxisType,
  Mesh,
  NamedSharding,
  PartitionSpec,
)

from hra.config import MeshConfig
from hra.errors import InputError

P = PartitionSpec
Tree = Any

AXES = ("slice", "data", "fsdp", "tensor")
BATCH = ("slice", "data", "fsdp")
_FIELDS = {
  "slice": "slices",
  "data": "data",
  "fsdp": "fsdp",
  "tensor": "tensor",
}
"""An axis -> the field of `MeshConfig` that says how long it is."""


class Rule(NamedTuple):
  """One line of the table."""

  pattern: str
  """Of paths, as `re.search` finds it."""
  spec: PartitionSpec
  odd: Literal["refused", "whole"] = "refused"
  """What becomes of a size that axes don't divide."""


_ROWS = r"^(rows|rows_optimizer(?!/count$)|progress/best)(/|$)"
_INNER = P("fsdp", "tensor")
_WIDTH = P(None, ("fsdp", "tensor"))
RULES: tuple[Rule, ...] = (
  # First: a row of full fine-tuning holds paths of the backbone.
  Rule(_ROWS, P(AXES)),
  Rule(r"^(rows_optimizer/count|progress/.*)$", P()),
  Rule(
    r"backbone/(head/)?layers/.*(query|key|value|relative|up|gate|input|recurrent)/kernel$",
    P(None, "fsdp", "tensor"),
  ),
  Rule(
    r"backbone/(head/)?layers/.*(output|down)/kernel$",
    P(None, "tensor", "fsdp"),
  ),
  Rule(r"backbone/layers/.*depthwise/kernel$", P(None, None, "tensor")),
  Rule(
    r"backbone/(head/)?layers/.*(query|key|value|up|gate|input)/bias$",
    P(None, "tensor"),
  ),
  Rule(r"backbone/(head/)?layers/", P()),
  # Of any number of channels, mel bins and labels.
  Rule(r"backbone/subsampling/.*depthwise/kernel$", P()),
  Rule(
    r"backbone/subsampling/(first|second)/kernel$", P(None, *_INNER), "whole"
  ),
  Rule(r"backbone/head/attention/filters/kernel$", P()),
  Rule(r"backbone/(subsampling|head)/(.*/)?kernel$", _INNER, "whole"),
  Rule(r"backbone/(positions|head/.*embedding)$", _WIDTH, "whole"),
  Rule(r"backbone/(subsampling|norm|head)(/|$)", P()),
  Rule(r"^shared", P()),
  Rule(r"^(step|skipped_N)$", P()),
)
_LARGE = 2**28
"""Bytes of what tasks own, from which on `auto` divides it: 256 MiB."""


def make_mesh(
  config: MeshConfig, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """A mesh over all devices; one axis of -1 takes what the others leave.

  Raises:
    InputError: when the axes do not multiply to the number of devices, or there
      are other slices.
  """
  devices = list(devices or jax.devices())
  sizes = _sizes(config, len(devices))
  types = (AxisType.Auto,) * len(AXES)
  slices = {getattr(device, "slice_index", 0) for device in devices}
  if len(slices) == 1:
    return jax.make_mesh(sizes, AXES, axis_types=types, devices=devices)
  if len(slices) != sizes[0]:
    raise InputError(
      "config.mesh.slices",
      expected=f"{len(slices)}, as the devices are of so many slices",
      got=str(config.slices),
    )
  return Mesh(
    mesh_utils.create_hybrid_device_mesh(
      (1, *sizes[1:]),
      (sizes[0], *[1] * len(sizes[1:])),
      devices,
      allow_split_physical_axes=True,
    ),
    AXES,
    axis_types=types,
  )


def abstract_mesh(config: MeshConfig, *, devices: int) -> AbstractMesh:
  """The mesh over so many devices, none of which has to be there.

  Raises:
    InputError: as `make_mesh`.
  """
  return AbstractMesh(_sizes(config, devices), AXES)


def _sizes(config: MeshConfig, devices: int) -> tuple[int, ...]:
  asked = {field: getattr(config, field) for field in _FIELDS.values()}
  sizes = list(asked.values())
  fixed = math.prod(size for size in sizes if size != -1)
  if sizes.count(-1) == 1 and fixed > 0 and devices % fixed == 0:
    sizes[sizes.index(-1)] = devices // fixed
  if min(sizes) < 1 or math.prod(sizes) != devices:
    raise InputError(
      "config.mesh",
      expected=f"axes that multiply to {devices} devices",
      got=", ".join(f"{field}={size}" for field, size in asked.items()),
      fix="set one axis to -1 to let it take what is left",
    )
  return tuple(sizes)


def named_leaves(tree: Tree) -> Iterator[tuple[str, Any]]:
  """(path, leaf) of every leaf; the path's parts are joined by "/"."""
  for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    yield path_of(keys), leaf


def path_of(keys: tuple[Any, ...]) -> str:
  """A key path of `jax.tree_util` as `part/part`, without NNX's `.value`."""
  parts = [jax.tree_util.keystr((key,), simple=True) for key in keys]
  if parts and parts[-1] == "value":
    parts.pop()
  return "/".join(parts)


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `named_leaves` for trees of dicts."""
  tree: dict[str, Any] = {}
  for path, leaf in leaves.items():
    *parents, name = path.split("/")
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[name] = leaf
  return tree


def rule_of(path: str) -> Rule:
  """The first rule of the table that a path is found by.

  Raises:
    InputError: when no rule matches.
  """
  for rule in RULES:
    if re.search(rule.pattern, path):
      return rule
  raise InputError(
    f"hra.sharding.RULES: {path}",
    expected="a rule for every parameter",
    got="none that matches",
    fix="add one to the table",
  )


def spec_of(
  path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh
) -> PartitionSpec:
  """How a parameter is divided.

  Raises:
    InputError: no rule matches; an axis does not divide a size.
  """
  rule = rule_of(path)
  axes = []
  for place, (size, each) in enumerate(zip(shape, rule.spec, strict=False)):
    named = each if isinstance(each, tuple) else (each,) if each else ()
    while rule.odd == "whole" and size % _length(named, mesh):
      named = named[:-1]
    if size % _length(named, mesh):
      raise InputError(
        f"{path} of shape {shape}",
        expected=f"a size that mesh axis {' x '.join(named)} "
        f"({_length(named, mesh)}) divides",
        got=f"{size} (axis {place})",
        fix=f"change config.mesh.{_FIELDS[named[0]]} or the width",
      )
    axes.append(named[0] if len(named) == 1 else named or None)
  while axes and axes[-1] is None:
    axes.pop()
  return P(*axes)


def _length(axes: tuple[str, ...], mesh: Mesh | AbstractMesh) -> int:
  return math.prod(mesh.shape[axis] for axis in axes)


def is_row(path: str) -> bool:
  """Whether a leaf of a training state is [N, ...] and may lie divided."""
  return re.search(_ROWS, path) is not None


def divides_rows(state: Tree, mesh: Mesh | AbstractMesh, *, asked: str) -> bool:
  """Whether what tasks own lies divided over the devices of a mesh.

  Args:
    state: arrays or shapes of a training state.
    asked: `config.mesh.shard_rows`.
  """
  if asked == "auto":
    rows = [leaf for path, leaf in named_leaves(state) if is_row(path)]
    large = sum(leaf.size * leaf.dtype.itemsize for leaf in rows) >= _LARGE
    return large and mesh.size > 1
  return asked == "always" and mesh.size > 1


def shardings(
  trees: Mapping[str, Tree],
  mesh: Mesh | AbstractMesh,
  *,
  divided_rows: bool = False,
) -> dict[str, Tree]:
  """NamedShardings of several named trees, each leaf by the table.

  Args:
    trees: arrays or shapes; a tree's name begins its leaves' paths, and the
      name "" adds nothing.
    divided_rows: whether what tasks own is divided, as the table says; else
      every device has all of it.

  Raises:
    InputError: for a parameter without a rule, or an axis that does not divide
      a parameter.
  """

  def sharding(name: str, keys: tuple[Any, ...], leaf: Any) -> NamedSharding:
    path = "/".join(filter(None, (name, path_of(keys))))
    if is_row(path) and not divided_rows:
      return NamedSharding(mesh, P())
    return NamedSharding(mesh, spec_of(path, np.shape(leaf), mesh))

  return {
    name: jax.tree_util.tree_map_with_path(
      lambda keys, leaf, name=name: sharding(name, keys, leaf), tree
    )
    for name, tree in trees.items()
  }


def placed_shapes(
  trees: Mapping[str, Tree],
  mesh: Mesh | AbstractMesh,
  *,
  divided_rows: bool = False,
) -> dict[str, Tree]:
  """Shapes and types with the shardings that `shardings` gives."""
  placed = shardings(trees, mesh, divided_rows=divided_rows)
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    dict(trees),
    placed,
  )


def device_bytes(leaf: jax.ShapeDtypeStruct | jax.Array) -> int:
  """Of what is placed, the bytes on each device."""
  shape = leaf.sharding.shard_shape(leaf.shape)
  return math.prod(shape) * leaf.dtype.itemsize


def batch_sharding(mesh: Mesh, *, axis: int) -> NamedSharding:
  """A batch split along `axis` (0: tasks; 1: utterances, when pooled)."""
  return NamedSharding(mesh, P(*[None] * axis, BATCH))


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, P())
