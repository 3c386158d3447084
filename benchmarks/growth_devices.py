"""The quickstart's step on simulated devices: what they send each other.

    python benchmarks/growth_devices.py DEVICES TASKS

Prints JSON. Nothing runs. A process of its own, as the number of devices is fixed when
JAX starts; benchmarks/growth.py starts it.
"""

import dataclasses
import json
import os
import sys
from typing import Any


def main(devices: int, tasks: int) -> None:
  flag = f"--xla_force_host_platform_device_count={devices}"
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
  os.environ["JAX_PLATFORMS"] = "cpu"
  print(json.dumps(sent(devices, tasks)))


def sent(devices: int, tasks: int) -> dict[str, Any]:
  """Of a step whose batch all devices divide: FLOPs and collectives of a device."""
  import jax  # after the flag

  from hra import hardware
  from hra.commands import configs
  from hra.config import MeshConfig
  from hra.planning import aot, outlines
  from hra.planning.topology import Topology

  config = configs.load(configs.experiment("quickstart"))
  config = dataclasses.replace(config, mesh=MeshConfig(data=devices))
  chips = Topology("simulated", hardware.CHIPS[0], jax.devices(), 1)
  compiled = aot.compile_step(
    config, outlines.of_config(config), chips, tasks=tasks, seconds=3.36
  )
  return {
    "devices": devices,
    "tasks": tasks,
    "flops": compiled.flops,
    "temporary_bytes": compiled.memory.temporaries,
    "sent": {kind: each._asdict() for kind, each in compiled.sent.items()},
  }


if __name__ == "__main__":
  main(*map(int, sys.argv[1:3]))
