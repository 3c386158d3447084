"""`v5e:16x16` -> the chips of TPUs that aren't there, for XLA to compile for.

libtpu, which comes as a package, describes them and compiles; no TPU is asked.
"""

import importlib.util
import math
import os
import re
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from hra import hardware
from hra.errors import InputError
from hra.hardware import Chip

_NAME = re.compile(
  r"(?:(?P<slices>\d+)\*)?(?P<kind>\w+):(?P<shape>\d+(?:x\d+)*)"
)
_ONE_DEVICE_A_CHIP: dict[str, dict[str, Any]] = {
  "v4": {"chip_config_name": "megacore"}
}
"""What JAX sees on machines with such chips, where libtpu would describe cores."""
_ALONE = {
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # a plan beside a plan: neither has a TPU
  "TPU_SKIP_MDS_QUERY": "1",  # it would ask a cloud's machine about itself
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}


class Topology(NamedTuple):
  """Chips, one JAX device each."""

  name: str
  chip: Chip
  devices: list[Any]
  slices: int


def described(name: str) -> Topology:
  """The topology of a name such as `v4:4x4x8`, or `2*v5e:16x16` of two slices.

  Raises:
    InputError: libtpu isn't installed, or knows no such topology.
  """
  found = _NAME.fullmatch(name)
  if found is None:
    raise _unknown(name, "what can't be read")
  _check_libtpu()
  for variable, value in _ALONE.items():
    os.environ.setdefault(variable, value)
  kind, shape = found["kind"], found["shape"]
  slices = int(found["slices"] or 1)
  options = dict(_ONE_DEVICE_A_CHIP.get(kind, {}))
  if slices > 1:
    options["num_slices"] = slices
  sizes = [int(size) for size in shape.split("x")]
  if math.prod(sizes) == 1:
    options["chips_per_host_bounds"] = (1, 1, 1)
  try:
    devices: list[Any] = topologies.get_topology_desc(
      platform="tpu", topology_name=f"{kind}:{shape}", **options
    ).devices
  except jax.errors.JaxRuntimeError as error:
    raise _unknown(name, str(error).partition("\n")[0]) from error
  chip = hardware.of_kind(devices[0].device_kind)
  if chip is None or len(devices) != slices * math.prod(sizes):
    raise _unknown(name, f"{len(devices)} x {devices[0].device_kind}")
  return Topology(name, chip, devices, slices)


def _check_libtpu() -> None:
  if not (
    importlib.util.find_spec("libtpu") or os.environ.get("TPU_LIBRARY_PATH")
  ):
    raise InputError(
      "--topology",
      expected="libtpu, which compiles for TPUs that aren't here",
      got="it isn't installed",
      fix="pip install 'hra[tpu]'",
    )


def _unknown(name: str, got: str) -> InputError:
  return InputError(
    f"--topology={name}",
    expected="chips as libtpu knows them",
    got=got,
    fix="such as v5e:16x16, v4:4x4x8, v5p:4x4x4, v6e:16x16, or 2*v5e:16x16 for "
    "two slices",
  )
