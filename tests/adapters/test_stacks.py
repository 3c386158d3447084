"""Adapters of an encoder-decoder: which sites a stack has, and rows from files."""

import adapted
import jax
import numpy as np
import pytest

from hra import submodels
from hra.adapters import families
from hra.config import AdapterConfig, BackboneConfig, DecoderConfig
from hra.errors import InputError
from hra.submodels import Submodel

BACKBONE = BackboneConfig(
  encoder="transformer",
  width=16,
  layers=2,
  feed_forward=24,
  vocabulary=8,
  decoder=DecoderConfig(
    kind="transformer", layers=3, heads=2, feed_forward=32, places=12
  ),
)


def _lora(*sites, stacks="both"):
  config = AdapterConfig(family="lora", width=2, sites=sites, stacks=stacks)
  return families.build(config, BACKBONE)


@pytest.mark.parametrize(
  ("sites", "expected"),
  [
    (
      ("attention.key",),
      {"encoder": {"attention.key"}, "decoder": {"attention.key"}},
    ),
    (
      ("decoder.attention.key", "feed_forward.up"),
      {
        "encoder": {"feed_forward.up"},
        "decoder": {"attention.key", "feed_forward.up"},
      },
    ),
    (
      ("encoder.feed_forward", "cross_attention.key"),
      {
        "encoder": {"feed_forward.up", "feed_forward.down"},
        "decoder": {"cross_attention.key"},
      },
    ),
    (("encoder.attention.key",), {"encoder": {"attention.key"}}),
  ],
)
def test_a_site_is_of_both_stacks_or_of_one(sites, expected):
  found = {
    stack: {site for site, *_ in part.sites}
    for stack, part in _lora(*sites).parts
  }
  assert found == expected


@pytest.mark.parametrize(
  ("site", "stacks"),
  [
    ("encoder.cross_attention", "both"),
    ("decoder.attention", "decoder"),
    ("encoder.attention", "encoder"),
  ],
)
def test_a_stack_s_site_is_refused_where_it_has_none(site, stacks):
  with pytest.raises(InputError, match=f"config.adapter.sites.*'{site}'"):
    _lora(site, stacks=stacks)


def test_what_files_have_no_empty_trees_of(tmp_path):
  """Parts that share nothing, from a file as they were made."""
  config = AdapterConfig(family="residual", width=2, stacks="both")
  adapter = families.build(config, BACKBONE)
  shared, row = adapted.trees(adapter)
  path = submodels.save(
    tmp_path,
    Submodel(
      task="anna",
      adapter=config,
      row=row,
      shared=shared,
      backbone_fingerprint="b",
      shared_fingerprint=submodels.shared_fingerprint(shared),
      summary={},
    ),
  )
  found = submodels.load(path)
  for stack in ("encoder", "decoder"):
    ours = adapter.at(stack, found.shared, found.row)
    made = adapter.at(stack, shared, row)
    assert ours[0] == made[0]
    jax.tree.map(np.testing.assert_array_equal, ours[1:], made[1:])
