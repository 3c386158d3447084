"""An environment -> whether this process is one of several, and how it finds them.

It is explicit (what `launch/` sets), or a scheduler's that JAX detects by itself.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from hra.errors import InputError

ADDRESS = "JAX_COORDINATOR_ADDRESS"
COUNT = "JAX_NUM_PROCESSES"
INDEX = "JAX_PROCESS_ID"
"""What is said explicitly; all three together."""

_POD_INDEX = "JOB_COMPLETION_INDEX"
"""Kubernetes' name for the index, in an indexed job."""


class Told(NamedTuple):
  """What the environment says explicitly."""

  address: str
  processes: int
  place: int

  @property
  def is_local(self) -> bool:
    """Whether all processes are on this machine."""
    return self.address.startswith(("127.", "localhost:"))


def are_expected(environment: Mapping[str, str]) -> bool:
  """Whether the environment says that this process is one of several."""
  explicit = told(environment)
  return explicit.processes > 1 if explicit else _in_cluster(environment)


def told(environment: Mapping[str, str]) -> Told | None:
  """What the environment says explicitly, if anything.

  Raises:
    InputError: a part is missing, or they contradict each other.
  """
  given = {
    name: environment[name]
    for name in (ADDRESS, COUNT, INDEX)
    if environment.get(name)
  }
  if not given:
    return None
  if given.keys() == {ADDRESS, COUNT} and environment.get(_POD_INDEX):
    given[INDEX] = environment[_POD_INDEX]
  for name in (COUNT, ADDRESS, INDEX):
    if name not in given and given.get(COUNT) != "1":
      raise InputError(
        f"${name}",
        expected=f"a value, as ${', $'.join(sorted(given))} has one",
        got="none",
        fix="set all three, or none",
      )
  count = _number(COUNT, given[COUNT], least=1)
  if count == 1:
    return Told("", 1, 0)
  index = _number(INDEX, given[INDEX], least=0)
  if index >= count:
    raise InputError(
      f"${INDEX}",
      expected=f"0 to {count - 1}, as ${COUNT} is {count}",
      got=str(index),
    )
  address = given[ADDRESS]
  port = address.rpartition(":")[2]
  if not port.isdigit() or int(port) >= 2**16:
    raise InputError(
      f"${ADDRESS}", expected="HOST:PORT of the first process", got=address
    )
  return Told(address, count, index)


def _number(name: str, text: str, *, least: int) -> int:
  if not text.isdigit() or int(text) < least:
    raise InputError(
      f"${name}", expected=f"a whole number from {least} on", got=repr(text)
    )
  return int(text)


def _in_cluster(environment: Mapping[str, str]) -> bool:
  """Whether a scheduler that JAX detects has started several processes."""
  if all(
    environment.get(name)
    for name in ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID")
  ):
    # Of a shell in an allocation: the step is the shell alone.
    step = environment.get("SLURM_STEP_NUM_TASKS")
    return int(step or environment.get("SLURM_NTASKS", "1")) > 1
  if environment.get("OMPI_MCA_orte_hnp_uri"):
    return int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) > 1
  return _on_tpu(environment)


def _on_tpu(environment: Mapping[str, str]) -> bool:
  """Whether this is a host of a TPU slice: of a single one, JAX knows that too."""
  platforms = environment.get("JAX_PLATFORMS", "")
  if platforms and "tpu" not in platforms.split(","):
    return False
  hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get(
    "TPU_WORKER_HOSTNAMES"
  )
  if hosts:
    slices = int(environment.get("MEGASCALE_NUM_SLICES") or "1")
    return len(hosts.split(",")) * slices > 1
  from jax._src.cloud_tpu_init import running_in_cloud_tpu_vm

  there = any(map(os.path.exists, ("/dev/accel0", "/dev/vfio/0")))
  return running_in_cloud_tpu_vm and there


def seconds(environment: Mapping[str, str], name: str, default: int) -> int:
  """A time of that name, a whole number from 1 on.

  Raises:
    InputError: it is something else.
  """
  text = environment.get(name)
  return _number(name, text, least=1) if text else default
