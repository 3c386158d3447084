"""What tests of adapters share: variants, random numbers, one jitted forward."""

import functools
from types import MappingProxyType

import jax
import numpy as np
import pytest
import tiny

from hra.config import AdapterConfig

FRAMES, LENGTH = 24, 21
MELS = tiny.FRONTEND.num_mels

NONE = AdapterConfig(family="none")
VARIANTS = MappingProxyType(
  {
    "hra": AdapterConfig(width=8),
    "hra_gru": AdapterConfig(
      width=8,
      controller="gru",
      controllers="per_layer",
      head="feed_forward",
      head_width=4,
      heads="both",
    ),
    "hra_feed_forward": AdapterConfig(width=8, controller="none"),
    "hra_shared": AdapterConfig(
      width=8, controllers="per_layer", heads="shared"
    ),
    "residual": AdapterConfig(family="residual", width=4),
    "residual_norm": AdapterConfig(family="residual", width=4, norm="per_task"),
    "lora": AdapterConfig(family="lora", width=2),
    "lora_some": AdapterConfig(
      family="lora", width=3, alpha=1.5, sites=("convolution", "second.down")
    ),
    "bitfit": AdapterConfig(family="bitfit"),
    "full": AdapterConfig(family="full"),
  }
)


def mel(frames: int = FRAMES, seed: int = 0, dtype=np.float32) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.standard_normal((frames, MELS)).astype(dtype)


def random(shapes, *, seed: int, scale: float = 0.3):
  """Every number random, also those that start at zero."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: (scale * rng.standard_normal(leaf.shape)).astype(leaf.dtype),
    shapes,
  )


def trees(adapter, *, seed: int = 1, scale: float = 0.3):
  """Shared parameters and a row, every number random."""
  key = jax.random.key(0)
  shared = jax.eval_shape(adapter.init_shared, key)
  row = jax.eval_shape(adapter.init_task, key)
  return (
    random(shared, seed=seed, scale=scale),
    random(row, seed=seed + 1, scale=scale),
  )


@functools.partial(jax.jit, static_argnums=0)
def logits(model, backbone, shared, row, mel_TF, length, active=None):
  return model.logits(
    backbone, shared, row, active, mel_TF, length, tiny.NO_LABELS
  ).logits


def unrolled(model, backbone, shared_of, row_of, mel_TF, length):
  """What the scan must equal: layer after layer, each with its own slices."""
  adapter = model.adapter
  hidden_TD, _, context = backbone.embed(mel_TF, length)
  carry = adapter.init_carry(hidden_TD)
  for l in range(backbone.config.layers):
    layer = jax.tree.map(lambda leaf, l=l: leaf[l], backbone.layers)
    parts = shared_of(l), row_of(l), np.array(l)
    hidden_TD = layer(
      hidden_TD, context, tap=functools.partial(adapter.tap, *parts)
    )
    carry, hidden_TD = adapter.after_layer(*parts, carry, hidden_TD)
  return backbone.head.logits(hidden_TD, length, tiny.NO_LABELS)


def at_layer(tree):
  """l -> the tree as layer l receives it."""

  def at(l):
    own = jax.tree.map(lambda leaf: leaf[l], tree.get("layers", {}))
    return {**tree, "layers": own} if own else tree

  return at


def flops(function, *arguments) -> float:
  """By XLA's own analysis, which counts a scanned body once."""
  found = jax.jit(function).lower(*arguments).cost_analysis()
  if found is None:
    pytest.skip(
      "XLA says what a program will cost before compiling on CPUs only"
    )
  return found["flops"]
