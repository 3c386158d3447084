"""What a plan says of large runs, and how little it takes to say it."""

import dataclasses
import json
import subprocess
import sys

import jax
import pytest
import tiny

from hra import config_tree
from hra.backbone.foreign.published import PUBLISHED
from hra.config import (
  AdapterConfig,
  Config,
  DataConfig,
  DecoderConfig,
  MeshConfig,
)
from hra.errors import InputError
from hra.planning import outlines, plan, scale

LARGE = "nvidia/parakeet-ctc-0.6b"
MEASURED = """
import json, resource, sys, time
import jax
from hra.config import BackboneConfig, Config
from hra.planning import outlines, plan

jax.devices()
def most():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, began = most(), time.monotonic()
config = Config(backbone=BackboneConfig(param_dtype="float32"))
config.mesh.shard_rows = "never"
outline = outlines.of_config(config, name=sys.argv[1])
made = plan.plan(config, outline, devices=8, tasks=10_000)
print(json.dumps([made.kept_bytes, most() - before, time.monotonic() - began]))
"""


def _tiny(**data) -> tuple[Config, outlines.Outline]:
  config = Config(
    adapter=AdapterConfig(width=8, heads="both"),
    data=DataConfig(
      tasks_per_batch=4, utterances_per_task=2, bucket_seconds=(1.0,), **data
    ),
  )
  return config, outlines.Outline("small", tiny.BACKBONE, tiny.FRONTEND)


def test_a_large_plan_takes_little_memory_and_time():
  done = subprocess.run(
    [sys.executable, "-c", MEASURED, LARGE],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  kept, grown, seconds = json.loads(done.stdout)
  assert kept > 10 * 2**30  # of which nothing was made
  assert grown < 2**30
  assert seconds < 60


def test_devices_divide_the_work_and_the_backbone():
  config, outline = _tiny()
  one = plan.plan(config, outline, devices=1, tasks=100)
  config.mesh = MeshConfig(data=2, fsdp=2, tensor=1)
  four = plan.plan(config, outline, devices=4, tasks=100)
  assert four.estimates.flops == pytest.approx(one.estimates.flops, rel=0.02)
  assert four.kept["batch"].device_bytes * 4 == one.kept["batch"].device_bytes
  frozen = [p.kept["backbone"].device_bytes for p in (one, four)]
  assert 0.5 * frozen[0] < frozen[1] < 0.8 * frozen[0]
  assert one.kept["rows"] == four.kept["rows"]
  assert (one.estimates.gathered, one.devices, four.devices) == (0, 1, 4)
  assert 0 < four.estimates.gathered < frozen[0] / 2
  told = four.estimates
  assert told.peak == four.kept_bytes + told.temporaries + told.gathered


def test_tasks_cost_rows_and_no_flops():
  config, outline = _tiny()
  few, many = (
    plan.plan(config, outline, devices=1, tasks=tasks) for tasks in (10, 1000)
  )
  assert few.per_task == many.per_task == 8 * 16 + 16
  assert many.kept["rows"].numbers == 1000 * many.per_task
  assert many.estimates.flops == pytest.approx(few.estimates.flops, rel=1e-3)
  assert many.estimates.temporaries < 1.02 * few.estimates.temporaries


@pytest.mark.parametrize("most", [0.0, 2.0, 100.0])
def test_a_prompted_decoder_trains_on_no_more_labels_than_it_has_places(most):
  config, outline = _tiny()
  config.prepare.labels_per_second = most
  prompted = DecoderConfig(
    kind="transformer", places=20, prompt=(1, 2, 3, 4), heads=2
  )
  outline = outline._replace(
    config=dataclasses.replace(outline.config, decoder=prompted)
  )
  found = scale.of_config(config, outline, batch_parts=1, seconds=4.0)
  assert found.labels == (8 if most == 2 else 16)


def test_longer_recordings_take_more():
  config, outline = _tiny()
  short, long = (
    plan.plan(config, outline, devices=1, seconds=seconds).estimates
    for seconds in (2.0, 4.0)
  )
  assert 1.8 < long.flops / short.flops < 2.5
  assert 1.8 < long.temporaries / short.temporaries < 4


def test_recomputing_layers_takes_less_memory_and_more_flops():
  config, outline = _tiny()
  config.data.bucket_seconds = (5.0,)
  kept, between, recomputed = (
    plan.plan(
      config,
      outline._replace(
        config=dataclasses.replace(outline.config, layers=24, remat=remat)
      ),
      devices=1,
    ).estimates
    for remat in ("none", "branches", "full")
  )
  assert between.temporaries < 0.7 * kept.temporaries
  assert kept.flops < between.flops < recomputed.flops
  assert recomputed.temporaries < 0.6 * kept.temporaries
  assert 1.2 < recomputed.flops / kept.flops < 1.6


def test_projections_in_8_bits_take_half_of_bfloat16():
  pytest.importorskip("qwix")
  config = Config()
  config.backbone.param_dtype = "bfloat16"
  whole, small = (
    plan.plan(
      config,
      outlines.of_config(
        config_tree.replaced(config, "backbone.weights", weights), name=LARGE
      ),
      devices=1,
      seconds=2.0,
    )
    for weights in ("float", "int8")
  )
  assert small.parameters == whole.parameters == whole.kept["backbone"].numbers
  frozen = [p.kept["backbone"].device_bytes for p in (whole, small)]
  assert 0.5 < frozen[1] / frozen[0] < 0.52


@pytest.mark.slow
def test_compiled_temporaries_take_the_estimate_s_place():
  config, outline = _tiny()
  guessed = plan.plan(config, outline, devices=1).estimates
  known = plan.plan(config, outline, devices=1, compiles=True).estimates
  assert known.flops == guessed.flops
  assert known.temporaries != guessed.temporaries
  assert 0.4 < guessed.temporaries / known.temporaries < 2


def test_a_backbone_that_pretraining_makes(tmp_path):
  config, _ = _tiny(grouping="pooled")
  config.train.mode = "pretrain"
  config.adapter = AdapterConfig(family="none")
  with pytest.raises(InputError, match="vocabulary: expected a number"):
    outlines.of_config(config)
  config.backbone = tiny.BACKBONE
  outline = outlines.of_config(config)
  made = plan.plan(config, outline, devices=1)
  backbone = made.kept["backbone"].numbers
  assert made.kept["shared optimizer"].numbers == 2 * backbone + 1
  assert made.scale.tasks == made.scale.places == 1
  with pytest.raises(InputError, match="none where pretraining makes one"):
    outlines.of_config(config, name="tiny")


def test_what_can_t_be_planned():
  config, outline = _tiny()
  with pytest.raises(InputError, match="tasks_per_batch: expected a multiple"):
    plan.plan(config, outline, devices=3)
  config.train.mode = "language_model"
  with pytest.raises(InputError, match="isn't planned"):
    plan.plan(config, outline, devices=1)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_backbone_is_computed_as_the_run_says(name):
  config = Config()
  config.backbone = dataclasses.replace(
    config.backbone, dtype="bfloat16", param_dtype="bfloat16", remat="full"
  )
  outline = outlines.of_config(config, name=name)
  told = outline.config
  assert (told.dtype, told.param_dtype, told.remat) == (
    "bfloat16",
    "bfloat16",
    "full",
  )
  assert told.width > config.backbone.width


def test_no_array_is_as_large_as_the_table():
  config, outline = _tiny()
  before = {id(array) for array in jax.live_arrays()}
  plan.plan(config, outline, devices=1, tasks=5000)
  made = [a for a in jax.live_arrays() if id(a) not in before]
  assert all(array.size < 5000 for array in made)
