"""Rules of noise and rooms."""

import math
from collections.abc import Iterator

from hra.config import (
  MultistyleConfig,
  RoomsConfig,
  SyntheticConfig,
)
from hra.config.sound import WALL, most_distant
from hra.config_rules.interface import Minima, Table, Told

MINIMA: Minima = {
  MultistyleConfig: {"noises": 1, "snr_deviation": 0.1},
  RoomsConfig: {"count": 1, "rt60_low": 0.05, "distance_low": 0.1, "seed": 0},
}


def _multistyle(config: MultistyleConfig) -> Iterator[Told]:
  for field in ("part", "reverb_probability"):
    yield field, 0 <= getattr(config, field) <= 1, "a part between 0 and 1"
  yield snr(config)
  yield (
    "snr_mean",
    config.snr != "gaussian"
    or config.snr_low <= config.snr_mean <= config.snr_high,
    f"between snr_low ({config.snr_low:g}) and snr_high ({config.snr_high:g})",
  )
  for field, user, needed in (
    ("noise_files", "noise", config.noise in ("files", "either")),
    ("responses", "reverb", config.reverb == "files"),
  ):
    yield (
      field,
      bool(getattr(config, field)) == needed,
      f"{'a folder or a manifest' if needed else 'nothing'} with {user} "
      f"{getattr(config, user)!r}",
    )
  yield (
    "reverb_probability",
    config.reverb_probability == 1 or config.noise != "none",
    "1 with noise 'none' (part says how many utterances are in a room)",
  )
  yield (
    "parts",
    config.active or not config.parts,
    "nothing without noise and reverb",
  )


_SABINE = 0.1611
"""24 ln 10 / (343 m/s)."""


def _rooms(config: RoomsConfig) -> Iterator[Told]:
  low, high = config.size_low, config.size_high
  for field in ("size_low", "size_high"):
    size = getattr(config, field)
    yield (
      field,
      len(size) == 3 and min(size) >= 3 * WALL,
      f"three lengths of at least {3 * WALL:g} m",
    )
  yield (
    "size_low",
    all(a <= b for a, b in zip(low, high, strict=True)),
    f"at most size_high ({', '.join(f'{edge:g}' for edge in high)})",
  )
  for name in ("rt60", "distance"):
    first, last = (getattr(config, f"{name}_{end}") for end in ("low", "high"))
    yield f"{name}_low", first <= last, f"at most {name}_high ({last:g})"
  # Walls that take in all sound: no room of that size is quieter.
  volume, (x, y, z) = math.prod(high), high
  shortest = _SABINE * volume / (2 * (x * y + y * z + x * z))
  yield (
    "rt60_low",
    config.rt60_low > shortest,
    f"more than the {shortest:.2f} s that the largest room has at least",
  )
  farthest = most_distant(low)
  yield (
    "distance_low",
    config.distance_low <= farthest,
    f"at most the {farthest:.2f} m that fit in the smallest room",
  )


def snr(config: MultistyleConfig | SyntheticConfig) -> Told:
  return (
    "snr_low",
    config.snr_low <= config.snr_high,
    f"at most snr_high ({config.snr_high:g})",
  )


RULES: Table = {
  MultistyleConfig: _multistyle,
  RoomsConfig: _rooms,
}
