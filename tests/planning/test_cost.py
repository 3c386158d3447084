"""FLOPs and temporaries of a jaxpr, against XLA's own of the compiled step."""

import compiled
import hlo
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hra.config import AdapterConfig
from hra.planning import cost

HRA = AdapterConfig(width=128)
WIDE = {"layers": 3, **compiled.WIDE}
STEPS = {
  "hra": (HRA, WIDE),
  "hra, recomputed": (HRA, {**WIDE, "remat": "full"}),
  "lora": (AdapterConfig(family="lora", width=4), WIDE),
}


def _jaxpr(function, *arguments):
  return jax.make_jaxpr(function)(*arguments).jaxpr


def test_what_is_elementwise_is_no_value_of_its_own():
  x, w = np.ones((16, 32), np.float32), np.ones((32, 64), np.float32)

  def function(x, w):
    return jnp.tanh(jnp.tanh(2 * (x @ w)).sum(axis=1))

  jaxpr = _jaxpr(function, x, w)
  product, summed = 16 * 64, 16
  assert (
    cost.flops(jaxpr)
    == 2 * 32 * product + 2 * product + (product - summed) + summed
  )
  assert cost.temporaries(jaxpr) == 4 * (product + summed)


@pytest.mark.parametrize("trips", [3, 7])
def test_a_scan_counts_its_body_and_holds_what_it_stacks(trips):
  weights = np.ones((trips, 32, 32), np.float32)
  x = np.ones((16, 32), np.float32)

  def run(x):
    def body(x, w):
      x = x @ w
      return x, x

    return jax.lax.scan(body, x, weights)[1].sum()

  jaxpr = _jaxpr(run, x)
  size = 16 * 32
  assert cost.flops(jaxpr) == trips * 2 * 32 * size + trips * size - 1
  # What is stacked, what is carried, and the body's own product.
  assert cost.temporaries(jaxpr) == 4 * (trips + 2) * size


def test_what_each_device_does_counts_on_all():
  mesh = jax.sharding.AbstractMesh((2, 4), ("data", "fsdp"))
  spec = jax.sharding.PartitionSpec("data")
  run = jax.shard_map(
    jnp.tanh, mesh=mesh, in_specs=spec, out_specs=spec, axis_names={"data"}
  )
  assert cost.flops(_jaxpr(run, np.ones((8, 4), np.float32))) == 8 * 4


def test_a_donated_table_is_written_in_place():
  table, rows = np.ones((4096, 8)), np.ones((2, 8))

  def step(table, rows):
    return table.at[jnp.arange(2)].set(2 * rows)

  jaxpr = _jaxpr(step, table, rows)
  assert cost.temporaries(jaxpr, donated=True) < table.nbytes / 100


def test_what_is_donated_is_taken_by_what_leaves():
  x = np.ones((64, 64), np.float32)
  jaxpr = _jaxpr(lambda x: (x + 1, (x @ x).sum()), x)
  assert cost.temporaries(jaxpr) == 2 * x.nbytes + 4
  assert cost.temporaries(jaxpr, donated=True) == x.nbytes


def _traced(adapter, **arguments):
  return compiled.trace(adapter, **arguments)[0].jaxpr.jaxpr


@pytest.mark.parametrize(
  "name",
  [
    "hra, recomputed",
    *(
      pytest.param(name, marks=pytest.mark.slow)
      for name in STEPS
      if name != "hra, recomputed"
    ),
  ],
)
def test_a_step_costs_what_xla_says(name):
  adapter, backbone = STEPS[name]
  step = compiled.step(adapter, samples=32_000, **backbone)
  jaxpr = _traced(adapter, samples=32_000, **backbone)
  assert cost.flops(jaxpr) == pytest.approx(hlo.flops(step.program), rel=0.01)
  real = step.compiled.memory_analysis().temp_size_in_bytes
  told = cost.temporaries(jaxpr, donated=True)
  print(name, told / real)
  assert 0.5 < told / real < 1.3


def test_flops_grow_linearly_with_layers():
  two, four, eight = (
    cost.flops(_traced(HRA, layers=layers, **compiled.WIDE))
    for layers in (2, 4, 8)
  )
  assert eight - four == pytest.approx(2 * (four - two), rel=1e-3)
  assert four > 1.5 * two
