"""The layer scan: its slices, sites and switch; costs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from adapted import (
  LENGTH,
  NONE,
  at_layer,
  flops,
  logits,
  mel,
  trees,
  unrolled,
)

from hra import model as hra_model
from hra.adapters.interface import Frozen
from hra.backbone import store
from hra.backbone.encoders import ENCODERS
from hra.config import AdapterConfig
from hra.model import Model
from hra.sharding import named_leaves

BOTH = AdapterConfig(width=8, heads="both")
LAYERS = tiny.BACKBONE.layers
LABELS_U = np.array([3, 1, 1, 0], np.int32)


@dataclasses.dataclass(frozen=True)
class Layered(Frozen):
  """Reads leaves of its own layer and leaves of all layers, at every place."""

  def init_shared(self, key):
    return {
      "whole": jnp.zeros((2, 16)),
      "layers": {"shift": jnp.zeros((2, 16))},
    }

  def init_task(self, key):
    return {
      "whole": jnp.zeros((2, 16)),
      "layers": {"gain": jnp.zeros((2, 16)), "in": {"site": jnp.zeros((2, 3))}},
    }

  def init_carry(self, hidden_TD):
    return jnp.zeros(hidden_TD.shape[1])

  def after_layer(self, shared, row, layer, carry, hidden_TD):
    assert row["whole"].shape == shared["whole"].shape == (2, 16)
    assert row["layers"]["in"]["site"].shape == (3,)
    carry = 0.5 * carry + shared["layers"]["shift"] * (1 + layer)
    return carry, hidden_TD * (1 + row["layers"]["gain"]) + carry

  def tap(self, shared, row, layer, site, inputs, outputs):
    if site == "second.down":
      return outputs + row["whole"][1] * row["layers"]["in"]["site"][2]
    if site == "attention.output":
      return outputs * (1 + shared["whole"][0] + layer)
    return outputs


def test_each_layer_receives_its_own_slice():
  model = Model(adapter=Layered(), frontend=tiny.FRONTEND)
  backbone = tiny.backbone()
  shared, row = trees(model.adapter)

  scanned = logits(model, backbone, shared, row, mel(), LENGTH)
  looped = jax.jit(
    lambda backbone: unrolled(
      model, backbone, at_layer(shared), at_layer(row), mel(), LENGTH
    )
  )(backbone)
  scale = np.abs(looped).max()
  np.testing.assert_allclose(scanned, looped, atol=1e-5 * scale)
  # The slices differ, and it matters which layer gets which.
  swapped = {**row, "layers": jax.tree.map(lambda x: x[::-1], row["layers"])}
  other = logits(model, backbone, shared, swapped, mel(), LENGTH)
  assert np.abs(other - scanned).max() > 0.01 * scale


@dataclasses.dataclass(frozen=True)
class Listening(Frozen):
  """Writes down the sites that it hears of."""

  sites: list = dataclasses.field(default_factory=list, hash=False)

  def tap(self, shared, row, layer, site, inputs, outputs):
    self.sites.append((site, inputs.shape[-1], outputs.shape[-1]))
    return outputs


@pytest.mark.parametrize(
  "changes",
  [
    {"position": "rotary"},
    {"position": "relative"},
    {**tiny.LSTM},
    {**tiny.LSTM, "causal": True},
  ],
)
def test_sites_are_the_paths_of_all_projections_and_norms(changes):
  """LoRA and BitFit find by them what they adapt."""
  model = Model(adapter=Listening(), frontend=tiny.FRONTEND)
  config = dataclasses.replace(tiny.BACKBONE, **changes)
  backbone = store.abstract(config, tiny.FRONTEND)
  jax.eval_shape(
    lambda backbone: model.encode(backbone, {}, {}, mel(), LENGTH).hidden_TD,
    backbone,
  )
  encoder = ENCODERS[config.encoder]
  expected = encoder.projections(config)
  expected |= {
    site: (wide, wide)
    for site, wide in encoder.biases(config).items()
    if site not in expected
  }
  heard = {site: (i, o) for site, i, o in model.adapter.sites}
  assert heard == expected
  assert len(model.adapter.sites) == len(expected)
  # All that has a bias, which positions, filters and recurrences have not.
  biased = {
    path.removeprefix("layers/").removesuffix("/bias").replace("/", ".")
    for path, _ in named_leaves(backbone)
    if path.startswith("layers/") and path.endswith("/bias")
  }
  assert set(encoder.biases(config)) == biased
  assert heard.keys() - biased == {
    site for site in expected if site.endswith(".recurrent")
  }


@pytest.fixture(scope="module")
def random_hra():
  """Model, backbone, shared parameters, row: none of them at the identity."""
  model = tiny.model(BOTH)
  return model, tiny.backbone(), *trees(model.adapter)


def test_switched_off_is_the_backbone_bit_for_bit(random_hra):
  model, backbone, shared, row = random_hra
  bare = logits(tiny.model(NONE), backbone, {}, {}, mel(), LENGTH)
  off = np.array(False)
  switched = logits(model, backbone, shared, row, mel(), LENGTH, off)
  np.testing.assert_array_equal(switched, bare)
  broken = jax.tree.map(lambda leaf: leaf * np.float32(np.nan), row)
  switched = logits(model, backbone, shared, broken, mel(), LENGTH, off)
  np.testing.assert_array_equal(switched, bare)


def test_switched_on_is_the_adapter(random_hra):
  model, backbone, shared, row = random_hra
  bare = logits(tiny.model(NONE), backbone, {}, {}, mel(), LENGTH)
  always = logits(model, backbone, shared, row, mel(), LENGTH)
  switched = logits(model, backbone, shared, row, mel(), LENGTH, np.array(True))
  scale = np.abs(always).max()
  np.testing.assert_allclose(switched, always, atol=1e-5 * scale)
  assert np.abs(always - bare).max() > 0.01 * scale


def test_padding_and_batch_make_up_change_only_rounding(random_hra):
  model, backbone, shared, row = random_hra
  alone = logits(model, backbone, shared, row, mel(), LENGTH)
  valid = -(-LENGTH // 4)
  mel_BTF = np.stack([mel(32, seed) for seed in (3, 4, 5)])
  mel_BTF[1, :LENGTH] = mel()[:LENGTH]
  mel_BTF[1, LENGTH:] = 1e4
  rows = [trees(model.adapter, seed=seed)[1] for seed in (7, 8, 9)]
  rows[1] = row
  rows_B = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
  batched = jax.jit(
    jax.vmap(functools.partial(logits, model), in_axes=(None, None, 0, 0, 0))
  )(backbone, shared, rows_B, mel_BTF, np.array([32, LENGTH, 5]))
  np.testing.assert_allclose(
    batched[1, :valid], alone[:valid], atol=1e-5 * np.abs(alone).max()
  )


def _loss(model, backbone, shared, row):
  return model.loss(
    backbone, shared, row, mel(), jnp.array(LENGTH), LABELS_U, jnp.array(3)
  ).total


@pytest.fixture(scope="module")
def gradient():
  """remat -> gradient of shared parameters and row."""

  @functools.cache
  def of(remat):
    model, backbone = tiny.model(BOTH), tiny.backbone(remat=remat)
    return jax.jit(
      jax.grad(functools.partial(_loss, model, backbone), argnums=(0, 1))
    )(*trees(model.adapter))

  return of


@pytest.mark.parametrize("remat", ["dots", "branches", "full"])
def test_rematerialisation_changes_no_gradient(gradient, remat):
  for plain, ours in zip(
    *map(jax.tree.leaves, (gradient("none"), gradient(remat))), strict=True
  ):
    assert np.abs(plain).max() > 0
    np.testing.assert_allclose(ours, plain, atol=1e-5 * np.abs(plain).max())


def test_elementwise_functions_are_computed_again_not_kept(monkeypatch):
  """Of LoRA, a site hands on a sum: one number a channel, not its two parts."""
  ours = _kept()
  everything = jax.checkpoint_policies.everything_saveable
  monkeypatch.setitem(hra_model._REMAT_POLICIES, "none", everything)
  assert ours < 0.6 * _kept()


def _kept():
  """Numbers of the layers that the backward pass of LoRA's rows reads again."""
  model = tiny.model(AdapterConfig(family="lora", width=2))
  loss = functools.partial(_loss, model, tiny.backbone())
  traced = jax.make_jaxpr(jax.grad(loss, argnums=1))(*trees(model.adapter))
  forward = next(
    eqn for eqn in traced.eqns if eqn.params.get("length") == LAYERS
  )
  stacked = forward.outvars[forward.params["num_carry"] :]
  return sum(out.aval.size for out in stacked)


def _layer_flops(model, backbone, shared, row):
  """One layer with its adapter, as the scan's body runs it."""
  layer = jax.eval_shape(
    lambda tree: jax.tree.map(lambda leaf: leaf[0], tree), backbone.layers
  )
  hidden_TD, _, context = jax.eval_shape(
    lambda backbone: backbone.embed(mel(), LENGTH), backbone
  )

  def body(layer, context, shared, row, carry, hidden_TD):
    hidden_TD = layer(hidden_TD, context)
    return model.adapter.after_layer(shared, row, 0, carry, hidden_TD)

  carry = jax.eval_shape(model.adapter.init_carry, hidden_TD)
  return flops(body, layer, context, shared, row, carry, hidden_TD)


def _model_flops(model, backbone, shared, row):
  """The whole forward: the body, counted once, times the trip count."""
  once = flops(
    lambda *trees: model.logits(*trees, None, mel(), LENGTH, tiny.NO_LABELS),
    backbone,
    shared,
    row,
  )
  more = backbone.config.layers - 1
  return once + more * _layer_flops(model, backbone, shared, row)


def _deep(layers):
  model = tiny.model(BOTH)
  config = dataclasses.replace(tiny.BACKBONE, layers=layers)
  backbone = store.abstract(config, tiny.FRONTEND)
  return model, backbone, *trees(model.adapter)


def test_flops_grow_linearly_with_layers():
  two, four, eight = (_model_flops(*_deep(layers)) for layers in (2, 4, 8))
  assert (eight - four) / (four - two) == pytest.approx(2, rel=0.01)
  model, backbone, shared, row = _deep(2)
  looped = flops(
    lambda backbone, shared, row: unrolled(
      model, backbone, lambda l: shared, lambda l: row, mel(), LENGTH
    ),
    backbone,
    shared,
    row,
  )
  assert two == pytest.approx(looped, rel=0.01)


def test_rematerialisation_runs_the_forward_twice():
  model, backbone, shared, row = _deep(2)
  plain, dots, branches, full = (
    flops(
      jax.grad(functools.partial(_loss, model), argnums=(1, 2)),
      _with_remat(backbone, remat),
      shared,
      row,
    )
    for remat in ("none", "dots", "branches", "full")
  )
  assert plain < dots < branches < full
  assert full > 1.25 * plain


def _with_remat(backbone, remat):
  config = dataclasses.replace(backbone.config, remat=remat)
  return store.abstract(config, tiny.FRONTEND)


def test_gradient_of_rows_does_no_work_for_frozen_weights():
  """Forward and back to the activations: 2; and to the weights: 3."""
  model, backbone, shared, row = _deep(2)
  loss = functools.partial(_loss, model)
  forward = flops(loss, backbone, shared, row)
  adapter = flops(jax.grad(loss, argnums=(1, 2)), backbone, shared, row)
  everything = flops(jax.grad(loss), backbone, shared, row)
  assert adapter < 2.3 * forward < 2.6 * forward < everything
