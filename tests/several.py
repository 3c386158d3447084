"""Starts several processes of one job on loopback, and waits for their end."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

SECONDS = 300
"""After which a test has failed."""


class Ended(NamedTuple):
  code: int
  out: str
  err: str


def environment(
  index: int, count: int, *, port: int, devices: int = 1, **others: str
) -> dict[str, str]:
  """Of one process with simulated devices."""
  flags = [
    flag
    for flag in os.environ.get("XLA_FLAGS", "").split()
    if "device_count" not in flag
  ]
  flags.append(f"--xla_force_host_platform_device_count={devices}")
  return {
    **os.environ,
    "XLA_FLAGS": " ".join(flags),
    "JAX_PLATFORMS": "cpu",
    "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
    "JAX_NUM_PROCESSES": str(count),
    "JAX_PROCESS_ID": str(index),
    "HRA_HEARTBEAT_SECONDS": "20",
    **others,
  }


def free_port() -> int:
  with socket.socket() as asked:
    asked.bind(("127.0.0.1", 0))
    return asked.getsockname()[1]


def start(
  command: list[str], *, count: int = 2, devices: int = 1, **others: str
) -> list[subprocess.Popen]:
  """The processes of a job, the first first."""
  port = free_port()
  return [
    subprocess.Popen(
      [sys.executable, *command],
      env=environment(index, count, port=port, devices=devices, **others),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(count)
  ]


def ended(
  jobs: list[subprocess.Popen], *, seconds: int = SECONDS
) -> list[Ended]:
  """How they ended; who hasn't within the time is killed, and a failure."""
  try:
    told = [job.communicate(timeout=seconds) for job in jobs]
  finally:
    for job in jobs:
      job.kill()
      job.wait()
  return [
    Ended(job.returncode, *each) for job, each in zip(jobs, told, strict=True)
  ]


def worker(*arguments: str) -> list[str]:
  return [str(Path(__file__).with_name("processes") / "worker.py"), *arguments]
