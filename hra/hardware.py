"""What chips can do, as their makers say it.

Enters: the name that JAX gives a device. Leaves: its memory, its peak rate and its
bandwidths; None where the device isn't known, as a CPU isn't.
"""

from typing import NamedTuple


class Chip(NamedTuple):
  """One device of JAX."""

  name: str
  memory_bytes: int
  """Of a GPU: as `nvidia-smi` says it."""
  bf16_flops_per_s: float
  """Dense: without sparsity."""
  memory_bytes_per_s: float
  kinds: tuple[str, ...]
  """`device_kind` of JAX's devices."""
  link_bytes_per_s: float
  """What it sends to the other chips of a slice or machine, all links together."""


_MiB = 2**20
_GiB = 2**30

CHIPS: tuple[Chip, ...] = (
  Chip("TPU v4", 32 * _GiB, 275e12, 1228e9, ("TPU v4",), 300e9),
  Chip("TPU v5e", 16 * _GiB, 197e12, 819e9, ("TPU v5 lite", "TPU v5e"), 200e9),
  Chip("TPU v5p", 95 * _GiB, 459e12, 2765e9, ("TPU v5", "TPU v5p"), 600e9),
  Chip("TPU v6e", 32 * _GiB, 918e12, 1640e9, ("TPU v6 lite", "TPU v6e"), 448e9),
  Chip(
    "A100 40GB",
    40 * _GiB,
    312e12,
    1555e9,
    ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB", "A100-SXM4-40GB"),
    300e9,
  ),
  Chip(
    "A100 80GB",
    80 * _GiB,
    312e12,
    2039e9,
    ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe", "A100-SXM4-80GB"),
    300e9,
  ),
  Chip("H100", 81559 * _MiB, 989e12, 3350e9, ("NVIDIA H100 80GB HBM3",), 450e9),
  Chip("H100 PCIe", 81559 * _MiB, 756e12, 2000e9, ("NVIDIA H100 PCIe",), 300e9),
  Chip("H200", 143771 * _MiB, 989e12, 4800e9, ("NVIDIA H200",), 450e9),
  Chip("L4", 23034 * _MiB, 121e12, 300e9, ("NVIDIA L4",), 32e9),
)

_OF_KIND = {kind: chip for chip in CHIPS for kind in chip.kinds}


def of_kind(device_kind: str) -> Chip | None:
  """The chip that JAX calls so; None where none is known."""
  return _OF_KIND.get(device_kind)
