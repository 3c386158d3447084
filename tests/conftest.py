"""What all tests share: a compilation cache, and one tiny shape (d16, 2 layers)."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

# Who starts tests in the background of a script may have switched Ctrl-C off, and
# nohup the end of the terminal, for their processes too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
  signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Compiling is what tests wait for, and this halves it; it changes how LLVM emits
# code, not what XLA computes.
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR",
  str(Path(tempfile.gettempdir()) / "hra-test-compilation-cache"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


@pytest.fixture
def float64():
  """64-bit numbers for one test: laws that float32 only approximates."""
  import jax

  with jax.enable_x64(True):
    yield
