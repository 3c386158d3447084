import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hra.config import DataConfig
from hra.data import perturb as perturb_lib
from hra.data.perturb import coloured_noise, perturb

SPEED = DataConfig(speed_low=0.8, speed_high=1.25)
NOISE = DataConfig(noise_probability=1.0, snr_low=12.0, snr_high=12.0)


def tone(samples, *, hz=440.0):
  time_S = np.arange(samples) / 16_000
  return (0.3 * np.sin(2 * np.pi * hz * time_S)).astype(np.float32)


def run(wave_S, config, *, seed=0, max_samples=1_000_000):
  rng = np.random.default_rng(seed)
  return perturb(wave_S, rng=rng, config=config, max_samples=max_samples)


def test_nothing_is_changed_by_default():
  wave_S = tone(2000)
  assert run(wave_S, DataConfig()) is wave_S


@given(
  st.integers(1, 6000),
  st.integers(0, 800),
  st.integers(0, 1000),
  st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_result_fits_the_bucket(samples, spare, seed, noisy):
  config = DataConfig(
    speed_low=0.5, speed_high=1.5, noise_probability=float(noisy)
  )
  wave_S = tone(samples)
  out_S = run(wave_S, config, seed=seed, max_samples=samples + spare)
  assert 1 <= len(out_S) <= samples + spare
  assert out_S.dtype == np.float32
  assert len(out_S) >= int(samples / 1.5)


def test_speed_is_uniform_and_shifts_the_pitch():
  wave_S = tone(32_000)
  ratios = []
  for seed in range(100):
    out_S = run(wave_S, SPEED, seed=seed)
    ratios.append(len(wave_S) / len(out_S))
    peak = np.argmax(np.abs(np.fft.rfft(out_S * np.hanning(len(out_S)))))
    assert peak * 16_000 / len(out_S) == pytest.approx(
      440 * ratios[-1], abs=1.0
    )
  assert 0.8 <= min(ratios) < 0.83
  assert 1.22 < max(ratios) <= 1.25 + 1e-3
  assert np.mean(ratios) == pytest.approx(1.025, abs=0.04)


def test_speech_is_never_cut():
  """Where slower speech doesn't fit, it is played as slowly as fits."""
  wave_S = np.zeros(16_000, np.float32)
  wave_S[:200] = wave_S[-200:] = tone(200)
  out_S = run(
    wave_S, DataConfig(speed_low=0.5, speed_high=0.6), max_samples=16_500
  )
  assert len(out_S) == 16_500
  assert np.abs(out_S[-200:]).max() > 0.2


def test_noise_has_the_ratio_asked_for():
  wave_S = tone(16_000)
  for seed in range(5):
    noise_S = run(wave_S, NOISE, seed=seed) - wave_S
    ratio = np.mean(np.square(wave_S)) / np.mean(np.square(noise_S))
    assert 10 * np.log10(ratio) == pytest.approx(12.0, abs=0.01)


def test_part_of_the_utterances_get_noise():
  config = DataConfig(noise_probability=0.3)
  wave_S = tone(500)
  noisy = [run(wave_S, config, seed=i) is not wave_S for i in range(600)]
  assert np.mean(noisy) == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_noise_falls_as_its_exponent(exponent):
  power = np.zeros(8001)
  for seed in range(20):
    rng = np.random.default_rng(seed)
    noise_S = coloured_noise(rng, samples=16_000, exponent=exponent)
    assert noise_S.dtype == np.float32
    assert np.mean(np.square(noise_S)) == pytest.approx(1.0, rel=1e-4)
    windowed_S = noise_S * np.hanning(16_000)
    power += np.square(np.abs(np.fft.rfft(windowed_S)))
  band = slice(100, 6000)
  slope, _ = np.polyfit(np.log(np.arange(8001)[band]), np.log(power[band]), 1)
  assert slope == pytest.approx(-exponent, abs=0.1)


def test_silence_stays_silent_and_nan_stays_contained():
  silent_S = np.zeros(1000, np.float32)
  np.testing.assert_array_equal(run(silent_S, NOISE), silent_S)
  assert np.isnan(run(np.full(1000, np.nan, np.float32), NOISE)).all()


def test_result_is_a_function_of_the_generator():
  wave_S = tone(3000)
  before_S = wave_S.copy()
  config = DataConfig(speed_low=0.9, speed_high=1.1, noise_probability=1.0)
  np.testing.assert_array_equal(run(wave_S, config), run(wave_S, config))
  assert not np.array_equal(
    run(wave_S, config),
    perturb_lib.perturb(
      wave_S, rng=np.random.default_rng(1), config=config, max_samples=4000
    ),
  )
  np.testing.assert_array_equal(wave_S, before_S)
