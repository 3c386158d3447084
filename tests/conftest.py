"""What all tests share: a compilation cache, and a bucket of S3 in this process."""

import gc
import os
import signal
import tempfile
from pathlib import Path

import pytest
from etils import epath

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


_MAPS = Path("/proc/self/maps")
_MOST_MAPS = 30_000
"""Linux ends a process that asks for more than 65,530 of them."""


@pytest.fixture(autouse=True, scope="module")
def few_programs():
  """Lets compiled programs go, each of which holds a few maps of memory."""
  yield
  if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MOST_MAPS:
    import jax

    jax.clear_caches()
    gc.collect()


@pytest.fixture
def float64():
  """64-bit numbers for one test: laws that float32 only approximates."""
  import jax

  with jax.enable_x64(True):
    yield


@pytest.fixture(scope="session")
def s3_server():
  """The server, and the environment that points to it."""
  import s3fs
  from moto.server import ThreadedMotoServer

  server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
  server.start()
  host, port = server.get_host_and_port()
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem(anon=False).mkdir("speech")
    yield
  s3fs.S3FileSystem.clear_instance_cache()
  server.stop()


@pytest.fixture
def bucket(s3_server, tmp_path, monkeypatch):
  """A fresh folder of a bucket, and a fresh cache."""
  monkeypatch.setenv("HRA_CACHE", str(tmp_path / "cache"))
  return epath.Path(f"s3://speech/{tmp_path.name}")
