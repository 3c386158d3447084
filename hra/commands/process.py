"""How a process that computes is set up: kept memory, kept compiled programs."""

import ctypes
import os
import sys
from typing import Any

from hra import cluster, joining, processes
from hra.errors import InputError
from hra.files import cache_folder, is_remote

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
"""For XLA: no kernel whose sums have another order each time, and none that was
chosen by what was fastest a moment ago."""

_ARENA_MAX, _MMAP_MAX, _TOP_PAD, _TRIM_THRESHOLD = -8, -4, -2, -1
"""Options of glibc's mallopt."""


def set_up(*, several: bool = False, deterministic: bool = False) -> None:
  """Call it before JAX computes anything; joins the job that this process is of.

  Args:
    several: whether the command runs as several processes. Then the first alone
      prints.
    deterministic: whether GPUs compute the same bits each time; elsewhere they do
      anyhow.

  Raises:
    InputError: there are several, and the command is one for a single one; as
      `hra.joining.join`.
  """
  if deterministic:
    given = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{given} {DETERMINISTIC}".strip()
  if not several and cluster.are_expected(os.environ):
    raise InputError(
      "this process",
      expected="the only one, as only hra train and hra evaluate run on several",
      got="one of several",
      fix=f"run it once, without srun or with {cluster.COUNT}=1; on a host of a "
      "TPU slice with JAX_PLATFORMS=cpu",
    )
  joining.join()
  if not processes.is_first():
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  keep_memory()
  use_compilation_cache()


def keep_memory() -> None:
  """Lets glibc keep freed memory for the next step.

  XLA's CPU backend allocates its temporaries anew for each execution, and glibc
  gives blocks above 32 MiB back to the kernel at once: page faults were 40% of the
  CPU time of a training step of the tiny backbone (45,000 a step, now 9,000). On
  other C libraries this does nothing.
  """
  if not sys.platform.startswith("linux"):
    return
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt is not None:
    mallopt(_ARENA_MAX, 1)
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 2**26)


def use_compilation_cache() -> None:
  """Turns XLA's persistent compilation cache on; it may be in a bucket.

  On a disk it keeps the smallest programs too: a training begins with dozens of
  them, which took 1.7 CPU s of the quickstart's and 0.4 since they are kept.
  The folder is the user's, as JAX_COMPILATION_CACHE_DIR names it, or the program's.
  """
  import jax  # a leaf: slow to import

  settings: Any = jax.config
  folder = settings.jax_compilation_cache_dir
  least = 0.0
  if not folder:
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
  elif is_remote(folder):
    # Beside programs, XLA itself would write there, which knows local files alone.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    least = 0.5  # a bucket answers more slowly than that is compiled
  jax.config.update("jax_persistent_cache_min_compile_time_secs", least)
