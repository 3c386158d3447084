"""Experiments that say what they take: their words are the plan's."""

import json
import math
import re
import shlex
from pathlib import Path

import jax
import pytest

from hra.adapters import table
from hra.backbone import store
from hra.commands import configs
from hra.config_tree import validate
from hra.planning import outlines, page, plan, scale
from hra.sharding import BATCH, abstract_mesh, device_bytes, placed_shapes

GIB = 2**30
PLANNED = Path(__file__).parents[2] / "docs" / "plan.json"
ESTIMATED = re.compile(r"([\d.]+) (?=[KMG]iB|TFLOP)")


def _told(name):
  """(the flags of the docstring's `hra plan`, the lines that it says)."""
  said = configs.load_module(configs.experiment(name)).__doc__
  command, _, lines = said.partition("says:\n")
  line = re.search(r"hra plan(?:.*\\\n)*.*", command)[0].replace("\\\n", " ")
  flags = dict(word[2:].split("=") for word in shlex.split(line)[2:])
  return flags, [line.strip() for line in lines.splitlines() if line.strip()]


@pytest.mark.parametrize("name", ["medasr_hra", "parakeet_hra", "whisper_hra"])
def test_says_what_it_takes(name):
  flags, lines = _told(name)
  assert flags["config"] == f"experiments/{name}.py"
  config = configs.load(configs.experiment(name))
  validate(config)
  outline = outlines.of_config(config, name=flags["backbone"])
  made = plan.plan(config, outline, devices=1, tasks=int(flags["tasks"]))
  found = [line.strip() for line in page.text(made, config).splitlines()]
  found = [line for line in found[4:] if line]
  place = lines.index("estimate")
  assert place == 9
  assert lines[:place] == found[:place]
  # Another version of JAX traces another program.
  assert _without(lines[place:]) == _without(found[place:])
  for ours, theirs in zip(lines[place:], found[place:], strict=True):
    assert _numbers(ours) == pytest.approx(_numbers(theirs), rel=0.2)
  # Were the estimate too low by all that it was ever found to be, it would fit.
  assert made.kept_bytes + made.estimates.temporaries / 0.6 < 22 * GIB


@pytest.mark.parametrize(
  ("devices", "places"), [(256, 64), (16, 16)], ids=["v5e-256", "v4-32"]
)
def test_two_billion_parameters_need_no_backbone_to_plan(devices, places):
  config = configs.load(configs.experiment("usm_2b_euphonia"))
  config.data.tasks_per_batch = places
  validate(config)
  outline = outlines.of_config(config)
  shapes = store.abstract(outline.config, outline.frontend)
  assert 1.8e9 < table.count(shapes) < 2.2e9
  mesh = abstract_mesh(config.mesh, devices=devices)
  parts = math.prod(mesh.shape[axis] for axis in BATCH)
  sizes = scale.of_config(config, outline, batch_parts=parts, tasks=128)
  assert (sizes.places, sizes.tasks) == (places, 128)
  placed = placed_shapes({"backbone": shapes}, mesh)
  held = sum(map(device_bytes, jax.tree.leaves(placed)))
  assert held < 1.1 * 2 * table.count(shapes) / 16


@pytest.fixture(scope="module")
def planned():
  return json.loads(PLANNED.read_text())["cases"]


def test_what_is_kept_is_what_xla_was_given(planned):
  for name, case in planned.items():
    given = case["compiled"]["memory_bytes"]["arguments"]
    kept = sum(case["device_bytes"].values())
    assert kept == pytest.approx(given, rel=0.01), name


def test_two_billion_parameters_take_what_their_plans_say(planned):
  said = configs.load_module(configs.experiment("usm_2b_euphonia")).__doc__
  words = " ".join(said.split())
  few, many, small = (
    f"{case['compiled']['memory_bytes']['together'] / GIB:.1f}"
    for case in (planned[name] for name in ("v5e_128", "v5e_4096", "v4_128"))
  )
  assert f"{few} and {many} of 16 GiB a chip of the v5e-256" in words
  assert f"{small} of 32 of the v4-32" in words


def _without(lines):
  return [ESTIMATED.sub("", line) for line in lines]


def _numbers(line):
  return [float(number) for number in ESTIMATED.findall(line)]
