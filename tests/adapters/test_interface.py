"""What is no row of an adapter is told by leaf; slices of layers."""

import adapted
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hra.adapters.interface import check_trees, layer_slices, with_layer
from hra.errors import InputError


def _trees(name):
  """The row and the shared parameters of a variant."""
  adapter = tiny.model(adapted.VARIANTS[name]).adapter
  shared, row = adapted.trees(adapter)
  return adapter, row, shared


@pytest.mark.parametrize("name", adapted.VARIANTS)
def test_own_trees_pass(name):
  adapter, row, shared = _trees(name)
  check_trees(adapter, row, shared, where="anna")
  half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), row)
  check_trees(adapter, half, shared, where="anna")


def _of_another_width(row, shared):
  row["layers"]["up"]["kernel"] = np.zeros((2, 3, 16))


def _of_more_layers(row, shared):
  row["layers"]["up"]["bias"] = np.zeros((3, 16))


def _without(row, shared):
  del row["layers"]["down"]["bias"]


def _besides(row, shared):
  shared["controller"] = {"bias": np.zeros(3)}


def _of_integers(row, shared):
  row["layers"]["up"]["bias"] = np.zeros((2, 16), np.int32)


@pytest.mark.parametrize(
  ("spoil", "message"),
  [
    (
      _of_another_width,
      "row/layers/up/kernel: expected floats of shape (2, 4, 16), "
      "got floats of shape (2, 3, 16)",
    ),
    (
      _of_more_layers,
      "row/layers/up/bias: expected floats of shape (2, 16), "
      "got floats of shape (3, 16)",
    ),
    (
      _without,
      "row/layers/down/bias: expected floats of shape (2, 4), got nothing",
    ),
    (
      _besides,
      "shared/controller/bias: expected nothing, got floats of shape (3,)",
    ),
    (
      _of_integers,
      "row/layers/up/bias: expected floats of shape (2, 16), "
      "got int32 of shape (2, 16)",
    ),
  ],
)
def test_other_trees_are_refused_by_leaf(spoil, message):
  adapter, row, shared = _trees("residual")
  spoil(row, shared)
  with pytest.raises(InputError) as refused:
    check_trees(adapter, row, shared, where="anna.safetensors")
  assert str(refused.value).startswith(f"anna.safetensors: {message}")


def test_slices_are_put_back_where_they_came_from():
  tree = {"head": 1, "layers": {"up": 2}}
  assert with_layer(*layer_slices(tree)) == tree
  assert layer_slices({"head": 1}) == ({"head": 1}, {})
  assert with_layer({"head": 1}, {}) == {"head": 1}
