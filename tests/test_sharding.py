"""The path table: every parameter has a rule, every rule a parameter."""

import re

import jax
import jax.numpy as jnp
import public
import pytest
import tiny
from jax.sharding import PartitionSpec as P

from hra import sharding
from hra.backbone.store import abstract
from hra.config import AdapterConfig, BackboneConfig, MeshConfig
from hra.errors import InputError
from hra.train import state


def _trees():
  space = tiny.space(AdapterConfig(width=8, heads="both"), tiny.EMBEDDING)
  fresh = jax.eval_shape(
    lambda key: state.init(
      space, tiny.optimizers(), tiny.NAMES, key=key, keep_best=True
    ),
    jax.random.key(0),
  )
  yield "", fresh
  for changes in ({"position": "relative"}, public.WHISPER):
    config = BackboneConfig(**{**vars(tiny.BACKBONE), **changes})
    yield "backbone", abstract(config, tiny.FRONTEND)


def _paths():
  for name, tree in _trees():
    for path, leaf in sharding.named_leaves(tree):
      yield "/".join(filter(None, (name, path))), leaf


def test_every_parameter_has_a_rule_and_every_rule_a_parameter():
  used = set()
  for path, leaf in _paths():
    spec = sharding.spec_of(path)
    assert len(spec) <= leaf.ndim, path
    used.add(next(rule for rule, _ in sharding.RULES if re.search(rule, path)))
  assert used == {rule for rule, _ in sharding.RULES}


def test_large_matrices_are_divided_in_both_directions():
  assert sharding.spec_of("backbone/layers/first/up/kernel") == P(
    None, "fsdp", "tensor"
  )
  assert sharding.spec_of("backbone/layers/first/down/kernel") == P(
    None, "tensor", "fsdp"
  )
  for layer in ("attention", "cross_attention"):
    assert sharding.spec_of(f"backbone/head/layers/{layer}/query/kernel") == P(
      None, "fsdp", "tensor"
    )


def test_an_optimizer_moment_lies_where_its_parameter_does():
  parameter = "shared/backbone/layers/attention/query/kernel"
  moment = f"shared_optimizer/1/0/mu/{parameter.removeprefix('shared/')}"
  assert sharding.spec_of(moment) == sharding.spec_of(parameter) != P()


@pytest.mark.parametrize(
  "holder",
  ["rows", "rows_optimizer/1/0/mu", "rows_optimizer/1/0/nu", "progress/best"],
)
def test_a_row_of_full_fine_tuning_is_a_row(holder):
  """Its leaves are [N, ...], though their paths are the backbone's."""
  for path, _ in sharding.named_leaves(abstract(tiny.BACKBONE, tiny.FRONTEND)):
    assert sharding.spec_of(f"{holder}/backbone/{path}") == P()


def test_nested_is_the_inverse_of_named_leaves():
  tree = {"a": {"b": 1, "c.d": {"e": 2}}, "f": 3}
  assert sharding.nested(dict(sharding.named_leaves(tree))) == tree


def test_a_parameter_without_a_rule_is_an_error():
  with pytest.raises(InputError, match="novelty/kernel"):
    sharding.shardings({"novelty": {"kernel": jnp.zeros(3)}}, _mesh())


def test_an_axis_that_does_not_divide_is_an_error():
  mesh = jax.sharding.AbstractMesh((1, 1, 3), sharding.AXES)
  with pytest.raises(InputError, match="tensor"):
    sharding._check_divides(
      "backbone/layers/first/up/kernel",
      (2, 16, 32),
      P(None, None, "tensor"),
      mesh,
    )


@pytest.mark.parametrize(
  "axes", [(2, 1, 1), (-1, -1, 1), (0, 1, 1), (-1, 3, 1)]
)
def test_a_mesh_that_does_not_fit_the_devices_is_an_error(axes):
  with pytest.raises(InputError, match=r"config\.mesh"):
    sharding.make_mesh(MeshConfig(*axes), jax.devices()[:1])


def test_one_axis_takes_what_is_left():
  assert dict(_mesh().shape) == {"data": 1, "fsdp": 1, "tensor": 1}


def _mesh():
  return sharding.make_mesh(MeshConfig(), jax.devices()[:1])
