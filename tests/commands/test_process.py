"""Where compiled programs are kept."""

import os

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from hra.commands import process
from hra.errors import InputError

_OPTIONS = (
  "jax_compilation_cache_dir",
  "jax_persistent_cache_enable_xla_caches",
  "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture
def settings():
  """JAX's settings of the cache, which a test may change."""
  before = {name: getattr(jax.config, name) for name in _OPTIONS}
  compilation_cache.reset_cache()
  yield
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def test_compiled_programs_may_be_in_a_bucket(bucket, settings):
  folder = bucket / "xla"
  jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
  process.use_compilation_cache()
  assert jax.config.jax_persistent_cache_enable_xla_caches == "none"
  least = "jax_persistent_cache_min_compile_time_secs"
  assert getattr(jax.config, least) == 0.5
  jax.config.update(least, 0)
  hits = []

  def listen(event, **_):
    hits.append(event)

  jax.monitoring.register_event_listener(listen)
  for _ in range(2):
    jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((3, 5))).block_until_ready()
  jax.monitoring.unregister_event_listener(listen)
  assert [path.name.endswith("-cache") for path in folder.iterdir()]
  assert "/jax/compilation_cache/cache_hits" in hits


def test_a_disk_keeps_the_smallest_programs(settings, tmp_path):
  jax.config.update("jax_compilation_cache_dir", os.fspath(tmp_path))
  process.use_compilation_cache()
  jax.jit(lambda x: x + 3)(jnp.ones(5)).block_until_ready()
  assert any("lambda" in path.name for path in tmp_path.iterdir())


def test_the_programs_own_cache_is_local(settings, monkeypatch):
  jax.config.update("jax_compilation_cache_dir", None)
  monkeypatch.setenv("HRA_CACHE", "gs://bucket/cache")
  with pytest.raises(InputError, match="JAX_COMPILATION_CACHE_DIR"):
    process.use_compilation_cache()
