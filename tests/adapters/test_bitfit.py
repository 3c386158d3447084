"""BitFit merged into the biases of the backbone."""

import adapted
import jax
import numpy as np
import pytest
import tiny

from hra.sharding import named_leaves, path_of


def _merged(backbone, row):
  """Every bias of a layer and its delta, summed in the backbone itself."""

  def merge(keys, leaf):
    site, _, name = path_of(keys).removeprefix("layers/").rpartition("/")
    own = row["layers"].get(site.replace("/", "."))
    return leaf if own is None or name != "bias" else leaf + own["bias"]

  return jax.tree_util.tree_map_with_path(merge, backbone)


def test_merged_into_the_biases_it_says_the_same():
  model, backbone = tiny.model(adapted.VARIANTS["bitfit"]), tiny.backbone()
  _, row = adapted.trees(model.adapter)
  end = adapted.mel(), adapted.LENGTH
  ours = adapted.logits(model, backbone, {}, row, *end)
  bare = tiny.model(adapted.NONE)
  merged = adapted.logits(bare, _merged(backbone, row), {}, {}, *end)
  untouched = adapted.logits(bare, backbone, {}, {}, *end)
  largest = np.abs(merged).max()
  np.testing.assert_allclose(ours, merged, atol=2e-6 * largest)
  assert np.abs(ours - untouched).max() > 0.01 * largest


@pytest.mark.parametrize("position", ["rotary", "relative"])
def test_it_owns_every_bias_of_a_layer(position):
  adapter = tiny.model(adapted.VARIANTS["bitfit"]).adapter
  row = jax.eval_shape(adapter.init_task, jax.random.key(0))
  biases = {
    path: leaf.shape
    for path, leaf in named_leaves(tiny.backbone(position=position))
    if path.startswith("layers/") and path.endswith("/bias")
  }
  assert biases == {
    path.replace(".", "/"): leaf.shape for path, leaf in named_leaves(row)
  }
