"""The path table: every parameter has a rule, every rule a parameter."""

import dataclasses
import importlib.util
import math

import jax
import jax.numpy as jnp
import public
import pytest
import tiny
from jax.sharding import PartitionSpec as P

from hra import sharding
from hra.backbone.store import abstract
from hra.config import (
  AdapterConfig,
  BackboneConfig,
  DecoderConfig,
  FrontendConfig,
  MeshConfig,
  TransformerConfig,
)
from hra.errors import InputError
from hra.train import state

BACKBONES = {
  "conformer": {"position": "relative"},
  **public.FORMS,
  "whisper": public.WHISPER,
  "lstm": tiny.LSTM,
  "rnnt": {"decoder": DecoderConfig(kind="rnnt", layers=2)},
  "stateless": {"decoder": DecoderConfig(kind="rnnt", prediction="stateless")},
  "las": {"decoder": DecoderConfig(kind="las", layers=2, location=3)},
  "int8": {"weights": "int8"},
}
"""Every encoder, decoder and front of one."""
WIDE = {"width": 1536, "feed_forward": 6144, "layers": 32, "heads": 8}
"""With a Conformer of these sizes, 2B parameters."""


def _trees():
  for kind in (tiny.TABLE, tiny.EMBEDDING):
    space = tiny.space(AdapterConfig(width=8, heads="both"), kind)
    yield (
      "",
      jax.eval_shape(
        lambda key, space=space: state.init(
          space, tiny.optimizers(), tiny.NAMES, key=key, keep_best=True
        ),
        jax.random.key(0),
      ),
    )
  for name, changes in BACKBONES.items():
    if name == "int8" and importlib.util.find_spec("qwix") is None:
      continue
    config = BackboneConfig(**{**vars(tiny.BACKBONE), **changes})
    yield "backbone", abstract(config, tiny.FRONTEND)


def _paths():
  for name, tree in _trees():
    for path, leaf in sharding.named_leaves(tree):
      yield "/".join(filter(None, (name, path))), leaf


def test_every_parameter_has_a_rule_and_every_rule_a_parameter():
  used = set()
  mesh = _abstract(data=1, fsdp=2, tensor=2)
  for path, leaf in _paths():
    rule = sharding.rule_of(path)
    assert len(rule.spec) <= leaf.ndim, path
    if not sharding.is_row(path):
      sharding.spec_of(path, leaf.shape, mesh)
    used.add(rule)
  assert used == set(sharding.RULES)


@pytest.mark.parametrize("name", sorted({*BACKBONES} - {"int8"}))
def test_nothing_large_of_a_large_backbone_stays_whole(name):
  """More than 512 KiB in bfloat16: a leaf less than 1/8,000 of 2B parameters."""
  changes = {**WIDE, "subsampling_channels": 512, "vocabulary": 1025}
  decoder = BACKBONES[name].get("decoder", DecoderConfig())
  sizes = {"width": 640, "embedding": 640, "joint": 640, "attention": 640}
  if decoder.kind in ("rnnt", "las"):
    changes["decoder"] = dataclasses.replace(decoder, **sizes)
  changes = {**vars(tiny.BACKBONE), **BACKBONES[name], **changes}
  if "transformer" in BACKBONES[name]:
    changes["transformer"] = TransformerConfig()
  if changes["position"] == "distance":
    changes["conformer"] = dataclasses.replace(
      changes["conformer"], distance_left=64, distance_right=8
    )
  mesh = _abstract(data=1, fsdp=16, tensor=4)
  module = abstract(BackboneConfig(**changes), FrontendConfig(num_mels=80))
  placed = sharding.shardings({"backbone": module}, mesh)["backbone"]
  leaves = jax.tree.leaves(placed)
  named = sharding.named_leaves(module)
  for (path, leaf), each in zip(named, leaves, strict=True):
    part = math.prod(each.shard_shape(leaf.shape))
    layers = leaf.shape[0] if "layers" in path and leaf.ndim == 3 else 1
    if leaf.size // layers > 2**18:
      assert part <= leaf.size // 16, path


def test_large_matrices_are_divided_in_both_directions():
  mesh = _abstract(data=1, fsdp=2, tensor=2)

  def spec(path):
    return sharding.spec_of(f"backbone/{path}/kernel", (2, 16, 16), mesh)

  assert spec("layers/first/up") == P(None, "fsdp", "tensor")
  assert spec("layers/first/down") == P(None, "tensor", "fsdp")
  for layer in ("attention", "cross_attention"):
    assert spec(f"head/layers/{layer}/query") == P(None, "fsdp", "tensor")


def test_what_axes_do_not_divide_stays_whole_where_the_table_says_so():
  mesh = _abstract(data=1, fsdp=4, tensor=2)
  for size, expected in ((16, ("fsdp", "tensor")), (12, "fsdp"), (6, None)):
    spec = sharding.spec_of("backbone/positions", (50, size), mesh)
    assert spec == (P(None, expected) if expected else P())


def test_an_optimizer_moment_lies_where_its_parameter_does():
  parameter = "shared/backbone/layers/attention/query/kernel"
  moment = f"shared_optimizer/1/0/mu/{parameter.removeprefix('shared/')}"
  rule = sharding.rule_of(parameter)
  assert sharding.rule_of(moment) == rule
  assert rule.spec != P()


@pytest.mark.parametrize(
  "holder",
  ["rows", "rows_optimizer/1/0/mu", "rows_optimizer/1/0/nu", "progress/best"],
)
def test_a_row_of_full_fine_tuning_is_a_row(holder):
  """Its leaves are [N, ...], though their paths are the backbone's."""
  for path, _ in sharding.named_leaves(abstract(tiny.BACKBONE, tiny.FRONTEND)):
    assert sharding.is_row(f"{holder}/backbone/{path}")


@pytest.mark.parametrize(
  ("asked", "tasks", "divided"),
  [
    ("auto", 2**14, True),
    ("auto", 2**12, False),
    ("always", 6, True),
    ("never", 2**14, False),
  ],
)
def test_large_tables_lie_divided_over_all_devices(asked, tasks, divided):
  """Of 2**11 numbers a task with two moments and a best row: 32 KiB."""
  rows = jax.ShapeDtypeStruct((tasks, 2**11), jnp.float32)
  tree = {
    "rows": rows,
    "rows_optimizer": {"mu": rows, "nu": rows},
    "progress": {"best": rows},
  }
  mesh = _abstract(data=2, fsdp=2, tensor=1, slices=2)
  assert sharding.divides_rows(tree, mesh, asked=asked) is divided
  one = _abstract(data=1, fsdp=1, tensor=1)
  assert not sharding.divides_rows(tree, one, asked=asked)


def test_nested_is_the_inverse_of_named_leaves():
  tree = {"a": {"b": 1, "c.d": {"e": 2}}, "f": 3}
  assert sharding.nested(dict(sharding.named_leaves(tree))) == tree


def test_a_parameter_without_a_rule_is_an_error():
  with pytest.raises(InputError, match="novelty/kernel"):
    sharding.shardings({"novelty": {"kernel": jnp.zeros(3)}}, _mesh())


def test_an_axis_that_does_not_divide_is_an_error():
  mesh = _abstract(data=1, fsdp=1, tensor=3)
  with pytest.raises(InputError, match="tensor"):
    sharding.spec_of("backbone/layers/first/up/kernel", (2, 16, 32), mesh)


@pytest.mark.parametrize(
  "axes", [(2, 1, 1), (-1, -1, 1), (0, 1, 1), (-1, 3, 1)]
)
def test_a_mesh_that_does_not_fit_the_devices_is_an_error(axes):
  with pytest.raises(InputError, match=r"config\.mesh"):
    sharding.make_mesh(MeshConfig(*axes), jax.devices()[:1])


@dataclasses.dataclass(frozen=True)
class _Device:
  """As much of a TPU of several slices as a mesh asks for."""

  id: int
  slice_index: int
  platform: str = "fake"
  device_kind: str = "fake"
  process_index: int = 0


def test_the_slow_axis_goes_from_slice_to_slice():
  devices = [_Device(id, slice_index=id % 2) for id in range(8)]
  mesh = sharding.make_mesh(MeshConfig(fsdp=2, slices=2), devices)
  assert dict(mesh.shape) == {"slice": 2, "data": 2, "fsdp": 2, "tensor": 1}
  for place, of_slice in enumerate(mesh.devices):
    assert {device.slice_index for device in of_slice.flat} == {place}
  with pytest.raises(InputError, match=r"config\.mesh\.slices: expected 2"):
    sharding.make_mesh(MeshConfig(fsdp=2), devices)


def test_one_axis_takes_what_is_left():
  assert set(_mesh().shape.values()) == {1}
  mesh = sharding.abstract_mesh(MeshConfig(fsdp=2, slices=2), devices=16)
  assert dict(mesh.shape) == {"slice": 2, "data": 4, "fsdp": 2, "tensor": 1}


def _mesh():
  return sharding.make_mesh(MeshConfig(), jax.devices()[:1])


def _abstract(**axes):
  return sharding.abstract_mesh(
    MeshConfig(**axes), devices=math.prod(axes.values())
  )
