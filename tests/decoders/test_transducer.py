"""The transducer loss against the enumeration of every alignment, in float64."""

import functools
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hra.decoders import transducer

FRAMES, LABELS, VOCABULARY, WIDTH = 5, 5, 5, 3


def _alignments(frames, labels):
  """Each as the states that blanks and labels leave from: (t, u) and whether blank."""
  for places in itertools.combinations(range(frames + labels - 1), labels):
    t = u = 0
    steps = []
    for place in range(frames + labels):
      blank = place not in places
      steps.append((t, u, blank))
      t, u = (t + 1, u) if blank else (t, u + 1)
    assert (t, u) == (frames, labels)
    yield steps


def _enumerated(blank_TP, label_TU, frames, labels):
  """(log-likelihood, chance of each blank, chance of each label)."""
  of_blank, of_label = np.zeros_like(blank_TP), np.zeros_like(label_TU)
  total = 0.0
  for steps in _alignments(frames, labels):
    logs = [(blank_TP if blank else label_TU)[t, u] for t, u, blank in steps]
    mass = np.exp(sum(logs))
    total += mass
    for t, u, blank in steps:
      (of_blank if blank else of_label)[t, u] += mass
  return np.log(total), of_blank / total, of_label / total


@functools.cache
def _gradient():
  function = jax.value_and_grad(transducer.log_likelihood, argnums=(0, 1))
  return jax.jit(jax.vmap(function, (None, None, 0, 0)))


def _lattice(seed=0, frames=FRAMES, labels=LABELS):
  rng = np.random.default_rng(seed)
  blank = np.log(rng.uniform(0.01, 1, (frames, labels + 1)))
  label = np.log(rng.uniform(0.01, 1, (frames, labels)))
  return blank, label


def test_every_length_is_as_enumerated(float64):
  blank, label = _lattice()
  sizes = [*itertools.product(range(1, FRAMES + 1), range(LABELS + 1))]
  totals, (of_blank, of_label) = _gradient()(blank, label, *np.array(sizes).T)
  assert totals.dtype == np.float64
  for place, (frames, labels) in enumerate(sizes):
    expected = _enumerated(blank, label, frames, labels)
    found = totals[place], of_blank[place], of_label[place]
    for ours, theirs in zip(found, expected, strict=True):
      np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def test_what_lies_beyond_the_lengths_changes_nothing():
  """Nothing there is heard, be it NaN, and nothing there gets a gradient."""
  blank, label = _lattice(frames=6, labels=5)
  sizes = np.array([3]), np.array([2])
  clean = _gradient()(blank, label, *sizes)
  blank[3:], label[3:], blank[:, 3:], label[:, 2:] = (np.nan,) * 4
  soiled = _gradient()(blank, label, *sizes)
  jax.tree.map(np.testing.assert_array_equal, clean, soiled)
  total, (of_blank, of_label) = soiled
  assert np.isfinite(total)
  assert (np.asarray(of_blank)[0, 3:] == 0).all()
  assert (np.asarray(of_label)[0, :, 2:] == 0).all()
  # Of each frame that is there, one blank is taken; of each label, one.
  np.testing.assert_allclose(of_blank[0, :3].sum(axis=1), 1, rtol=1e-5)
  np.testing.assert_allclose(of_label[0].sum(axis=0)[:2], 1, rtol=1e-5)


def _joint(weights, encoded_TD, predicted_PD):
  hidden = jnp.tanh(encoded_TD[:, None] + predicted_PD[None])
  return hidden @ weights


def _chunked(weights, encoded, predicted, length, labels, label_length, **size):
  joint = functools.partial(_joint, weights)
  return transducer.joint_loss(
    joint, encoded, predicted, length, labels, label_length, **size
  ).total


def _whole(weights, encoded, predicted, length, labels, label_length):
  logs = jax.nn.log_softmax(_joint(weights, encoded, predicted))
  label = jnp.take_along_axis(logs[:, :-1], labels[None, :, None], axis=-1)
  return -transducer.log_likelihood(
    logs[..., 0], label[..., 0], length, label_length
  )


@functools.cache
def _losses(chunk):
  """Loss and gradients of utterances, and those with all logits at once."""
  axes = (None, 0, 0, 0, 0, 0)
  return tuple(
    jax.jit(jax.vmap(jax.value_and_grad(each, argnums=(0, 1, 2)), axes))
    for each in (functools.partial(_chunked, chunk=chunk), _whole)
  )


def _utterances(frames=11, count=3):
  rng = np.random.default_rng(1)
  return (
    rng.standard_normal((WIDTH, VOCABULARY)),
    rng.standard_normal((count, frames, WIDTH)),
    rng.standard_normal((count, LABELS + 1, WIDTH)),
    np.array([frames, 5, 1]),
    rng.integers(1, VOCABULARY, (count, LABELS)),
    np.array([LABELS, 1, 2]),
  )


@pytest.mark.parametrize("chunk", [1, 4, 16])
def test_scoring_in_chunks_changes_nothing(float64, chunk):
  chunked, whole = _losses(chunk)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
    chunked(*_utterances()),
    whole(*_utterances()),
  )


def test_all_logits_never_exist():
  """Not even in the backward pass; by default a 20th of that memory is enough."""
  size, frames, labels, width, vocabulary = 4, 192, 48, 320, 1024
  shapes = [
    jax.ShapeDtypeStruct(shape, dtype)
    for shape, dtype in (
      ((width, vocabulary), np.float32),
      ((size, frames, width), np.float32),
      ((size, labels + 1, width), np.float32),
      ((size,), np.int32),
      ((size, labels), np.int32),
      ((size,), np.int32),
    )
  ]

  def temporaries(loss):
    def total(weights, *parts):
      return jax.vmap(functools.partial(loss, weights))(*parts).sum()

    compiled = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(*shapes)
    return compiled.compile().memory_analysis().temp_size_in_bytes

  every = 4 * size * frames * (labels + 1) * vocabulary
  used, naive = map(temporaries, (_chunked, _whole))
  assert used < naive / 20
  assert naive > every


def test_a_long_utterance_stays_finite():
  frames, labels = 700, 150
  blank = np.full((frames, labels + 1), -40.0, np.float32)
  label = np.full((frames, labels), -60.0, np.float32)
  total, gradients = _gradient()(
    blank, label, np.array([frames]), np.array([labels])
  )
  ways = sum(np.log(np.arange(frames, frames + labels))) - sum(
    np.log(np.arange(1, labels + 1))
  )
  np.testing.assert_allclose(
    total[0], ways - 40 * frames - 60 * labels, rtol=1e-5
  )
  assert all(np.isfinite(each).all() for each in gradients)


@pytest.mark.parametrize(("length", "label_length"), [(0, 2), (3, 0), (0, 0)])
def test_without_frames_or_labels_an_utterance_weighs_nothing(
  length, label_length
):
  weights, encoded, predicted, _, labels, _ = _utterances(count=1)

  def one(weights, encoded, predicted):
    found = transducer.joint_loss(
      functools.partial(_joint, weights),
      encoded,
      predicted,
      length,
      labels[0],
      label_length,
    )
    return found.total, found

  gradients, found = jax.jit(jax.grad(one, argnums=(0, 1, 2), has_aux=True))(
    weights, encoded[0], predicted[0]
  )
  assert (found.total, found.weight) == (0, 0)
  for each in gradients:
    np.testing.assert_array_equal(each, 0)


GOLDENS = Path(__file__).parents[1] / "goldens" / "transducer.json"


@pytest.mark.parametrize("name", ["B1_T2_U3_D5", "B2_T4_U3_D3"])
def test_published_figures(float64, name):
  """Of warp-transducer's and torchaudio's tests, which have single precision."""
  golden = json.loads(GOLDENS.read_text())[name]
  logits_BTPV = np.reshape(golden["logits"], golden["shape"])
  size, frames, states, _ = logits_BTPV.shape

  def total(logits_BTPV):
    losses_B = transducer.loss(
      logits_BTPV,
      np.array(golden["labels"]),
      np.full(size, frames),
      np.full(size, states - 1),
      blank=golden["blank"],
    )
    return losses_B.sum(), losses_B

  gradients, losses_B = jax.jit(jax.grad(total, has_aux=True))(logits_BTPV)
  np.testing.assert_allclose(losses_B, golden["losses"], rtol=0, atol=3e-7)
  expected = np.reshape(golden["gradients"], golden["shape"])
  np.testing.assert_allclose(gradients, expected, rtol=0, atol=3e-7)


def test_a_long_utterance_keeps_its_gradient_in_float32():
  """Within 1e-5, though its likelihood is some thousand nats."""
  frames, labels = 192, 48
  rng = np.random.default_rng(0)
  lattice = (
    rng.uniform(-12, -2, (1, frames, labels + 1)),
    rng.uniform(-12, -2, (1, frames, labels)),
    np.array([frames]),
    np.array([labels]),
  )
  function = jax.vmap(
    jax.value_and_grad(transducer.log_likelihood, argnums=(0, 1))
  )
  with jax.enable_x64(True):
    exact, expected = jax.device_get(jax.jit(function)(*lattice))
  total, found = jax.jit(function)(*map(_single, lattice))
  assert exact[0] < -1000
  np.testing.assert_allclose(total, exact, rtol=1e-6)
  for ours, theirs in zip(found, expected, strict=True):
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def _single(array):
  return array.astype({"f": np.float32, "i": np.int32}[array.dtype.kind])
