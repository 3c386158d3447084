"""`v5e:16x16`, `2*v4:4x4x8`, `gpu:8` -> chips, hosts, and what Kubernetes calls them.

A slice of TPUs is divided over hosts by its maker; GPUs are counted on each host.
"""

import math
import re
from typing import NamedTuple

from hra.config_tree import nearest
from hra.errors import InputError

_CHIPS_PER_HOST = 4
_CUBE = 4
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")


class _Kind(NamedTuple):
  node_label: str
  """Of `cloud.google.com/gke-tpu-accelerator`."""
  dimensions: int


KINDS = {
  "v4": _Kind("tpu-v4-podslice", 3),
  "v5e": _Kind("tpu-v5-lite-podslice", 2),
  "v5p": _Kind("tpu-v5p-slice", 3),
  "v6e": _Kind("tpu-v6e-slice", 2),
}


class Tpus(NamedTuple):
  """Slices of one topology."""

  kind: str
  topology: str
  """Such as `16x16`."""
  slices: int = 1

  @property
  def chips(self) -> int:
    """Of one slice."""
    return math.prod(int(side) for side in self.topology.split("x"))

  @property
  def chips_per_host(self) -> int:
    return min(self.chips, _CHIPS_PER_HOST)

  @property
  def hosts(self) -> int:
    """Of one slice."""
    return self.chips // self.chips_per_host


class Gpus(NamedTuple):
  """GPUs of every host."""

  per_host: int


def parse(text: str) -> Tpus | Gpus | None:
  """What `--accelerator` says; None where it is empty: CPUs.

  Raises:
    InputError: no such kind, or no topology that is made of it.
  """
  if not text:
    return None
  slices, kind, size = _parts(text)
  if kind == "gpu" and not slices and re.fullmatch("[1-9][0-9]*", size):
    return Gpus(int(size))
  sides = size.split("x")
  if (
    kind not in KINDS
    or len(sides) != KINDS[kind].dimensions
    or not all(re.fullmatch("[1-9][0-9]*", side) for side in sides)
  ):
    raise _unreadable(text, kind)
  tpus = Tpus(kind, size, int(slices or 1))
  if not tpus.slices or not _is_made(tpus):
    raise _unreadable(text, kind)
  return tpus


def _is_made(tpus: Tpus) -> bool:
  """Large tori are made of cubes of 64 chips; smaller ones are parts of one."""
  if KINDS[tpus.kind].dimensions == 2:
    return tpus.topology in _FLAT
  sides = [int(side) for side in tpus.topology.split("x")]
  if tpus.chips >= _CUBE**3:
    return all(side % _CUBE == 0 for side in sides)
  return all(side in (1, 2, _CUBE) for side in sides)


def _parts(text: str) -> tuple[str, str, str]:
  found = re.fullmatch(r"(?:([0-9]+)\*)?([a-z0-9]+):([0-9x]+)", text)
  if found is None:
    raise _unreadable(text, text.split(":")[0].split("*")[-1])
  return found[1] or "", found[2], found[3]


def _unreadable(text: str, kind: str) -> InputError:
  kinds = ["gpu", *KINDS]
  example = {
    "gpu": "gpu:8 for eight GPUs a host",
    "v4": "v4:2x2x4",
    "v5e": "v5e:16x16",
    "v5p": "v5p:4x4x4",
    "v6e": "2*v6e:16x16 for two slices",
  }
  return InputError(
    "--accelerator",
    expected=f"KIND:SIZE with one of {', '.join(kinds)}",
    got=repr(text),
    fix=f"such as {example[nearest(kind, kinds)]}",
  )
