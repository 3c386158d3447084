"""Experiments that say what they take: their words are the plan's."""

import re
import shlex

import pytest

from hra.commands import configs
from hra.config_tree import validate
from hra.planning import outlines, page, plan

GIB = 2**30
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


def _without(lines):
  return [ESTIMATED.sub("", line) for line in lines]


def _numbers(line):
  return [float(number) for number in ESTIMATED.findall(line)]
