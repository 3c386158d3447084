"""What JAX calls a device -> the chip."""

import pytest

from hra import hardware


@pytest.mark.parametrize(
  ("kind", "name"),
  [
    ("TPU v4", "TPU v4"),
    ("TPU v5 lite", "TPU v5e"),
    ("TPU v5", "TPU v5p"),
    ("TPU v6 lite", "TPU v6e"),
    ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
    ("NVIDIA H100 80GB HBM3", "H100"),
    ("NVIDIA H200", "H200"),
    ("NVIDIA L4", "L4"),
  ],
)
def test_a_device_is_the_chip_that_its_kind_says(kind, name):
  assert hardware.of_kind(kind).name == name


def test_a_device_that_is_not_known_is_none():
  assert hardware.of_kind("cpu") is None


def test_no_kind_is_two_chips():
  kinds = [kind for chip in hardware.CHIPS for kind in chip.kinds]
  assert len(kinds) == len(set(kinds))
