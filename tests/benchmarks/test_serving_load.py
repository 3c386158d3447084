"""What the load of a server is told to have found."""

import asyncio
import time

import fake_engine as fake
import live_server as live
import pytest
import serving_load


@pytest.fixture(scope="module")
def running():
  names = [serving_load.name(number) for number in range(3)]
  parts = live.service(
    fake.Engine(names), limits={"requests_per_minute": 0.0, "at_once": 0}
  )
  with live.serving(parts) as server:
    yield server


@pytest.mark.parametrize("at_once", [1, 4])
def test_answers_that_are_another_speakers_are_wrong(running, at_once):
  heard = serving_load.wave()
  expected = [
    fake.text_of(serving_load.name(number), heard) for number in range(3)
  ]
  expected[1] = expected[0]
  start = time.perf_counter()
  asked = asyncio.run(
    serving_load.ask(running.url, expected, requests=9, at_once=at_once)
  )
  assert [one.right for one in asked] == [True, False, True] * 3
  found = serving_load.told(asked, time.perf_counter() - start)
  assert found["requests"] == 9
  assert found["wrong"] == 3
  assert found["loading_p50_ms"] == pytest.approx(2.0)
  assert 0 < found["loading_share"] < 1
  assert found["p50_ms"] <= found["p99_ms"]
