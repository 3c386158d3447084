"""LoRA merged into the weights; PEFT's start; which sites a config names."""

import adapted
import jax
import numpy as np
import pytest
import tiny

from hra.adapters import families
from hra.adapters.lora import Lora, sites_of
from hra.backbone.conformer import projections
from hra.config import AdapterConfig
from hra.errors import InputError
from hra.sharding import named_leaves, path_of

PROJECTIONS = projections(tiny.BACKBONE)


def _merged(backbone, row, scale):
  """W + scale A B at every site, in the backbone itself."""

  def merge(keys, leaf):
    site, _, name = path_of(keys).removeprefix("layers/").rpartition("/")
    own = row["layers"].get(site.replace("/", "."))
    if own is None or name != "kernel":
      return leaf
    return leaf + scale * np.einsum("lir,lro->lio", own["a"], own["b"])

  return jax.tree_util.tree_map_with_path(merge, backbone)


@pytest.mark.parametrize(
  ("name", "scale"), [("lora", 2.0), ("lora_some", 1.5 / 3)]
)
def test_merged_into_the_weights_it_says_the_same(name, scale):
  model = tiny.model(adapted.VARIANTS[name])
  backbone = tiny.backbone()
  _, row = adapted.trees(model.adapter, scale=0.2)
  end = adapted.mel(), adapted.LENGTH
  ours = adapted.logits(model, backbone, {}, row, *end)
  bare = tiny.model(adapted.NONE)
  merged = adapted.logits(bare, _merged(backbone, row, scale), {}, {}, *end)
  untouched = adapted.logits(bare, backbone, {}, {}, *end)
  largest = np.abs(merged).max()
  np.testing.assert_allclose(ours, merged, atol=2e-6 * largest)
  assert np.abs(ours - untouched).max() > 0.01 * largest


def test_starts_as_peft_starts_it():
  """A ~ U(-1/sqrt(inputs), 1/sqrt(inputs)), another one in each layer; B = 0."""
  adapter = Lora(layers=2, rank=64, sites=(("wide", 400, 3), ("other", 400, 3)))
  row = adapter.init_task(jax.random.key(0))["layers"]
  a = np.asarray(row["wide"]["a"])
  assert a.shape == (2, 400, 64)
  assert 0.049 < np.abs(a).max() <= 0.05
  assert a.std() == pytest.approx(0.05 / 3**0.5, rel=0.02)
  assert abs(a.mean()) < 1e-3
  assert np.abs(a[0] - a[1]).max() > 0.01
  assert np.abs(a - row["other"]["a"]).max() > 0.01
  for site in row.values():
    assert site["b"].shape == (2, 64, 3)
    assert not np.any(site["b"])


def test_a_site_starts_the_same_whatever_the_others():
  def start(*sites):
    config = AdapterConfig(family="lora", width=2, sites=sites)
    adapter = families.build(config, tiny.BACKBONE)
    return adapter.init_task(jax.random.key(0))["layers"]

  np.testing.assert_array_equal(
    start("first.up")["first.up"]["a"],
    start("attention", "first")["first.up"]["a"],
  )


def test_prefixes_choose_sites():
  def chosen(*prefixes):
    return {site for site, _, _ in sites_of(prefixes, PROJECTIONS)}

  assert chosen("attention.query", "second") == {
    "attention.query",
    "second.up",
    "second.down",
  }
  assert chosen("convolution") == {"convolution.gate", "convolution.output"}
  assert chosen("attention", "first", "second", "convolution") == set(
    PROJECTIONS
  )
  # A site stands once, though two prefixes name it.
  assert len(sites_of(("first", "first.up"), PROJECTIONS)) == 2


def test_sizes_of_sites_are_those_of_the_backbone():
  kernels = {
    path.removeprefix("layers/").removesuffix("/kernel"): leaf.shape[1:]
    for path, leaf in named_leaves(tiny.backbone())
    if path.startswith("layers/") and path.endswith("/kernel")
  }
  kernels.pop("convolution/depthwise")
  assert kernels == {
    site.replace(".", "/"): sizes for site, sizes in PROJECTIONS.items()
  }


@pytest.mark.parametrize(
  ("sites", "message"),
  [
    (("attention.querry",), "did you mean 'attention.query'"),
    (("attention", "frist"), "got 'frist'; did you mean 'first'"),
    (("attention_norm",), "got 'attention_norm'"),
    ((), "got none"),
  ],
)
def test_prefix_of_no_site_is_refused(sites, message):
  config = AdapterConfig(family="lora", sites=sites)
  with pytest.raises(InputError, match=r"config\.adapter\.sites") as refused:
    families.build(config, tiny.BACKBONE)
  assert message in str(refused.value)
