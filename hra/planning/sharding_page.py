"""Where each leaf of a run lies: path, shape, type, what divides it, bytes a device.

Of each axis of a leaf stand the mesh axes that divide it, or `-`; `whole` is a leaf
that every device has all of.
"""

from collections.abc import Iterable, Mapping

import jax
from jax.sharding import PartitionSpec

from hra.sharding import device_bytes

_HEAD = ("path", "shape", "type", "divided by", "bytes a device")


def text(
  leaves: Iterable[tuple[str, jax.ShapeDtypeStruct]], mesh: Mapping[str, int]
) -> str:
  """One line for each leaf, and a last one with their sum.

  Args:
    leaves: with shardings, by path.
    mesh: devices along each axis.
  """
  leaves = list(leaves)
  lines = [_HEAD, *(_line(path, leaf) for path, leaf in leaves)]
  total = sum(device_bytes(leaf) for _, leaf in leaves)
  named = " ".join(f"{axis}={size}" for axis, size in mesh.items())
  lines.append((f"all of it, on {named}", "", "", "", f"{total:,}"))
  *widths, last = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return "\n".join(
    "  ".join([*map(str.ljust, cells, widths), number.rjust(last)])
    for *cells, number in lines
  )


def _line(path: str, leaf: jax.ShapeDtypeStruct) -> tuple[str, ...]:
  shape = "x".join(map(str, leaf.shape)) or "one"
  spec = leaf.sharding.spec
  return path, shape, str(leaf.dtype), _told(spec), f"{device_bytes(leaf):,}"


def _told(spec: PartitionSpec) -> str:
  named = [
    "*".join(axes) if isinstance(axes, tuple) else axes or "-" for axes in spec
  ]
  return ", ".join(named) or "whole"
