"""Samples that come in piece by piece, and what is heard of them meanwhile."""

import asyncio
import itertools

import fake_engine as fake
import live_server as live
import numpy as np
import pytest

from hra.config import StreamConfig
from hra.data import audio
from hra.errors import InputError
from hra.serve import interface
from hra.serve.http import errors
from hra.serve.http.held import Budget
from hra.serve.http.partials import tell_partials
from hra.serve.http.samples import Samples, quietest

CONFIG = StreamConfig(step_seconds=1.0, growth=0.25, window_seconds=8.0)


def _samples(encoding="pcm16", *, most=60.0, limit=1e9):
  return Samples(encoding, Budget(limit).hold(), most=most)


@pytest.mark.parametrize("encoding", ["pcm16", "float32"])
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_as_a_file_of_the_same_samples(tmp_path, encoding, size):
  wave = live.wave(0.1)
  (tmp_path / "wave.wav").write_bytes(live.wav(wave))
  data = wave.tobytes()
  if encoding == "pcm16":
    data = np.rint(wave * 2**15).astype("<i2").tobytes()
  samples = _samples(encoding)
  for start in range(0, len(data), size):
    samples.add(data[start : start + size])
  assert len(samples) == len(wave)
  np.testing.assert_array_equal(
    samples.whole(), audio.decode(tmp_path / "wave.wav")
  )


def test_floats_are_clipped_as_those_of_a_file():
  samples = _samples("float32")
  samples.add(np.array([0.5, 3, -3], "<f4").tobytes())
  assert samples.whole().tolist() == [0.5, 1.0, -1.0]


def test_bytes_are_counted_and_given_back():
  budget = Budget(1000)
  with budget.hold() as held:
    samples = Samples("pcm16", held, most=1)
    samples.add(b"\1\0" * 250)
    assert budget.held == 1000
    with pytest.raises(errors.Refusal, match="holds too much"):
      samples.add(b"\1\0")
  assert budget.held == 0


def test_no_more_than_may_be():
  samples = _samples(most=1.0)
  samples.add(b"\1\0" * 16_000)
  with pytest.raises(interface.TooLong, match="at most 1 s"):
    samples.add(b"\1\0")


def test_the_quietest_place():
  wave = np.ones(16_000, np.float32)
  wave[4_800:6_400] = 0.1
  assert 4_800 <= quietest(wave) < 6_400
  assert quietest(np.ones(16_000, np.float32)) == 16_000 - 800


def _told(wave, *, config=CONFIG, busy=lambda number: False):
  """What is told of a recording that comes in tenths of a second, and asked."""
  asked, told = [], []

  async def hear(request):
    asked.append(request)
    if busy(len(asked)):
      raise interface.Overloaded("q", expected="room", got="none")
    text = f"[{len(request.wave_S) / 16_000:g}]"
    return (
      fake.Engine()
      ._answered(request, False)
      .__class__(
        text=text,
        seconds=0,
        segments=[],
        words=None,
        receipt=None,
        spent=None,
      )
    )

  async def tell(text, seconds):
    told.append((seconds, text))

  async def run():
    samples = _samples("float32", most=1e6)
    request = interface.Request(None, "anna", guard=False)
    telling = asyncio.create_task(
      tell_partials(hear, tell, samples, request, config=config)
    )
    for start in range(0, len(wave), 1_600):
      samples.add(wave[start : start + 1_600].tobytes())
      for _ in range(3):
        await asyncio.sleep(0)
    telling.cancel()
    await asyncio.wait((telling,))

  asyncio.run(run())
  return asked, told


def test_partial_texts_grow_and_come_less_often():
  _, told = _told(live.wave(7.0))
  assert told == [
    (1.0, "[1]"),
    (2.0, "[2]"),
    (3.0, "[3]"),
    (4.0, "[4]"),
    (5.0, "[5]"),
    (6.3, "[6.3]"),
  ]


def test_a_window_is_cut_where_it_is_quiet():
  wave = live.wave(12.0)
  wave[112_000:113_600] = 0  # 7 s to 7.1 s
  asked, told = _told(wave)
  (cut,) = {text.split()[0] for _, text in told if " " in text}
  assert 7.0 <= float(cut[1:-1]) < 7.1
  assert [
    text for _, text in told if text == cut
  ] == []  # nothing is taken back
  assert told == sorted(told)
  assert all(request.task == "anna" for request in asked)
  assert not any(request.guard for request in asked)


def test_every_sample_is_in_one_window_that_stays():
  wave = live.wave(60.0)
  asked, told = _told(wave)
  kept = told[-1][1].split(" ")[:-1]
  seconds = sum(float(each[1:-1]) for each in kept)
  assert seconds == pytest.approx(
    told[-1][0] - len(asked[-1].wave_S) / 16_000, abs=1e-3
  )
  assert len(kept) >= 7


@pytest.mark.parametrize("growth", [0.25, 0.5])
def test_what_partial_texts_cost_is_bounded(growth):
  config = StreamConfig(step_seconds=1.0, growth=growth, window_seconds=8.0)
  asked, _ = _told(live.wave(80.0), config=config)
  heard = sum(len(request.wave_S) for request in asked) / 16_000
  assert heard < 80 * (1 + 1 / growth) / 0.75
  assert max(len(request.wave_S) for request in asked) <= 9 * 16_000


def test_after_a_busy_moment_more_is_waited_for():
  _, told = _told(live.wave(4.0), busy=lambda number: number == 2)
  assert [seconds for seconds, _ in told] == [1.0, 3.0, 4.0][: len(told)]
  assert told[1] == (3.0, "[3]")


def test_what_is_all_at_once_is_heard_in_windows():
  async def run():
    samples = _samples("float32", most=1e6)
    samples.add(live.wave(20.0).tobytes())
    stops = []

    async def hear(request):
      stops.append(len(request.wave_S))
      return fake.Engine()._answered(request, False)

    async def tell(text, seconds):
      del text, seconds

    with pytest.raises(TimeoutError):
      async with asyncio.timeout(0.5):
        await tell_partials(
          hear, tell, samples, interface.Request(None, None), config=CONFIG
        )
    return stops

  stops = asyncio.run(run())
  assert all(stop <= 8 * 16_000 for stop in stops)
  assert sum(itertools.islice(stops, 2)) > 12 * 16_000


def test_errors_of_the_engine_end_it():
  async def hear(request):
    raise interface.BadSubmodel("x", expected="whole", got="half")

  async def run():
    samples = _samples("float32")
    samples.add(live.wave(2.0).tobytes())
    await tell_partials(
      hear, None, samples, interface.Request(None, "anna"), config=CONFIG
    )

  with pytest.raises(InputError, match="expected whole"):
    asyncio.run(run())
