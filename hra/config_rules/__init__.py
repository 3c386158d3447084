"""What fields of the configuration say of one another, as a table of rules.

Enters: one node of the tree of `hra.config`. Leaves: each of its rules, and
whether it holds; `hra.config_tree.validate` asks for all of them.
"""

import itertools
from collections.abc import Iterator
from typing import Any

from hra.config_rules import model, run, serve, sound
from hra.config_rules.interface import Minima, Rule, Table, Told

_MINIMA: Minima = model.MINIMA | sound.MINIMA | run.MINIMA | serve.MINIMA
_RULES: Table = model.RULES | sound.RULES | run.RULES | serve.RULES


def rules(config: Any) -> Iterator[Rule]:
  """The rules of one node of the tree; those of its groups are their own."""
  own = _RULES.get(type(config), lambda _: ())
  for each in itertools.chain(_minima(config), own(config)):
    yield Rule(*each)


def _minima(config: Any) -> Iterator[Told]:
  for field, low in _MINIMA.get(type(config), {}).items():
    yield field, getattr(config, field) >= low, f"at least {low:g}"
