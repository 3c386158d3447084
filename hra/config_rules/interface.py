"""What a rule is, and how a table of them is told."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Rule(NamedTuple):
  """What has to be true of a field."""

  field: str
  """Its path from the node, such as `space.kind`."""
  holds: bool
  expected: str
  fix: str = ""


Told = tuple[str, bool, str] | Rule
"""A rule, or its first three fields."""
Minima = dict[type, dict[str, float]]
"""Kind of node -> field -> the least value."""
Table = dict[type, Callable[[Any], Iterable[Told]]]
"""Kind of node -> its rules."""
