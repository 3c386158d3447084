"""Each switch of a converted layer matters: set otherwise, parity is lost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import originals
import pytest
import tiny
from originals import torch

from hra import config_tree
from hra.adapters import families
from hra.backbone.network import Backbone
from hra.config import AdapterConfig
from hra.model import Model
from hra.nn import attention

LENGTHS = (64, 41)
TOLERANCE = 5e-6
"""Of test_parity."""

SWITCHES = {
  "lasr": {
    "conformer.norm_epsilon": 1e-5,
    "conformer.activation": "gelu",
    "conformer.feed_forward_weights": (1.0, 0.5),
    "conformer.convolution_weights": (1.0, 1.0),
    "conformer.causal_convolution": True,
    "scale_input": True,
    "heads": 4,
  },
  "parakeet": {
    "conformer.norm_epsilon": 1e-6,
    "conformer.activation": "gelu_tanh",
    "conformer.feed_forward_weights": (1.0, 1.0),
    "conformer.convolution_weights": (1.0, 0.9),
    "conformer.causal_convolution": True,
    "scale_input": False,
  },
  "w2v_bert": {
    "conformer.norm_epsilon": 1e-6,
    "conformer.activation": "relu",
    "conformer.causal_convolution": False,
    "conformer.distance_left": 2,
    "conformer.distance_right": 0,
    "causal": True,
  },
}
"""Another value of each, for the same parameters (of a shorter table, the first)."""


@pytest.fixture(scope="module", params=originals.KINDS)
def pair(request, tmp_path_factory):
  """(family, their logits under the mask, our backbone, the checkpoint)."""
  family = request.param
  original = originals.model(family)
  folder = originals.save(tmp_path_factory.mktemp(family), family, original)
  backbone, found = originals.converted(folder)
  mel = torch.tensor(originals.features(family, LENGTHS))
  mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
  with torch.no_grad():
    logits = original(mel, attention_mask=mask).logits.numpy()
  return family, logits[..., list(found.translated.order)], backbone, found


@functools.partial(jax.jit, static_argnums=0)
def _compiled(model, backbone, mel_BTF, length_B):
  def one(mel_TF, length):
    return model.logits(backbone, {}, {}, None, mel_TF, length, tiny.NO_LABELS)

  return jax.vmap(one)(mel_BTF, length_B)


def _logits(backbone, config, found, family, lengths=LENGTHS):
  """[B, T, V] and the valid frames."""
  adapter = families.build(AdapterConfig(family="none"), config)
  model = Model(adapter=adapter, frontend=found.frontend)
  mel_BTF = originals.features(family, LENGTHS)
  return _compiled(model, backbone, mel_BTF, jnp.asarray(lengths))


def _distance(ours, theirs):
  """Largest difference under the true mask."""
  return max(
    float(np.abs(ours.logits[b, :count] - theirs[b, :count]).max())
    for b, count in enumerate(np.asarray(ours.length))
  )


def _as(config, backbone, found):
  """The same numbers in a module of another configuration."""
  mels = found.frontend.num_mels * found.frontend.stack
  shapes = jax.eval_shape(
    lambda key: Backbone(config, mels=mels, key=key), jax.random.key(0)
  )
  leaves = [
    leaf[tuple(map(slice, like.shape))]
    for leaf, like in zip(
      jax.tree.leaves(backbone), jax.tree.leaves(shapes), strict=True
    )
  ]
  return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


@pytest.mark.slow
def test_every_switch_is_heard(pair):
  family, theirs, backbone, found = pair
  ours = _logits(backbone, found.config, found, family)
  assert _distance(ours, theirs) < TOLERANCE
  for field, value in SWITCHES[family].items():
    config = config_tree.replaced(found.config, field, value)
    other = _logits(_as(config, backbone, found), config, found, family)
    assert _distance(other, theirs) > TOLERANCE, field


def test_positions_are_heard(pair, monkeypatch):
  """Angles of another base, or distances one further to the left."""
  family, theirs, backbone, found = pair

  def angles(index, size, *, dtype):
    return index.astype(dtype)[:, None] * 1e3 ** -(
      jnp.arange(0, size, 2, dtype=dtype) / size
    )

  if family == "w2v_bert":
    other = jax.tree.map(lambda each: each, backbone)
    table = other.layers.attention.distance
    table[...] = jnp.roll(table[...], 1, axis=1)
  else:
    monkeypatch.setattr(attention, "_angles", angles)
    other = _as(found.config, backbone, found)
  _compiled.clear_cache()  # of the program with the right angles
  ours = _logits(other, found.config, found, family)
  _compiled.clear_cache()
  assert _distance(ours, theirs) > TOLERANCE


def test_the_mask_is_heard(pair):
  """Padding taken for speech changes what the shorter one says."""
  family, theirs, backbone, found = pair
  ours = _logits(backbone, found.config, found, family)
  assert _distance(ours, theirs) < TOLERANCE
  unmasked = _logits(
    backbone, found.config, found, family, lengths=(max(LENGTHS),) * 2
  )
  cut = type(ours)(unmasked.logits, ours.length)
  assert _distance(cut, theirs) > TOLERANCE


@pytest.mark.parametrize("leaf", ["bias", "scale"])
def test_every_norm_is_heard(pair, leaf):
  """A hundredth more in one number of one norm of one layer."""
  family, theirs, backbone, found = pair
  heard = 0
  for name in ("first_norm", "attention_norm", "second_norm", "output_norm"):
    if getattr(getattr(backbone.layers, name), leaf) is None:
      continue
    other = jax.tree.map(lambda each: each, backbone)
    parameter = getattr(getattr(other.layers, name), leaf)
    parameter[...] = parameter[...].at[0, 1].add(0.01)
    ours = _logits(other, found.config, found, family)
    assert _distance(ours, theirs) > TOLERANCE, name
    heard += 1
  assert heard == (0 if (family, leaf) == ("lasr", "bias") else 4)
