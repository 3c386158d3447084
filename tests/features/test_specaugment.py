"""What is masked, how often, and what may change none of it.

All policies are given the same static caps, so that one compiled pass serves
nearly every test; one test says that the caps change nothing.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hra.config import SpecAugmentConfig
from hra.errors import InputError
from hra.features import specaugment
from hra.features.specaugment import CONFIGS, PRESETS, make_policy

DRAWS = 50_000
BATCH, FRAMES, MELS = 64, 300, 80


def _policy(config="LD", **options):
  """A preset's, or a config's, policy with options changed and common caps."""
  config = CONFIGS[config] if isinstance(config, str) else config
  return dataclasses.replace(
    make_policy(dataclasses.replace(config, **options)),
    max_freq_masks=2,
    max_time_masks=20,
    may_warp=True,
    may_mean=True,
    may_noise=True,
  )


POLICIES = {
  "LD": _policy("LD"),
  "LibriFullAdapt": _policy("LibriFullAdapt"),
  "noise": _policy("LD", fill="noise"),
  "mean": _policy("LD", fill="mean"),
}


@functools.cache
def _augment():
  return jax.jit(specaugment.augment)


@functools.cache
def _draw():
  one = functools.partial(specaugment.draw, num_mels=MELS)
  return jax.jit(jax.vmap(one, (0, 0, None)))


def _draws(policy, length, seed=0):
  """Parameters of many utterances of one length, as NumPy."""
  keys = jax.random.split(jax.random.key(seed), DRAWS)
  return jax.tree.map(np.asarray, _draw()(keys, np.full(DRAWS, length), policy))


def _mel():
  """Features in [1, 2): a zero is a mask's."""
  rng = np.random.default_rng(0)
  return rng.uniform(1, 2, size=(BATCH, FRAMES, MELS)).astype(np.float32)


def _keys(seed=0):
  return jax.random.split(jax.random.key(seed), BATCH)


def _augmented(policy, *, mel=None, lengths=FRAMES, key=None):
  mel = _mel() if mel is None else mel
  key = _keys() if key is None else key
  lengths = np.broadcast_to(lengths, (BATCH,))
  return np.asarray(_augment()(key, mel, lengths, policy))


def _assert_uniform(values, low, high):
  """Every integer of low..high about equally often (6 standard deviations)."""
  assert values.min() == low
  assert values.max() == high
  counts = np.bincount(values - low, minlength=high - low + 1)
  expected = values.size / counts.size
  assert np.abs(counts - expected).max() < 6 * expected**0.5


def test_widths_and_starts_are_uniform():
  drawn = _draws(_policy("SS"), 1000)
  _assert_uniform(drawn.freq_widths_M[:, 0], 0, 26)
  _assert_uniform(drawn.freq_widths_M[:, 1], 0, 26)
  _assert_uniform(drawn.time_widths_M[:, 1], 0, 69)
  for starts, widths, room in (
    (drawn.freq_starts_M, drawn.freq_widths_M, MELS),
    (drawn.time_starts_M[:, :2], drawn.time_widths_M[:, :2], 1000),
  ):
    assert starts.min() == 0
    assert (starts + widths).max() == room
    place = (starts + 0.5) / (room - widths + 1)
    _assert_uniform((place * 10).astype(int).ravel(), 0, 9)


def test_no_two_draws_go_together():
  drawn = _draws(_policy("LD"), 1000)
  time_widths, time_starts = drawn.time_widths_M, drawn.time_starts_M
  columns = np.column_stack(
    [
      time_widths[:, :2],
      time_starts[:, :2] / (1000 - time_widths[:, :2]),
      drawn.freq_widths_M,
      drawn.freq_starts_M / (MELS - drawn.freq_widths_M),
      drawn.warp_from,
      drawn.warp_by,
    ]
  )
  correlation = np.corrcoef(columns.T) - np.eye(columns.shape[1])
  assert np.abs(correlation).max() < 0.025  # 5 deviations


def test_a_time_mask_keeps_to_its_part_of_the_own_length():
  drawn = _draws(_policy("SM"), 100)
  _assert_uniform(drawn.time_widths_M[:, 0], 0, 20)
  assert (drawn.time_starts_M + drawn.time_widths_M).max() == 100


@pytest.mark.parametrize(
  ("length", "count", "size"),
  [(24, 0, 0), (50, 2, 2), (260, 10, 10), (999, 20, 39)],
)
def test_adaptive_number_and_size_follow_the_length(length, count, size):
  drawn = _draws(_policy("LibriFullAdapt"), length)
  assert (drawn.time_widths_M > 0).any(axis=0).sum() == count
  assert drawn.time_widths_M.max() == max(size - 1, 0)


def test_a_part_of_the_length_is_exact():
  config = SpecAugmentConfig(time_masks=1, time_ratio=0.21)
  drawn = _draws(_policy(config), 300)
  assert drawn.time_widths_M.max() == 63


def _covering(places, bound):
  """Of each place, the chance that a mask covers it whose width is below `bound`."""
  place = np.arange(places)
  found = np.zeros(places)
  for width in range(bound):
    offset = place[:, None] - np.arange(places - width + 1)  # [place, start]
    found += ((offset >= 0) & (offset < width)).mean(axis=1)
  return found / bound


@pytest.mark.parametrize(
  ("name", "length", "time_masks", "time_width"),
  [("LD", 300, 2, 100), ("SS", 200, 2, 41), ("Conformer", 300, 10, 15)],
)
def test_each_frame_and_bin_is_masked_as_often_as_the_closed_form_says(
  name, length, time_masks, time_width
):
  drawn = _draws(_policy(name), length)
  for places, starts, widths, masks, bound in (
    (MELS, drawn.freq_starts_M, drawn.freq_widths_M, 2, 27),
    (length, drawn.time_starts_M, drawn.time_widths_M, time_masks, time_width),
  ):
    expected = 1 - (1 - _covering(places, bound)) ** masks
    begins, ends = starts[:, :masks], (starts + widths)[:, :masks]
    place = np.arange(places)
    hits = np.zeros(places)
    for begin, end in zip(
      np.split(begins, DRAWS // 1000),
      np.split(ends, DRAWS // 1000),
      strict=True,
    ):
      inside = (place >= begin[..., None]) & (place < end[..., None])
      hits += inside.any(axis=1).sum(axis=0)
    deviation = (expected * (1 - expected) / DRAWS) ** 0.5
    assert (np.abs(hits / DRAWS - expected) < 6 * deviation).all()


def test_adaptive_size_alone_keeps_the_number():
  drawn = _draws(_policy("Conformer"), 400)
  assert (drawn.time_widths_M > 0).any(axis=0).sum() == 10
  _assert_uniform(drawn.time_widths_M[:, 9], 0, 19)
  assert (drawn.warp_by == 0).all()


def test_the_budget_bounds_all_time_masks_together():
  config = SpecAugmentConfig(time_masks=4, time_width=50, time_budget=0.3)
  total = _draws(_policy(config), 200).time_widths_M.sum(axis=1)
  assert total.max() == 60
  assert (total < 60).any()


def test_an_utterance_is_never_masked_whole():
  assert _draws(_policy("LD"), 30).time_widths_M.sum(axis=1).max() == 29


def test_probability_is_the_part_that_is_augmented():
  drawn = _draws(_policy("LD", probability=0.3), 500)
  assert abs(drawn.applied.mean() - 0.3) < 0.01
  raw = _augmented(_policy("LD", probability=0.0))
  np.testing.assert_array_equal(raw, _mel())


def test_the_probability_warms_up():
  policy = make_policy(
    dataclasses.replace(CONFIGS["LD"], probability=0.5, start=10, warmup=4)
  )
  told = {
    step: float(specaugment.at_step(policy, step).probability)
    for step in (0, 9, 10, 11, 13, 14, 1000)
  }
  assert told == {0: 0, 9: 0, 10: 0.125, 11: 0.25, 13: 0.5, 14: 0.5, 1000: 0.5}
  at_once = make_policy(dataclasses.replace(CONFIGS["LD"], start=3))
  steps = jax.vmap(lambda step: specaugment.at_step(at_once, step).probability)
  np.testing.assert_array_equal(steps(jnp.arange(5)), [0, 0, 0, 1, 1])


def test_masks_and_draws_are_returned_on_request():
  policy = _policy("LD", warp=0, probability=0.5)
  lengths = np.linspace(0, FRAMES, BATCH).astype(int)
  found = jax.jit(specaugment.augment_with_masks)(
    _keys(), _mel(), lengths, policy
  )
  np.testing.assert_array_equal(
    found.mel, _augmented(policy, lengths=lengths), strict=True
  )
  np.testing.assert_array_equal(found.masked, np.asarray(found.mel) == 0)
  assert not np.asarray(found.masked)[~np.asarray(found.drawn.applied)].any()


def test_what_was_drawn_is_masked_and_nothing_else():
  policy = _policy("LD", warp=0)
  lengths = np.linspace(20, FRAMES, BATCH).astype(int)
  augmented = _augmented(policy, lengths=lengths)
  drawn = _draw()(_keys(), lengths, policy)
  expected = _mel()
  for b, length in enumerate(lengths):
    for start, width in zip(
      drawn.time_starts_M[b], drawn.time_widths_M[b], strict=True
    ):
      expected[b, start : start + width] = 0
    for start, width in zip(
      drawn.freq_starts_M[b], drawn.freq_widths_M[b], strict=True
    ):
      expected[b, :length, start : start + width] = 0
  np.testing.assert_array_equal(augmented, expected)
  assert (augmented == 0).mean() > 0.05


@pytest.mark.parametrize("name", POLICIES)
def test_padding_and_batch_make_up_change_nothing(name):
  lengths = np.linspace(0, FRAMES, BATCH).astype(int)
  mel = _mel()
  together = _augmented(POLICIES[name], mel=mel, lengths=lengths)
  order = np.random.default_rng(1).permutation(BATCH)
  longer = np.full((BATCH, FRAMES + 111, MELS), np.nan, np.float32)
  for row, b in enumerate(order):
    longer[row, : lengths[b]] = mel[b, : lengths[b]]
  apart = _augmented(
    POLICIES[name], mel=longer, lengths=lengths[order], key=_keys()[order]
  )
  for row, b in enumerate(order):
    length = lengths[b]
    np.testing.assert_allclose(
      apart[row, :length], together[b, :length], atol=5e-5
    )
    assert np.isnan(apart[row, length:]).all()
    np.testing.assert_array_equal(together[b, length:], mel[b, length:])
  changed = (together != mel).any(axis=(1, 2))
  assert changed[lengths > 100].all()


def test_a_scalar_key_is_split_by_position():
  key = jax.random.key(3)
  whole = _augmented(POLICIES["LD"], key=key)
  legacy = _augmented(POLICIES["LD"], key=jax.random.PRNGKey(3))
  np.testing.assert_array_equal(whole, legacy)
  apart = _augmented(
    POLICIES["LD"],
    key=jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(BATCH)),
  )
  np.testing.assert_array_equal(whole, apart)
  masked = (whole == 0).all(axis=2)
  assert len(np.unique(masked, axis=0)) == BATCH, "each draws its own"


@pytest.mark.parametrize("fill", ["zero", "mean", "noise"])
def test_nan_is_replaced_under_a_mask_and_kept_elsewhere(fill):
  mel = _mel()
  mel[:, 30, 40] = np.nan
  mel[:, 20, 10] = np.inf
  zeroed = _augmented(_policy("LD", warp=0), mel=mel, lengths=80)
  augmented = _augmented(_policy("LD", warp=0, fill=fill), mel=mel, lengths=80)
  masked = zeroed == 0
  np.testing.assert_array_equal(
    np.isfinite(augmented), np.isfinite(mel) | masked
  )
  assert masked[:, 30, 40].any()
  assert not masked[:, 30, 40].all()


def test_half_precision_stays_and_masks_as_float32_does():
  mel = jnp.asarray(_mel(), jnp.bfloat16)
  for policy in POLICIES.values():
    half = _augment()(_keys(), mel, np.full(BATCH, 290), policy)
    assert half.dtype == jnp.bfloat16
    full = _augmented(policy, mel=mel.astype(jnp.float32), lengths=290)
    np.testing.assert_allclose(half.astype(jnp.float32), full, rtol=0.01)


def test_mean_and_noise_fill():
  mel = _mel()
  zero, mean, noise = (
    _augmented(_policy("LD", warp=0, fill=fill), lengths=150)
    for fill in ("zero", "mean", "noise")
  )
  masked = zero == 0
  means = mel[:, :150].mean(axis=1, keepdims=True)
  np.testing.assert_allclose(mean, np.where(masked, means, mel), atol=1e-5)
  rows = masked.all(axis=2)
  assert noise[rows].size > 50_000
  assert abs(noise[rows].mean()) < 0.02
  assert abs(noise[rows].std() - 1) < 0.02
  assert (noise[~rows][masked[~rows]] == 0).all(), "frequency masks stay zero"
  np.testing.assert_array_equal(noise[~masked], mel[~masked])


def _warped(length, warp):
  """The source frame that each output frame shows, and what was drawn."""
  policy = _policy(SpecAugmentConfig(warp=warp))
  ramp = np.arange(FRAMES, dtype=np.float32)[None, :, None]
  mel = np.broadcast_to(ramp, (BATCH, FRAMES, MELS))
  source = _augmented(policy, mel=mel, lengths=length)[:, :, 0]
  drawn = _draw()(_keys(), np.full(BATCH, length), policy)
  np.testing.assert_array_equal(
    source[:, length:], mel[:, length:, 0], "padding doesn't move"
  )
  return source[:, :length], jax.tree.map(np.asarray, drawn)


def test_warp_follows_the_formula():
  source, drawn = _warped(200, 40)
  w0, w, last = drawn.warp_from[:, None], drawn.warp_by[:, None], 199
  np.testing.assert_array_equal(source[:, 0], 0)
  np.testing.assert_array_equal(source[:, -1], last)
  # The frame shown at s is the t with warp(t) = s.
  early = source * (w0 + w) / w0
  late = ((last - w0 - w) * source + last * w) / (last - w0)
  shown_at = np.where(source <= w0, early, late)
  np.testing.assert_allclose(
    shown_at, np.broadcast_to(np.arange(200), source.shape), atol=1e-3
  )


def test_warp_points_and_shifts_are_uniform():
  drawn = _draws(_policy("SM"), 200)
  _assert_uniform(drawn.warp_from, 40, 159)
  _assert_uniform(np.floor(drawn.warp_by / 4).astype(int), -10, 9)


@pytest.mark.parametrize("length", [0, 1, 2, 80])
def test_a_clip_too_short_for_the_warp_keeps_its_timing(length):
  source, drawn = _warped(length, 40)
  np.testing.assert_array_equal(drawn.warp_by, 0)
  np.testing.assert_array_equal(
    source, np.broadcast_to(np.arange(length), source.shape)
  )


@pytest.mark.parametrize("length", [3, 4, 81])
def test_the_largest_warp_is_finite_and_keeps_both_ends(length):
  source, drawn = _warped(length, (length - 1) // 2)
  assert np.abs(drawn.warp_by).max() > 0.8 * ((length - 1) // 2)
  assert np.isfinite(source).all()
  assert (source[:, 0] == 0).all()
  assert (source[:, -1] == length - 1).all()
  assert (np.diff(source, axis=1) >= -1e-4).all()


def test_a_warp_that_shrinks_a_side_to_nothing_is_finite():
  mel = jnp.arange(9.0)[:, None]
  none_M = jnp.zeros(0, jnp.int32)
  drawn = specaugment.Draw(
    applied=jnp.bool_(True),
    warp_from=jnp.int32(4),
    warp_by=jnp.float32(-4),
    freq_starts_M=none_M,
    freq_widths_M=none_M,
    time_starts_M=none_M,
    time_widths_M=none_M,
  )
  source = np.asarray(specaugment.warped(mel, 9, drawn))[:, 0]
  np.testing.assert_allclose(source[1:], 4 + np.arange(1, 9) / 2)
  assert source[0] == 0


@pytest.mark.parametrize("name", POLICIES)
def test_the_shortest_clips_are_finite(name):
  lengths = np.arange(BATCH) % 4
  augmented = _augmented(POLICIES[name], lengths=lengths)
  assert np.isfinite(augmented).all()
  padding = np.arange(FRAMES) >= lengths[:, None]
  np.testing.assert_array_equal(augmented[padding], _mel()[padding])


def test_each_utterance_may_have_its_own_policy():
  configs = [
    CONFIGS["LD"],
    dataclasses.replace(CONFIGS["LD"], fill="noise"),
    dataclasses.replace(CONFIGS["LD"], fill="mean"),
    CONFIGS["LibriFullAdapt"],
    dataclasses.replace(CONFIGS["LD"], probability=0.0),
  ]
  choice_B = np.arange(BATCH) % len(configs)
  policy = specaugment.choose([*map(make_policy, configs)], choice_B)
  mixed = _augmented(policy)
  for place, config in enumerate(configs):
    mine = choice_B == place
    np.testing.assert_allclose(
      mixed[mine], _augmented(_policy(config))[mine], atol=5e-5
    )


def test_static_caps_change_nothing():
  np.testing.assert_allclose(
    _augmented(PRESETS["LD"]), _augmented(POLICIES["LD"]), atol=5e-5
  )


def test_the_default_config_changes_nothing():
  augmented = _augmented(make_policy(SpecAugmentConfig()))
  np.testing.assert_array_equal(augmented, _mel())


def test_presets_are_the_published_table():
  table = {
    "LB": (80, 27, 1, 100, 1.0, 1),
    "LD": (80, 27, 2, 100, 1.0, 2),
    "SM": (40, 15, 2, 70, 0.2, 2),
    "SS": (40, 27, 2, 70, 0.2, 2),
  }
  for name, values in table.items():
    config = CONFIGS[name]
    assert values == (
      config.warp,
      config.freq_width,
      config.freq_masks,
      config.time_width,
      config.time_ratio,
      config.time_masks,
    )


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"time_masks": 2, "time_size": 0.05}, "time_width: expected 0"),
    ({"time_masks": 2, "time_width": 0}, "time_width: expected at least 1"),
    ({"freq_masks": 1, "freq_width": 0}, "freq_width: expected at least 1"),
    ({"time_multiplicity": 0.04}, "time_masks: expected at least 1"),
    ({"time_budget": 1.5}, "time_budget: expected a part between 0 and 1"),
    ({"probability": -0.1}, "probability: expected a part"),
    ({"warp": -1}, "warp: expected at least 0"),
    ({"start": -1}, "start: expected at least 0"),
    ({"fill": "blue"}, "fill: expected one of"),
    (
      {"time_masks": 2, "time_width": 0, "time_size": 0.3, "time_ratio": 0.2},
      "time_ratio: expected at least time_size",
    ),
  ],
)
def test_contradictory_options_are_refused(options, message):
  with pytest.raises(InputError, match=message):
    make_policy(SpecAugmentConfig(**options))


def test_shapes_that_do_not_fit_are_refused():
  mel = jnp.ones((2, 10, MELS))
  lengths = jnp.array([10, 10])
  key = jax.random.key(0)
  with pytest.raises(InputError, match=r"\(3,\)"):
    specaugment.augment(jax.random.split(key, 3), mel, lengths, POLICIES["LD"])
  with pytest.raises(InputError, match=r"\(10, 80\)"):
    specaugment.augment(key, mel[0], jnp.full(10, 10), POLICIES["LD"])


def test_a_policy_wider_than_the_features_is_refused():
  """Where it is asked for, and not by masks that are silently narrower."""
  key, lengths = jax.random.key(0), jnp.array([10, 10])
  specaugment.augment(key, jnp.ones((2, 10, 26)), lengths, PRESETS["LD"])
  with pytest.raises(
    InputError, match=r"freq_width: expected at most 26, .* 25 bins, got 27"
  ):
    specaugment.augment(key, jnp.ones((2, 10, 25)), lengths, PRESETS["LD"])
  mixed = specaugment.choose([PRESETS["SM"], PRESETS["LD"]], jnp.array([0, 0]))
  with pytest.raises(InputError, match="freq_width"):
    specaugment.augment(key, jnp.ones((2, 10, 25)), lengths, mixed)


def test_presets_go_by_name():
  found = specaugment.preset("LibriFullAdapt")
  assert found == CONFIGS["LibriFullAdapt"]
  found.warp = 5
  assert CONFIGS["LibriFullAdapt"].warp == 80
  with pytest.raises(InputError, match=r"'librifull'; did you mean 'Libri"):
    specaugment.preset("librifull")
