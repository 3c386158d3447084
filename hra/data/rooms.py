"""Simulated rooms -> impulse responses.

Enters: ranges of sizes, of reverberation and of distances. Leaves: one response of
each room, from a talker to a microphone, by the image source method (Allen and
Berkley 1979) of pyroomacoustics (Scheibler et al. 2018). To simulate a room takes
0.1 to 2 s of CPU time: responses are made once (`hra.data.sounds`).
"""

import importlib.metadata
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from hra.config.sound import WALL, RoomsConfig, most_distant
from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.keys import host_rng


def version() -> str:
  """The installed release of the simulator.

  Raises:
    InputError: the package is missing.
  """
  try:
    return importlib.metadata.version("pyroomacoustics")
  except importlib.metadata.PackageNotFoundError as error:
    raise InputError(
      "config.data.multistyle.reverb 'rooms'",
      expected="the package pyroomacoustics",
      got="none installed",
      fix="run: pip install 'hra[rooms]'",
    ) from error


def responses(config: RoomsConfig) -> Iterator[np.ndarray]:
  """The response of each room, float32, cut `rt60` after its direct path.

  A room is a function of its number and the seed.

  Raises:
    InputError: the package `pyroomacoustics` is missing.
  """
  version()
  numbers = range(config.count)
  for number in tqdm(numbers, "simulating rooms", leave=False, disable=None):
    yield _response(config, host_rng(config.seed, "room", number))


def _response(config: RoomsConfig, rng: np.random.Generator) -> np.ndarray:
  """Walls take in the part of a sound by which Sabine's formula gives the RT60."""
  import pyroomacoustics  # optional: the rooms extra; slow to import

  # More threads add up in another order: the last bits would depend on them.
  pyroomacoustics.constants.set("num_threads", 1)
  size = rng.uniform(config.size_low, config.size_high)
  rt60 = rng.uniform(config.rt60_low, config.rt60_high)
  talker, microphone = _places(config, size, rng)
  absorption, order = pyroomacoustics.inverse_sabine(rt60, size)
  room = pyroomacoustics.ShoeBox(
    size,
    fs=SAMPLE_RATE,
    materials=pyroomacoustics.Material(absorption),
    max_order=order,
  )
  room.add_source(talker)
  room.add_microphone(microphone)
  room.compute_rir()
  response_R = np.asarray(room.rir[0][0], np.float32)
  direct = int(np.abs(response_R).argmax())
  return response_R[: direct + round(rt60 * SAMPLE_RATE)]


def _places(
  config: RoomsConfig, size: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Where a talker and a microphone are, uniform over where both fit."""
  farthest = min(config.distance_high, most_distant(size.tolist()))
  distance = rng.uniform(config.distance_low, farthest)
  while True:
    microphone = rng.uniform(WALL, size - WALL)
    direction = rng.standard_normal(3)
    talker = microphone + distance * direction / np.linalg.norm(direction)
    if (talker >= WALL).all() and (talker <= size - WALL).all():
      return talker, microphone
