"""`--device=cpu|gpu`: where everything of a benchmark runs."""

import jax
from absl import flags

from hra.errors import InputError


def define_device() -> None:
  """Defines `--device`."""
  flags.DEFINE_enum(
    "device", "", ["", "cpu", "gpu"], "By default what JAX finds."
  )


def choose() -> None:
  """Makes JAX use the device that the flag names; before it computes anything.

  Raises:
    InputError: it isn't there.
  """
  asked = flags.FLAGS.device
  if not asked:
    return
  jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda,cpu"}[asked])
  try:
    found = jax.default_backend()
  except RuntimeError as error:
    raise InputError(
      f"--device={asked}",
      expected="a device that JAX finds",
      got=str(error).partition("\n")[0],
    ) from error
  if found != asked:
    raise InputError(f"--device={asked}", expected=asked, got=found)
