import statistics

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from hra.config import DataConfig, MultistyleConfig
from hra.data import perturb as perturb_lib
from hra.data.perturb import (
  coloured_noise,
  direct_path,
  draw,
  perturb,
  reverberate,
  stretch,
)
from hra.data.sounds import Bank, Sounds

SPEED = DataConfig(speed_low=0.8, speed_high=1.25)
DRAWS = 50_000


def noisy(part=1.0, **changes):
  changes = {"noise": "coloured", "part": part} | changes
  return DataConfig(multistyle=MultistyleConfig(**changes))


NOISE = noisy(snr_low=12.0, snr_high=12.0)


def bank(*waves):
  ends = np.cumsum([len(wave_S) for wave_S in waves]).tolist()
  return Bank(np.concatenate(waves).astype(np.float32), tuple(ends), "")


def random(samples, *, seed=0):
  return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


def room(samples=900, *, direct=40):
  """An early ripple, the direct path, and reflections."""
  response_R = 0.1 * random(samples, seed=5) * np.exp(-np.arange(samples) / 150)
  response_R[:direct] = 0.01 * random(direct, seed=6)
  response_R[direct] = 1.0
  return response_R.astype(np.float32)


SOUNDS = Sounds(
  noise=bank(random(700, seed=1), 0.01 * random(90_000, seed=2)),
  responses=bank(room(), room(300, direct=0)),
)


def tone(samples, *, hz=440.0):
  time_S = np.arange(samples) / 16_000
  return (0.3 * np.sin(2 * np.pi * hz * time_S)).astype(np.float32)


def heard(wave_S, config, *, seed=0, max_samples=1_000_000, sounds=SOUNDS):
  style = config.multistyle
  return perturb(
    wave_S,
    rng=np.random.default_rng(seed),
    config=config,
    part=style.part,
    sounds=sounds,
    max_samples=max_samples,
  )


def run(wave_S, config, **kwargs):
  return heard(wave_S, config, **kwargs).wave_S


def draws(config, *, count=DRAWS, part=None, sounds=SOUNDS):
  """Each by a generator of its own, as utterances have."""
  part = config.multistyle.part if part is None else part
  return [
    draw(np.random.default_rng([7, i]), config=config, part=part, sounds=sounds)
    for i in range(count)
  ]


def decibels(wave_S, noise_S):
  """By sums of the formula's own terms."""
  speech = sum(float(x) ** 2 for x in wave_S)
  noise = sum(float(x) ** 2 for x in noise_S)
  return 10 * np.log10(speech / noise)


def test_nothing_is_changed_by_default():
  wave_S = tone(2000)
  assert heard(wave_S, DataConfig()).wave_S is wave_S
  assert not heard(wave_S, DataConfig()).perturbed


def test_without_files_and_rooms_audio_is_as_it_always_was():
  """Bit for bit that of the version before multistyle: its draws and products."""

  def before(wave_S, rng, *, speeds, part, snr):
    speed = max(rng.uniform(*speeds), len(wave_S) / 9000)
    noisy = rng.random() < part
    snr_db = rng.uniform(*snr)
    if speed != 1.0:
      wave_S = soxr.resample(wave_S, speed * 16_000, 16_000)
    if noisy:
      noise_S = coloured_noise(
        rng, samples=len(wave_S), exponent=rng.uniform(0.0, 2.0)
      )
      rms = float(np.sqrt(np.mean(np.square(wave_S, dtype=np.float64))))
      wave_S = wave_S + noise_S * np.float32(rms * 10 ** (-snr_db / 20))
    return wave_S

  for seed in range(40):
    wave_S = random(1000 + 200 * seed, seed=seed)
    part = (0.0, 0.5)[seed % 2]
    config = noisy(part, snr_low=5.0, snr_high=25.0)
    if not part:
      config = DataConfig()
    config.speed_low, config.speed_high = 0.9, 1.1
    expected_S = before(
      wave_S,
      np.random.default_rng(seed),
      speeds=(0.9, 1.1),
      part=part,
      snr=(5.0, 25.0),
    )
    result_S = run(wave_S, config, seed=seed, max_samples=9000)
    np.testing.assert_array_equal(result_S, expected_S)
    assert result_S.dtype == np.float32


@given(
  st.integers(1, 6000),
  st.integers(0, 800),
  st.integers(0, 1000),
  st.sampled_from(["none", "coloured", "files", "either"]),
  st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_result_fits_the_bucket(samples, spare, seed, noise, reverb):
  config = noisy(noise=noise, reverb="files" if reverb else "none", noises=3)
  config.speed_low, config.speed_high = 0.5, 1.5
  wave_S = tone(samples)
  out_S = run(wave_S, config, seed=seed, max_samples=samples + spare)
  assert 1 <= len(out_S) <= samples + spare
  assert out_S.dtype == np.float32
  assert np.isfinite(out_S).all()
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
  assert not heard(wave_S, SPEED).perturbed


def test_speech_is_never_cut():
  """Where slower speech doesn't fit, it is played as slowly as fits."""
  wave_S = np.zeros(16_000, np.float32)
  wave_S[:200] = wave_S[-200:] = tone(200)
  out_S = run(
    wave_S, DataConfig(speed_low=0.5, speed_high=0.6), max_samples=16_500
  )
  assert len(out_S) == 16_500
  assert np.abs(out_S[-200:]).max() > 0.2


@pytest.mark.parametrize("noises", [1, 3])
@pytest.mark.parametrize("noise", ["coloured", "files", "either"])
def test_noise_has_the_ratio_asked_for(noise, noises):
  wave_S = tone(16_000)
  config = noisy(noise=noise, noises=noises, snr_low=12.0, snr_high=12.0)
  for seed in range(6):
    result = heard(wave_S, config, seed=seed)
    assert result.perturbed
    noise_S = result.wave_S - wave_S
    assert decibels(wave_S, noise_S) == pytest.approx(12.0, abs=0.01)


def test_noise_comes_after_the_room_and_is_measured_against_it():
  wave_S = random(9000)
  both = noisy(noise="files", reverb="files", snr_low=3.0, snr_high=9.0)
  for seed in range(8):
    drawn = draw(
      np.random.default_rng(seed), config=both, part=1.0, sounds=SOUNDS
    )
    in_room_S = reverberate(wave_S, SOUNDS.responses[drawn.response])
    noise_S = run(wave_S, both, seed=seed) - in_room_S
    assert decibels(in_room_S, noise_S) == pytest.approx(
      drawn.snr_db, abs=0.005
    )
    (noise,) = drawn.noises
    expected_S = stretch(
      SOUNDS.noise[noise.recording], samples=9000, at=noise.value
    )
    cosine = noise_S @ expected_S
    cosine /= np.linalg.norm(noise_S) * np.linalg.norm(expected_S)
    assert cosine == pytest.approx(1.0, abs=1e-5)


def test_several_noises_are_equally_loud():
  config = noisy(noise="files", noises=4, snr_low=0.0, snr_high=0.0)
  wave_S = random(8000)
  for seed in range(12):
    drawn = draw(
      np.random.default_rng(seed), config=config, part=1.0, sounds=SOUNDS
    )
    total_S = np.zeros(8000)
    for noise in drawn.noises:
      part_S = stretch(
        SOUNDS.noise[noise.recording], samples=8000, at=noise.value
      ).astype(np.float64)
      total_S += part_S / np.sqrt(np.mean(part_S**2))
    total_S *= np.sqrt(np.mean(wave_S.astype(float) ** 2) / np.mean(total_S**2))
    np.testing.assert_allclose(
      run(wave_S, config, seed=seed) - wave_S, total_S, atol=2e-5
    )
  counts = [len(each.noises) for each in draws(config, count=4000)]
  np.testing.assert_allclose(np.bincount(counts)[1:] / 4000, 0.25, atol=0.04)


def test_stretches_are_consecutive_and_short_recordings_begin_anew():
  long_S, short_S = np.arange(10.0), np.arange(4.0)
  starts = [stretch(long_S, samples=8, at=at)[0] for at in (0, 0.34, 0.999)]
  assert starts == [0, 1, 2]
  assert stretch(long_S, samples=8, at=0.5).tolist() == [*range(1, 9)]
  assert stretch(long_S, samples=10, at=0.99).tolist() == [*range(10)]
  assert stretch(short_S, samples=9, at=0.5).tolist() == [
    *(2, 3, 0, 1, 2, 3, 0, 1, 2)
  ]


@pytest.mark.parametrize("response", [0, 1])
@pytest.mark.parametrize("samples", [1, 50, 5000, 15_485, 15_486, 50_000])
def test_a_room_is_a_convolution(response, samples):
  wave_S, response_R = random(samples), SOUNDS.responses[response]
  direct = (40, 0)[response]
  assert direct_path(response_R) == direct
  whole_S = np.convolve(
    wave_S.astype(np.float64), response_R.astype(np.float64)
  )
  expected_S = whole_S[direct : direct + samples]
  expected_S *= np.linalg.norm(wave_S) / np.linalg.norm(expected_S)
  result_S = reverberate(wave_S, response_R)
  assert result_S.dtype == np.float32
  np.testing.assert_allclose(result_S, expected_S, atol=3e-6)


def test_a_response_may_be_longer_than_a_block_and_than_the_speech():
  wave_S, response_R = random(2000), room(20_000)
  response_R[12_000] = 0.4
  whole_S = np.convolve(wave_S.astype(float), response_R.astype(float))
  expected_S = whole_S[40:2040]
  expected_S *= np.linalg.norm(wave_S) / np.linalg.norm(expected_S)
  result_S = reverberate(wave_S, response_R)
  np.testing.assert_allclose(result_S, expected_S, atol=3e-6)


def test_a_room_does_not_delay_and_keeps_level_and_length():
  wave_S = np.zeros(8000, np.float32)
  wave_S[3000] = 0.7
  for response_R in (room(), room(2000, direct=700), np.roll(room(), 100)):
    result_S = reverberate(wave_S, response_R)
    assert len(result_S) == 8000
    assert np.abs(result_S).argmax() == 3000
    assert np.linalg.norm(result_S) == pytest.approx(0.7, rel=1e-5)
  louder_later_R = np.zeros(500, np.float32)
  louder_later_R[[100, 300]] = 0.7, 1.0
  result_S = reverberate(wave_S, louder_later_R)
  assert np.flatnonzero(np.abs(result_S) > 0.1).tolist() == [3000, 3200]
  dirac_R = np.zeros(500, np.float32)
  dirac_R[123] = -2.0
  np.testing.assert_allclose(
    reverberate(random(700), dirac_R), -random(700), atol=2e-6
  )


def test_the_direct_path_is_the_first_peak_within_6_db():
  response_R = np.zeros(50)
  response_R[[5, 9, 10, 11, 30]] = 0.3, 0.5, 0.8, 0.6, -1.0
  assert direct_path(response_R) == 10
  response_R[[9, 10, 11]] = 0.2, 0.4, 0.3
  assert direct_path(response_R) == 30
  assert direct_path(np.ones(1)) == 0


def test_raw_and_perturbed_are_mixed_8_to_2_by_default():
  """Within 5 deviations of the binomial's part."""
  config = noisy(part=MultistyleConfig().part)
  found = np.mean([each.perturbed for each in draws(config)])
  assert found == pytest.approx(0.2, abs=5 * np.sqrt(0.2 * 0.8 / DRAWS))
  assert all(each.noises for each in draws(config, count=500) if each.perturbed)


def test_the_part_is_of_the_utterances_and_rooms_are_a_part_of_that():
  config = noisy(noise="either", reverb="files", reverb_probability=0.3)
  found = draws(config, part=0.6)
  perturbed = [each for each in found if each.perturbed]
  assert len(perturbed) / DRAWS == pytest.approx(0.6, abs=0.011)
  in_room = [each.response for each in perturbed if each.response is not None]
  assert len(in_room) / len(perturbed) == pytest.approx(0.3, abs=0.014)
  assert np.mean(in_room) == pytest.approx(0.5, abs=0.03)  # of two rooms
  kinds = [
    noise.recording is None for each in perturbed for noise in each.noises
  ]
  assert np.mean(kinds) == pytest.approx(0.5, abs=0.015)
  for each in found:
    if not each.perturbed:
      assert each.response is None
      assert each.noises == ()


@pytest.mark.parametrize(("part", "expected"), [(0.0, 0), (1.0, 1)])
def test_none_and_all(part, expected):
  assert {each.perturbed for each in draws(noisy(), count=500, part=part)} == {
    bool(expected)
  }
  inactive = draws(DataConfig(), count=100, part=1.0)
  assert not any(each.perturbed for each in inactive)


def _furthest(values, cdf):
  """Kolmogorov's distance, times the root of the number."""
  values = np.sort(values)
  exact = np.asarray([cdf(value) for value in values])
  above = np.arange(1, len(values) + 1) / len(values) - exact
  return np.sqrt(len(values)) * max(
    above.max(), (above - 1 / len(values)).min(), -above.min()
  )


@pytest.mark.parametrize(
  ("mean", "deviation"), [(20.0, 5.0), (12.0, 30.0), (5.0, 3.0), (24.9, 0.5)]
)
def test_gaussian_ratios_are_cut_off(mean, deviation):
  config = noisy(
    snr="gaussian",
    snr_low=5.0,
    snr_high=25.0,
    snr_mean=mean,
    snr_deviation=deviation,
  )
  found = [each.snr_db for each in draws(config)]
  assert 5 <= min(found) <= max(found) <= 25
  normal = statistics.NormalDist(mean, deviation)
  low, high = normal.cdf(5), normal.cdf(25)
  # 1.95: a chance of 0.1%.
  assert _furthest(found, lambda x: (normal.cdf(x) - low) / (high - low)) < 1.95


def test_uniform_ratios():
  config = noisy(snr_low=-3.0, snr_high=17.0)
  found = [each.snr_db for each in draws(config)]
  assert _furthest(found, lambda x: (x + 3) / 20) < 1.95
  fixed = noisy(
    snr="gaussian", snr_low=9.0, snr_high=9.0, snr_mean=9.0, snr_deviation=0.1
  )
  assert {each.snr_db for each in draws(fixed, count=10)} == {9.0}


def test_gaussian_ratios_far_from_their_ends_are_finite():
  config = noisy(
    snr="gaussian", snr_low=-300.0, snr_high=400.0, snr_deviation=0.1
  )
  found = [each.snr_db for each in draws(config, count=1000)]
  assert 19 < min(found) < max(found) < 21


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


EVERYTHING = noisy(noise="either", noises=3, reverb="files")


def test_silence_stays_silent_and_nan_stays_contained():
  silent_S = np.zeros(1000, np.float32)
  for config in (NOISE, EVERYTHING):
    np.testing.assert_array_equal(run(silent_S, config), silent_S)
    assert np.isnan(run(np.full(1000, np.nan, np.float32), config)).all()


def test_a_silent_stretch_of_noise_adds_nothing():
  quiet = Sounds(noise=bank(np.zeros(5000)))
  wave_S = tone(1000)
  config = noisy(noise="files", noises=2)
  np.testing.assert_array_equal(run(wave_S, config, sounds=quiet), wave_S)


def test_result_is_a_function_of_the_generator():
  wave_S = tone(3000)
  before_S = wave_S.copy()
  for config in (noisy(), EVERYTHING):
    config.speed_low, config.speed_high = 0.9, 1.1
    np.testing.assert_array_equal(run(wave_S, config), run(wave_S, config))
    other_S = perturb_lib.perturb(
      wave_S,
      rng=np.random.default_rng(1),
      config=config,
      part=1.0,
      sounds=SOUNDS,
      max_samples=4000,
    ).wave_S
    assert not np.array_equal(run(wave_S, config), other_S)
    np.testing.assert_array_equal(wave_S, before_S)
