"""The roofline and the parts of a step: of made-up figures, and of a tiny step."""

import floor
import floor_parts
import jax
import numpy as np
import pytest
import rates
import tiny
import training
from timing import Times

from hra.config import AdapterConfig, Config


def test_the_floor_is_whatever_takes_longer():
  rate = {"flop_rate": 100.0, "byte_rate": 10.0}
  assert floor_parts.floor_seconds(200, 10, **rate) == 2
  assert floor_parts.floor_seconds(200, 30, **rate) == 3


SECONDS = {
  "features": 1.0,
  "loss": 2.0,
  "forward": 4.0,
  "bare": 10.0,
  "gradients": 13.0,
  "step": 14.5,
}


def test_parts_sum_to_the_step():
  parts = floor_parts.shares(SECONDS)
  assert parts == {
    "features": 1,
    "backbone": 7,
    "adapter": 3,
    "loss": 2,
    "optimizer": 1.5,
  }
  assert sum(parts.values()) == SECONDS["step"]


def test_what_is_told_of_a_case():
  found = {
    name: floor_parts.Part(lambda: None, 1e9 * seconds, 1e6)
    for name, seconds in SECONDS.items()
  }
  times = {
    name: Times([seconds, seconds, 9 * seconds], [2 * seconds] * 3)
    for name, seconds in SECONDS.items()
  }
  told = floor.told(found, times, rates.Rates(1e10, 512, 1e9))
  step = told["programs"]["step"]
  assert step["floor_seconds"] == pytest.approx(1.45)
  assert step["over_floor"] == pytest.approx(10)
  assert step["wall_range"] == [14.5, 9 * 14.5]
  assert told["cpu_parts"]["adapter"] == pytest.approx(6)
  lines = floor._parts(told)
  assert "| adapter | 3000.0 | 20.7% | 6000.0 | 20.7% |" in lines
  (row,) = (line for line in floor._programs(told) if line.startswith("| step"))
  assert row.startswith(
    "| step | 14.50 | 1 | 1450.0 | 14500.0 | 29000.0 | 10.0"
  )


def test_rates_are_of_the_best():
  told = rates.measured("float32", sizes=(8, 128), mebibytes=1, repeats=1)
  assert told.size in (8, 128)
  assert told.flops > 0 < told.bytes


@pytest.fixture(scope="module")
def made():
  """A step of HRA and one with the cheapest adapter, on 2 x 1 recordings."""
  backbone = training.random_backbone(tiny.BACKBONE)
  config = Config(adapter=AdapterConfig(width=8))
  config.data.tasks_per_batch, config.data.utterances_per_task = 2, 1
  given = {"tasks": 4, "seconds": 0.5, "backbone": backbone}
  width = tiny.BACKBONE.width
  bare = training.make(config, **given, adapter=floor_parts.Bias(width))
  return training.make(config, **given), bare


def test_programs_of_a_step_cost_more_from_one_to_the_next(made):
  whole, bare = made
  found = floor_parts.programs(whole, bare)
  flops = {name: part.flops for name, part in found.items()}
  step = floor_parts.costs(whole.compiled, lambda: None)
  assert 0 < flops["features"] < flops["forward"] < flops["bare"]
  assert flops["bare"] < flops["gradients"] < step.flops
  assert flops["loss"] < flops["bare"] - flops["features"]
  assert all(part.bytes > 0 for part in found.values())
  for part in found.values():
    ran = jax.block_until_ready(part.run())
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(ran))
    part.run()  # nothing was given away


def test_the_cheapest_adapter_learns_behind_every_layer(made):
  _, bare = made
  found = floor_parts._gradients(bare).run()
  assert np.all(np.abs(found.rows["bias"]).max(axis=-1) > 0)


def test_flops_of_the_model_are_of_every_layer(made):
  whole, _ = made
  assert whole.model_flops() > whole.flops > 0
