"""The Conformer's size, its causality over frames, and its gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hra.adapters import table
from hra.backbone import store
from hra.config import AdapterConfig, BackboneConfig, FrontendConfig
from hra.sharding import named_leaves

FRAMES = 24
NONE = AdapterConfig(family="none")


def _size(config: BackboneConfig, *, mels: int = 80) -> int:
  return table.count(store.abstract(config, FrontendConfig(num_mels=mels)))


def test_size_of_the_papers_backbone():
  """32 layers of 1536, as in the Universal Speech Model: about 2B."""
  config = BackboneConfig(
    width=1536,
    layers=32,
    heads=16,
    feed_forward=4 * 1536,
    kernel=5,
    position="relative",
    subsampling_channels=512,
    vocabulary=4096,
  )
  assert 1.5e9 < _size(config, mels=128) < 2.5e9


def test_size_of_the_default():
  config = BackboneConfig(vocabulary=30)
  assert 0.2e6 < _size(config, mels=64) < 0.32e6


@pytest.mark.parametrize("position", ["rotary", "relative"])
def test_size_is_what_the_parts_sum_to(position):
  d, inner, kernel, channels, mels, vocabulary = 16, 32, 5, 8, 16, 8
  linear = lambda i, o: i * o + o  # noqa: E731
  norm = 2 * d
  feed_forward = norm + linear(d, inner) + linear(inner, d)
  attention = norm + 4 * linear(d, d)
  if position == "relative":  # and a projection of offsets, and two biases
    attention += d * d + 2 * d
  convolution = norm + linear(d, 2 * d) + kernel * d + norm + linear(d, d)
  layer = 2 * feed_forward + attention + convolution + norm
  subsampling = (
    linear(3 * mels, channels) + linear(3 * channels, channels)
  ) + linear(channels, d)
  backbone = tiny.backbone(position=position)
  for layers in (2, 7):
    config = tiny.dataclasses.replace(backbone.config, layers=layers)
    expected = layers * layer + subsampling + linear(d, vocabulary)
    assert _size(config, mels=mels) == expected
  assert table.count(backbone) == 2 * layer + subsampling + linear(d, 8)


def test_layers_start_different():
  kernel = tiny.backbone().layers.attention.query.kernel[...]
  assert np.abs(kernel[0] - kernel[1]).max() > 0.01


def test_many_fresh_layers_still_hand_on_what_enters():
  backbone = tiny.backbone(layers=24)

  @jax.jit
  def through(backbone, mel_TF):
    hidden_TD, _, context = backbone.embed(mel_TF, FRAMES)
    return hidden_TD, jax.lax.scan(
      lambda hidden_TD, layer: (layer(hidden_TD, context), None),
      hidden_TD,
      backbone.layers,
    )[0]

  before_TD, after_TD = map(np.array, through(backbone, _mel()))
  before_TD -= before_TD.mean(axis=1, keepdims=True)
  norms_T = np.linalg.norm(before_TD, axis=1) * np.linalg.norm(after_TD, axis=1)
  cosine_T = (before_TD * after_TD).sum(axis=1) / norms_T
  assert cosine_T.mean() > 0.5


@functools.partial(jax.jit, static_argnums=0)
def _encode(model, backbone, mel_TF, length):
  return model.logits(backbone, {}, {}, None, mel_TF, length, tiny.NO_LABELS)


def _mel(seed=0):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((FRAMES, 16)).astype(np.float32)


@pytest.mark.parametrize("causal", [True, False])
def test_causal_encoder_never_takes_back_a_frame(causal):
  model = tiny.model(NONE)
  backbone = tiny.backbone(causal=causal)
  whole_TF = _mel()
  whole = _encode(model, backbone, whole_TF, FRAMES)
  assert int(whole.length) == FRAMES // 4
  for heard in (1, 9, 16):
    other_TF = np.where(np.arange(FRAMES)[:, None] < heard, whole_TF, _mel(1))
    # Frame t hears mel frames up to 4t: those are final.
    final = -(-heard // 4)
    for mel_TF, length in ((other_TF, FRAMES), (whole_TF, heard)):
      part = _encode(model, backbone, mel_TF, length)
      same = np.all(part.logits == whole.logits, axis=1)
      assert same[:final].all() == causal
      assert not same[final:].any()


@pytest.mark.parametrize("position", ["rotary", "relative"])
def test_gradient_reaches_every_parameter_of_every_layer(position):
  model = tiny.model(NONE)
  backbone = tiny.backbone(position=position)
  labels_U = np.array([3, 1, 1, 2], np.int32)

  @jax.jit
  @jax.grad
  def gradient(backbone):
    return model.loss(
      backbone, {}, {}, _mel(), jnp.array(FRAMES), labels_U, jnp.array(3)
    ).total

  for path, leaf in named_leaves(gradient(backbone)):
    layers = leaf if path.startswith("layers/") else leaf[None]
    for l, part in enumerate(layers):
      largest = float(np.abs(part).max())
      if path == "layers/attention/key/bias" and position == "relative":
        # Softmax forgets what all keys have in common. (A rotated bias is not.)
        assert largest < 1e-6
      else:
        assert largest > 1e-6, f"{path} of layer {l}: {largest}"


def test_bfloat16_logits_are_float32_and_close():
  backbone = tiny.backbone()
  half = jax.tree.unflatten(
    jax.tree.structure(tiny.backbone(dtype="bfloat16")),
    jax.tree.leaves(backbone),
  )
  model = tiny.model(NONE)
  exact = _encode(model, backbone, _mel(), FRAMES).logits
  rounded = _encode(model, half, _mel(), FRAMES).logits
  assert rounded.dtype == jnp.float32
  worst = np.abs(rounded - exact).max()
  assert 0 < worst < 0.05 * np.abs(exact).max()
