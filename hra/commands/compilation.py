"""Where compiled programs are kept between runs."""

import os

from etils import epath


def use_cache() -> None:
  """Turns XLA's persistent compilation cache on, unless the user has set it.

  $HRA_CACHE, or hra/xla under $XDG_CACHE_HOME or ~/.cache.
  """
  import jax  # a leaf: slow to import

  if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.environ.get("HRA_CACHE") or f"{base}/hra/xla"
    jax.config.update(
      "jax_compilation_cache_dir", str(epath.Path(folder).expanduser())
    )
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
