"""Slots by themselves: who leaves for whom."""

import types

from hra.serve.tables import Table


def test_who_was_used_longest_ago_leaves():
  programs = types.SimpleNamespace(
    sizes=types.SimpleNamespace(slots=2), empty=lambda kind: {}
  )
  table = Table(None, programs)
  first, second, third = map(_Row, "abc")
  assert table.place([first]) == [first]
  assert table.place([second]) == [second]
  assert table.place([first]) == []
  table.used = 0.0
  assert table.place([third]) == [third]
  assert table.used == third.used > first.used > 0
  assert list(table.rows) == [first, third]
  assert second.slot == 0
  assert {first.slot, third.slot} == {1, 2}


class _Row:
  def __init__(self, name):
    self.name, self.slot, self.used = name, 0, 0.0
