"""Slots: rows of Submodels on the device, one table for each kind.

A row enters in place of the one that was used longest ago. Who is in which slot
changes under the engine's lock; the numbers only in the thread of the device.
"""

import collections
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from hra.adapters.interface import Tree
from hra.serve.kinds import Kind
from hra.serve.programs import Programs
from hra.serve.reading import Row


class Table:
  """Of one kind. Slot 0 is nobody's."""

  def __init__(self, kind: Kind, programs: Programs):
    self.kind = kind
    self.evictions = 0
    self.used = time.monotonic()
    """When a row of it was last wanted."""
    self.rows: collections.OrderedDict[Row, None] = collections.OrderedDict()
    """Those in slots, the latest used last."""
    self._slots = programs.sizes.slots
    self.clear(programs)

  def clear(self, programs: Programs) -> None:
    """Makes it anew, empty."""
    for row in self.rows:
      row.slot = 0
    self.rows.clear()
    self.numbers: Tree = programs.empty(self.kind)
    self._free = list(range(self._slots, 0, -1))
    self._left: set[int] = set()

  def place(self, rows: Iterable[Row]) -> list[Row]:
    """Gives each a slot; those that have to be written to theirs."""
    wanted = dict.fromkeys(rows)
    for row in wanted:
      if row in self.rows:
        self.rows.move_to_end(row)
    written = [row for row in wanted if row not in self.rows]
    for row in written:
      if not self._free:
        self.release(next(each for each in self.rows if each not in wanted))
        self.evictions += 1
      row.slot = self._free.pop()
      self._left.discard(row.slot)
      self.rows[row] = None
    self.used = time.monotonic()
    for row in wanted:
      row.used = self.used
    return written

  def release(self, row: Row) -> None:
    """Takes a slot from a row, which may have none."""
    if row in self.rows:
      del self.rows[row]
      self._free.append(row.slot)
      self._left.add(row.slot)
      row.slot = 0

  def left(self) -> list[int]:
    """Slots in which numbers of somebody still stand who has none; says so once."""
    slots, self._left = sorted(self._left), set()
    return slots

  def write(self, programs: Programs, row: Row, slot: int) -> None:
    self.numbers = programs.write(self.kind, self.numbers, row.numbers, slot)

  def wipe(self, programs: Programs, slot: int) -> None:
    nothing = jax.tree.map(
      lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.kind.outline
    )
    self.numbers = programs.write(self.kind, self.numbers, nothing, slot)


class Made(NamedTuple):
  """Programs, and a table for each of their kinds."""

  programs: Programs
  tables: Mapping[Kind, Table]


def made(programs: Programs, before: Made | None) -> Made:
  """With the tables that there were; new ones are empty."""
  kept = {} if before is None else before.tables
  tables = {
    kind: kept[kind] if kind in kept else Table(kind, programs)
    for kind in programs.kinds
  }
  return Made(programs, tables)
