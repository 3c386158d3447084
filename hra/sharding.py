"""The mesh, and one ordered table from parameter path to PartitionSpec.

Paths are those of the run's trees: `backbone/layers/attention/query/kernel`,
`rows/head/output/kernel`, `shared/adapter/controller/kernel`; an optimizer's
moments end in the path of what they belong to. The first pattern that is found in
a path gives its spec. Axes: `data` splits the batch's tasks, `fsdp` splits the
batch and the parameters, `tensor` splits the inner widths.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
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

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")

RULES: tuple[tuple[str, PartitionSpec], ...] = (
  # First: a row of full fine-tuning holds paths of the backbone.
  (r"^(rows|progress/)", P()),
  (
    r"backbone/(head/)?layers/.*(query|key|value|relative|up|gate|input|recurrent)/kernel$",
    P(None, "fsdp", "tensor"),
  ),
  (
    r"backbone/(head/)?layers/.*(output|down)/kernel$",
    P(None, "tensor", "fsdp"),
  ),
  (r"backbone/layers/.*depthwise/kernel$", P(None, None, "tensor")),
  (
    r"backbone/(head/)?layers/.*(query|key|value|up|gate|input)/bias$",
    P(None, "tensor"),
  ),
  (r"backbone/layers/", P()),
  (r"backbone/head/labels/", P(None, "fsdp")),
  (r"backbone/(subsampling|norm|head|positions)(/|$)", P()),
  (r"^shared", P()),
  (r"^(step|skipped_N)$", P()),
)


def make_mesh(
  config: MeshConfig, devices: list[jax.Device] | None = None
) -> Mesh:
  """A mesh over all devices; one axis of -1 takes what the others leave.

  Raises:
    InputError: when the axes do not multiply to the number of devices.
  """
  devices = devices or jax.devices()
  return jax.make_mesh(
    _sizes(config, len(devices)),
    AXES,
    axis_types=(AxisType.Auto,) * 3,
    devices=devices,
  )


def abstract_mesh(config: MeshConfig, *, devices: int) -> AbstractMesh:
  """The mesh over so many devices, none of which has to be there.

  Raises:
    InputError: as `make_mesh`.
  """
  return AbstractMesh(_sizes(config, devices), AXES)


def _sizes(config: MeshConfig, devices: int) -> tuple[int, ...]:
  sizes = [getattr(config, axis) for axis in AXES]
  fixed = int(np.prod([size for size in sizes if size != -1]))
  if sizes.count(-1) == 1 and fixed > 0 and devices % fixed == 0:
    sizes[sizes.index(-1)] = devices // fixed
  if min(sizes) < 1 or int(np.prod(sizes)) != devices:
    raise InputError(
      "config.mesh",
      expected=f"axes that multiply to {devices} devices",
      got=", ".join(f"{axis}={getattr(config, axis)}" for axis in AXES),
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


def spec_of(path: str) -> PartitionSpec:
  """The spec that the table gives a path.

  Raises:
    InputError: when no rule matches.
  """
  for pattern, spec in RULES:
    if re.search(pattern, path):
      return spec
  raise InputError(
    f"hra.sharding.RULES: {path}",
    expected="a rule for every parameter",
    got="none that matches",
    fix="add one to the table",
  )


def shardings(
  trees: Mapping[str, Tree], mesh: Mesh | AbstractMesh
) -> dict[str, Tree]:
  """NamedShardings of several named trees, each leaf by the table.

  Args:
    trees: arrays or shapes; a tree's name begins its leaves' paths, and the
      name "" adds nothing.

  Raises:
    InputError: for a parameter without a rule, or an axis that does not divide
      a parameter.
  """

  def sharding(name: str, keys: tuple[Any, ...], leaf: Any) -> NamedSharding:
    path = "/".join(filter(None, (name, path_of(keys))))
    spec = spec_of(path)
    _check_divides(path, np.shape(leaf), spec, mesh)
    return NamedSharding(mesh, spec)

  return {
    name: jax.tree_util.tree_map_with_path(
      lambda keys, leaf, name=name: sharding(name, keys, leaf), tree
    )
    for name, tree in trees.items()
  }


def _check_divides(
  path: str,
  shape: tuple[int, ...],
  spec: PartitionSpec,
  mesh: Mesh | AbstractMesh,
) -> None:
  for size, axis in zip(shape, spec, strict=False):
    if axis is not None and size % mesh.shape[axis]:
      raise InputError(
        f"{path} of shape {shape}",
        expected=f"a size that mesh axis {axis} ({mesh.shape[axis]}) divides",
        got=str(size),
        fix=f"change config.mesh.{axis} or the width",
      )


def batch_sharding(mesh: Mesh, *, axis: int) -> NamedSharding:
  """A batch split along `axis` (0: tasks; 1: utterances, when pooled)."""
  return NamedSharding(mesh, P(*[None] * axis, BATCH))


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, P())
