"""The TDT loss against the enumeration of every alignment, in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hra.decoders import durations

FRAMES, LABELS, VOCABULARY, WIDTH = 5, 3, 5, 3
SETS = [(0, 1, 2), (0, 1, 2, 3, 4), (1, 2), (2, 0), (3, 1)]


def _alignments(lasts, frames, labels, t=0, u=0):
  """Each as the transitions that it takes: (t, u, whether blank, duration's place)."""
  if t == frames:
    if u == labels:
      yield []
    return
  for place, duration in enumerate(lasts):
    for blank in (True, False):
      ends = t + duration == frames
      if blank and (duration == 0 or (ends and u < labels)):
        continue
      if not blank and (u == labels or ends):
        continue
      if t + duration > frames:
        continue
      rest = _alignments(lasts, frames, labels, t + duration, u + (not blank))
      for steps in rest:
        yield [(t, u, blank, place), *steps]


def _enumerated(lasts, lattice, frames, labels):
  """(log-likelihood, chances of each blank, label and duration)."""
  blank_TP, label_TU, duration_TPQ = lattice
  chances = [np.zeros_like(each) for each in lattice]
  total = 0.0
  for steps in _alignments(lasts, frames, labels):
    mass = np.exp(
      sum(
        (blank_TP if blank else label_TU)[t, u] + duration_TPQ[t, u, place]
        for t, u, blank, place in steps
      )
    )
    total += mass
    for t, u, blank, place in steps:
      chances[0 if blank else 1][t, u] += mass
      chances[2][t, u, place] += mass
  if not total:
    return -np.inf, *chances
  return np.log(total), *(each / total for each in chances)


def _lattice(lasts, seed=0, frames=FRAMES, labels=LABELS):
  rng = np.random.default_rng(seed)
  shapes = (
    (frames, labels + 1),
    (frames, labels),
    (frames, labels + 1, len(lasts)),
  )
  return [np.log(rng.uniform(0.01, 1, shape)) for shape in shapes]


@functools.cache
def _gradient(lasts):
  likelihood = functools.partial(durations.log_likelihood, lasts)
  function = jax.value_and_grad(likelihood, argnums=(0, 1, 2))
  return jax.jit(jax.vmap(function, (None, None, None, 0, 0)))


@pytest.mark.parametrize("lasts", SETS)
def test_every_length_is_as_enumerated(float64, lasts):
  lattice = _lattice(lasts)
  sizes = [*itertools.product(range(1, FRAMES + 1), range(LABELS + 1))]
  totals, gradients = _gradient(lasts)(*lattice, *np.array(sizes).T)
  assert totals.dtype == np.float64
  impossible = 0
  for place, (frames, labels) in enumerate(sizes):
    expected = _enumerated(lasts, lattice, frames, labels)
    found = totals[place], *(each[place] for each in gradients)
    for ours, theirs in zip(found, expected, strict=True):
      np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
    impossible += not np.isfinite(expected[0])
  assert (impossible > 0) == (not {0, 1} <= set(lasts))


def test_what_lies_beyond_the_lengths_changes_nothing():
  lasts = (0, 1, 3)
  lattice = _lattice(lasts, frames=6, labels=5)
  sizes = np.array([3]), np.array([2])
  clean = _gradient(lasts)(*lattice, *sizes)
  blank, label, duration = lattice
  blank[3:], label[3:], duration[3:] = (np.nan,) * 3
  blank[:, 3:], label[:, 2:], duration[:, 3:] = (np.nan,) * 3
  soiled = _gradient(lasts)(blank, label, duration, *sizes)
  jax.tree.map(np.testing.assert_array_equal, clean, soiled)
  total, (of_blank, of_label, of_duration) = soiled
  assert np.isfinite(total)
  for each in (of_blank, of_label, of_duration):
    assert (np.asarray(each)[0, 3:] == 0).all()
  # Each label is said once, and each thing said lasts.
  np.testing.assert_allclose(of_label[0].sum(axis=0)[:2], 1, rtol=1e-5)
  np.testing.assert_allclose(
    of_duration.sum(), of_blank.sum() + of_label.sum(), rtol=1e-5
  )


def _joint(weights, encoded_TD, predicted_PD):
  return jnp.tanh(encoded_TD[:, None] + predicted_PD[None]) @ weights


LASTS = (0, 1, 2, 4)


def _chunked(weights, encoded, predicted, length, labels, label_length, **size):
  return durations.joint_loss(
    functools.partial(_joint, weights),
    encoded,
    predicted,
    length,
    labels,
    label_length,
    durations=LASTS,
    **size,
  ).total


def _whole(weights, encoded, predicted, length, labels, label_length):
  logits = _joint(weights, encoded, predicted)
  logs = jax.nn.log_softmax(logits[..., :VOCABULARY])
  label = jnp.take_along_axis(logs[:, :-1], labels[None, :, None], axis=-1)
  return -durations.log_likelihood(
    LASTS,
    logs[..., 0],
    label[..., 0],
    jax.nn.log_softmax(logits[..., VOCABULARY:]),
    length,
    label_length,
  )


def _utterances(frames=11, count=3, dtype=np.float64):
  rng = np.random.default_rng(1)
  return (
    rng.standard_normal((WIDTH, VOCABULARY + len(LASTS))).astype(dtype),
    rng.standard_normal((count, frames, WIDTH)).astype(dtype),
    rng.standard_normal((count, LABELS + 1, WIDTH)).astype(dtype),
    np.array([frames, 5, 1]),
    rng.integers(1, VOCABULARY, (count, LABELS)),
    np.array([LABELS, 1, 2]),
  )


@functools.cache
def _losses(chunk):
  axes = (None, 0, 0, 0, 0, 0)
  return tuple(
    jax.jit(jax.vmap(jax.value_and_grad(each, argnums=(0, 1, 2)), axes))
    for each in (functools.partial(_chunked, chunk=chunk), _whole)
  )


@pytest.mark.parametrize("chunk", [1, 4, 16])
def test_scoring_in_chunks_changes_nothing(float64, chunk):
  chunked, whole = _losses(chunk)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
    chunked(*_utterances()),
    whole(*_utterances()),
  )


def test_sigma_is_taken_from_what_is_said():
  """A nat less for each: on few frames of one alignment, as many nats."""
  weights, encoded, predicted, *_, labels, _ = _utterances(dtype=np.float32)
  given = (weights, encoded[0][:1], predicted[0], 1, labels[0], 2)
  plain, other = _chunked(*given), _chunked(*given, sigma=0.25)
  np.testing.assert_allclose(other - plain, 0.25 * 3, rtol=1e-4)


def test_all_logits_never_exist():
  size, frames, labels, width, vocabulary = 4, 192, 48, 320, 1024
  shapes = [
    jax.ShapeDtypeStruct(shape, dtype)
    for shape, dtype in (
      ((width, vocabulary + len(LASTS)), np.float32),
      ((size, frames, width), np.float32),
      ((size, labels + 1, width), np.float32),
      ((size,), np.int32),
      ((size, labels), np.int32),
      ((size,), np.int32),
    )
  ]

  def total(weights, *parts):
    return jax.vmap(functools.partial(_chunked, weights))(*parts).sum()

  compiled = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(*shapes)
  used = compiled.compile().memory_analysis().temp_size_in_bytes
  assert used < 4 * size * frames * (labels + 1) * vocabulary / 8


@pytest.mark.parametrize(
  ("length", "label_length", "lasts"),
  [(0, 2, LASTS), (3, 0, LASTS), (0, 0, LASTS), (2, 2, (1, 2)), (3, 1, (2,))],
)
def test_without_frames_labels_or_alignments_an_utterance_weighs_nothing(
  length, label_length, lasts
):
  weights, encoded, predicted, _, labels, _ = _utterances(dtype=np.float32)
  weights = weights[:, : VOCABULARY + len(lasts)]

  def one(weights, encoded, predicted):
    found = durations.joint_loss(
      functools.partial(_joint, weights),
      encoded,
      predicted,
      length,
      labels[0],
      label_length,
      durations=lasts,
    )
    return found.total, found

  gradients, found = jax.jit(jax.grad(one, argnums=(0, 1, 2), has_aux=True))(
    weights, encoded[0], predicted[0]
  )
  assert (found.total, found.weight) == (0, 0)
  for each in gradients:
    np.testing.assert_array_equal(each, 0)


def test_what_is_no_number_is_told_and_weighs_as_ever():
  weights, encoded, predicted, lengths, labels, label_lengths = _utterances(
    dtype=np.float32
  )
  encoded[0, 2] = np.nan
  found = durations.joint_loss(
    functools.partial(_joint, weights),
    encoded[0],
    predicted[0],
    lengths[0],
    labels[0],
    label_lengths[0],
    durations=LASTS,
  )
  assert np.isnan(found.total)
  assert found.weight == LABELS


def test_a_long_utterance_keeps_its_gradient_in_float32():
  """Within 1e-5, though its likelihood is some thousand nats."""
  frames, labels, lasts = 300, 90, (0, 1, 2, 3, 4)
  rng = np.random.default_rng(0)
  lattice = (
    rng.uniform(-16, -6, (frames, labels + 1)),
    rng.uniform(-16, -6, (frames, labels)),
    rng.uniform(-16, -6, (frames, labels + 1, len(lasts))),
  )
  sizes = np.array([frames]), np.array([labels])
  with jax.enable_x64(True):
    exact, expected = jax.device_get(_gradient(lasts)(*lattice, *sizes))
  single = [each.astype(np.float32) for each in lattice]
  total, found = _gradient(lasts)(*single, *sizes)
  assert exact[0] < -1000
  np.testing.assert_allclose(total, exact, rtol=1e-6)
  for ours, theirs in zip(found, expected, strict=True):
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
