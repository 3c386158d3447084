"""An environment -> this process as one of its job's, known to JAX and to the others."""

import os
import socket
import sys
import threading
from typing import Any, NoReturn

from hra import cluster, processes
from hra.errors import InputError

_JOIN_SECONDS = "HRA_JOIN_SECONDS", 300
_HEARTBEAT_SECONDS = "HRA_HEARTBEAT_SECONDS", 60
"""How long a process that says nothing is thought to live."""


def join() -> None:
  """Makes this process one of its job's; call it before JAX computes anything.

  By JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID where they are
  set; else as JAX itself detects Slurm, TPU pods and Open MPI. A second call does
  nothing.

  Ends the process, with a line and 1, where the others don't come in time or the
  coordinator can't be started or reached: the same may work a moment later.

  Raises:
    InputError: the environment contradicts itself.
  """
  import jax  # a leaf: slow to import

  if jax.distributed.is_initialized():
    processes.take_part()
    return
  if not cluster.are_expected(os.environ):
    return
  told = cluster.told(os.environ)
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  # It would take SIGTERM from Python, and knows nothing of Ctrl-C.
  jax.config.update("jax_enable_preemption_service", False)
  if told and told.place == 0:
    _check_free(told)
  seconds = cluster.seconds(os.environ, *_JOIN_SECONDS)
  where = told.address if told else "the cluster's coordinator"
  fewer = (
    f"{where}: expected all processes of the job within {seconds} s, got fewer; "
    "see that all run, with one address, their number and an index each"
  )
  late = threading.Timer(seconds, _end, (fewer,))
  late.daemon = True
  late.start()
  try:
    jax.distributed.initialize(**_options(told, seconds))
  except ValueError as error:
    raise InputError(
      where,
      expected="a job that this process may join",
      got=_one_line(error),
    ) from error
  except (RuntimeError, OSError) as error:
    _end(
      f"{where}: expected a coordinator there, got {_one_line(error)}; see that "
      "the address is the first process's"
    )
  finally:
    late.cancel()
  processes.take_part()


def _options(told: cluster.Told | None, seconds: int) -> dict[str, Any]:
  """JAX's, for a job that it is told of or has to detect."""
  heartbeat = cluster.seconds(os.environ, *_HEARTBEAT_SECONDS)
  options: dict[str, Any] = {
    "initialization_timeout": seconds + 60,  # where JAX aborts: we end before
    "heartbeat_timeout_seconds": heartbeat,
    "shutdown_timeout_seconds": heartbeat,
  }
  if told:
    options |= {
      "coordinator_address": told.address,
      "num_processes": told.processes,
      "process_id": told.place,
      "cluster_detection_method": "deactivate",
    }
    if told.is_local:
      options["coordinator_bind_address"] = told.address
  return options


def _check_free(told: cluster.Told) -> None:
  """Ends the process where another one has its port: JAX may crash there."""
  host, _, port = told.address.rpartition(":")
  with socket.socket() as tried:
    tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      tried.bind((host if told.is_local else "", int(port)))
    except OSError as error:
      _end(f"{told.address}: expected a free port, got {_one_line(error)}")


def _one_line(error: Exception) -> str:
  return " ".join(str(error).split())[:300]


def _end(message: str) -> NoReturn:
  """Ends this process in a way that is tried again."""
  print(f"hra: {message}", file=sys.stderr, flush=True)
  os._exit(1)
