"""Flags of commands that turn recordings into text: how they search.

A command adopts them: `flags.adopt_module_key_flags(searching)`.
"""

import dataclasses
from typing import Any

from absl import flags

from hra import config_tree
from hra.config import SearchConfig

_FLAGS: dict[str, flags.FlagHolder] = {
  "beam": flags.DEFINE_integer(
    "beam", None, "Hypotheses that go on together; 0 is greedy search."
  ),
  "language_model": flags.DEFINE_string(
    "language_model",
    None,
    "The folder lm of a run that trained one, or an ARPA file; needs a beam.",
  ),
  "language_model_weight": flags.DEFINE_float(
    "language_model_weight", None, "Of its log-probabilities."
  ),
  "length_bonus": flags.DEFINE_float(
    "length_bonus", None, "Nats for each label."
  ),
  "length_normalization": flags.DEFINE_float(
    "length_normalization",
    None,
    "Power of (5 + labels) / 6 that divides log-probabilities.",
  ),
  "coverage": flags.DEFINE_float(
    "coverage", None, "Nats for each frame that was attended to (las)."
  ),
}
"""Fields of `SearchConfig`; one that isn't given stays as it is configured."""


def given(configured: SearchConfig) -> SearchConfig:
  """What is configured, but for the flags that are given.

  Raises:
    InputError: they contradict one another.
  """
  told: dict[str, Any] = {
    field: flag.value
    for field, flag in _FLAGS.items()
    if flag.value is not None
  }
  search = dataclasses.replace(configured, **told)
  config_tree.validate(search, path="search")
  return search
