"""Simulated rooms: functions of their number, as loud for as long as asked."""

import dataclasses

import numpy as np
import pytest

from hra.config.sound import WALL, RoomsConfig, most_distant
from hra.data import rooms
from hra.data.perturb import direct_path
from hra.errors import InputError
from hra.keys import host_rng

SMALL = RoomsConfig(
  count=4,
  size_low=(3.0, 2.5, 2.4),
  size_high=(4.0, 3.0, 2.6),
  rt60_low=0.1,
  rt60_high=0.2,
  distance_low=0.5,
  distance_high=1.2,
)


def test_a_missing_simulator_names_the_extra(monkeypatch):
  def missing(_):
    raise rooms.importlib.metadata.PackageNotFoundError

  monkeypatch.setattr(rooms.importlib.metadata, "version", missing)
  with pytest.raises(InputError, match=r"pip install 'hra\[rooms\]'"):
    next(rooms.responses(SMALL))


def test_talker_and_microphone_keep_their_distance_from_walls_and_each_other():
  config = RoomsConfig(distance_low=0.3, distance_high=4.0)
  distances = []
  for number in range(400):
    rng = host_rng(0, number)
    size = rng.uniform(config.size_low, config.size_high)
    places = rooms._places(config, size, rng)
    for place in places:
      assert (place >= WALL).all()
      assert (place <= size - WALL).all()
    distance = np.linalg.norm(places[0] - places[1])
    most = min(4.0, most_distant(size.tolist()))
    assert 0.3 <= distance <= most + 1e-9
    distances.append((distance - 0.3) / (most - 0.3))
  assert np.mean(distances) == pytest.approx(0.5, abs=0.06)


@pytest.fixture(scope="module")
def responses():
  pytest.importorskip("pyroomacoustics")
  return list(rooms.responses(SMALL))


def test_a_room_is_a_function_of_its_number(responses):
  import pyroomacoustics

  pyroomacoustics.constants.set("num_threads", 3)
  fewer = rooms.responses(dataclasses.replace(SMALL, count=2))
  for first, again in zip(responses, fewer, strict=False):
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32
  (other,) = rooms.responses(dataclasses.replace(SMALL, count=1, seed=1))
  assert not np.array_equal(other, responses[0])


def test_sound_arrives_by_the_distance_and_dies_away_by_the_rt60(responses):
  for number, response_R in enumerate(responses):
    rng = host_rng(SMALL.seed, "room", number)
    size = rng.uniform(SMALL.size_low, SMALL.size_high)
    rt60 = rng.uniform(SMALL.rt60_low, SMALL.rt60_high)
    talker, microphone = rooms._places(SMALL, size, rng)
    distance = np.linalg.norm(talker - microphone)
    # 40 samples are half of the simulator's fractional delay.
    arrival = 40 + distance / 343.0 * 16_000
    direct = direct_path(response_R)
    assert direct == pytest.approx(arrival, abs=1.0)
    assert len(response_R) <= direct + round(rt60 * 16_000)
    left = np.cumsum(np.square(response_R[::-1].astype(np.float64)))[::-1]
    decay = 10 * np.log10(left[direct:] / left[direct])
    first, last = (int((decay < level).argmax()) for level in (-5, -25))
    measured = 3 * (last - first) / 16_000
    assert measured == pytest.approx(rt60, rel=0.6)
