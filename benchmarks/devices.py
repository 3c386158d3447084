"""Flags of benchmarks: where everything runs, and lists of sizes."""

from collections.abc import Sequence

import jax
from absl import flags


def define_device() -> None:
  """Defines `--device`."""
  flags.DEFINE_enum(
    "device", "", ["", "cpu", "gpu"], "By default what JAX finds."
  )


def choose() -> None:
  """Makes JAX use the device that the flag names, before it computes anything.

  Ends the program with a line where it isn't there.
  """
  asked = flags.FLAGS.device
  if not asked:
    return
  jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda,cpu"}[asked])
  try:
    found = jax.default_backend()
  except RuntimeError as error:
    found = str(error).partition("\n")[0]
  if found != asked:
    raise SystemExit(f"--device={asked}: expected such a device, got {found}")


def define_counts(name: str, default: Sequence[int], about: str) -> None:
  """Defines a list of positive whole numbers."""
  flags.DEFINE_list(name, list(map(str, default)), about)
  flags.register_validator(
    name,
    lambda given: bool(given) and all(n.isdecimal() and int(n) for n in given),
    message="takes positive whole numbers, with commas between them",
  )
