"""What an NVIDIA GPU computes, beside the CPU.

JAX_PLATFORMS=cuda,cpu pytest -m gpu
"""

import functools

import adapted
import jax
import numpy as np
import pytest
import tiny

from hra.train import state
from hra.train.gradients import make_gradients
from hra.train.step import make_step

pytestmark = pytest.mark.gpu
TASKS = tiny.NAMES[:4]


def _on(platform: str, function, *arguments, **keywords):
  device = jax.devices(platform)[0]
  placed = jax.device_put(arguments, device)
  with jax.default_device(device):
    return jax.device_get(jax.jit(function)(*placed, **keywords))


def _gradients(variant: str, **computed):
  """Loss and gradients of four tasks, and their arguments, every number random."""
  config = adapted.VARIANTS[variant]
  model = tiny.model(config, **computed)
  space = tiny.space(config, **computed)
  shared, row = adapted.trees(model.adapter)
  stacked = jax.tree.map(lambda leaf: np.stack([leaf] * len(TASKS)), row)
  gradients = functools.partial(
    make_gradients(model, space, policy=None), train_shared=True
  )
  trained = {"adapter": shared, "space": {}}
  batch = tiny.batch(TASKS)
  return gradients, (trained, stacked, tiny.backbone(**computed), batch)


def _compare(first, second, *, part: float) -> None:
  """Within `part` of each leaf's largest number."""
  for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    np.testing.assert_allclose(a, b, rtol=0, atol=part * np.abs(b).max() + 1e-6)


@pytest.mark.parametrize("variant", ["hra_gru", "residual_norm", "lora"])
def test_gradients_are_those_of_the_cpu(variant):
  gradients, arguments = _gradients(variant)
  with jax.default_matmul_precision("highest"):
    ours, theirs = (
      _on(platform, gradients, *arguments, key=jax.random.key(0))
      for platform in ("cuda", "cpu")
    )
  _compare(ours, theirs, part=1e-3)


def test_bfloat16_loses_as_much_as_on_the_cpu():
  gradients, arguments = _gradients("hra", dtype="bfloat16")
  exact, exact_arguments = _gradients("hra")
  rounded = _on("cuda", gradients, *arguments, key=jax.random.key(0))
  whole = _on("cpu", exact, *exact_arguments, key=jax.random.key(0))
  _compare(rounded.total_K, whole.total_K, part=0.02)


def _memory(rows: int):
  """What a step on a table of `rows` allocates, and the table's bytes."""
  names = [f"task-{index}" for index in range(rows)]
  space, optimizers = tiny.space(), tiny.optimizers()
  fresh = state.init(space, optimizers, names, key=jax.random.key(2))
  step = make_step(tiny.model(), space, optimizers, policy=None)
  compiled = (
    jax.jit(step, donate_argnums=0)
    .lower(fresh, tiny.backbone(), tiny.batch(TASKS), tiny.terms())
    .compile()
  )
  held = sum(leaf.nbytes for leaf in jax.tree.leaves(fresh.rows))
  return compiled.memory_analysis(), held


def test_the_table_is_updated_in_place():
  """What is allocated beside it doesn't grow with it."""
  (small, _), (large, held) = _memory(8), _memory(4096)
  assert large.alias_size_in_bytes >= 3 * held  # rows and both moments
  grown = large.temp_size_in_bytes - small.temp_size_in_bytes
  assert grown < held / 10
