"""The device: programs, tables of rows, and what one turn of it does.

Turns are planned under the engine's lock and done, one after the other, without it.
"""

import dataclasses
import operator
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hra.serve.batching import Batch
from hra.serve.kinds import Kind
from hra.serve.programs import Programs
from hra.serve.reading import Row
from hra.serve.tables import Made, Table

Loads = list[tuple[Row, Any]]
"""Rows that are wanted on the device, and who is told."""


@dataclasses.dataclass
class Turn:
  """Slots to be wiped and written, and a batch to be heard by them."""

  there: Loads
  wiped: list[tuple[Table, int]]
  written: list[tuple[Table, Row, int]]
  batch: Batch | None
  slot_GB: np.ndarray
  """Of the batch: of each kind, whose row is each recording's."""


class Device:
  """Nothing, before it has programs."""

  def __init__(self) -> None:
    self.made: Made | None = None
    self._evicted = 0
    """From tables that are no more."""

  @property
  def programs(self) -> Programs | None:
    return self.made.programs if self.made else None

  @property
  def _tables(self) -> Mapping[Kind, Table]:
    return self.made.tables if self.made else {}

  @property
  def kinds(self) -> tuple[Kind, ...]:
    """Those that batches may hold."""
    return self.programs.kinds if self.programs else ()

  @property
  def evictions(self) -> int:
    found = sum(table.evictions for table in self._tables.values())
    return self._evicted + found

  def rows(self) -> list[Row]:
    """Those in slots, the latest used first."""
    found = [row for table in self._tables.values() for row in table.rows]
    return sorted(found, key=operator.attrgetter("used"), reverse=True)

  def adopt(self, made: Made) -> None:
    """Goes on with other programs; nobody needs the tables that they have not."""
    for kind, table in self._tables.items():
      if kind not in made.tables:
        self._evicted += table.evictions
    self.made = made

  def release(self, row: Row) -> None:
    """Takes its slot from a row that is current no more."""
    if row.kind is not None and row.kind in self._tables:
      self._tables[row.kind].release(row)

  def plan(self, there: Loads, batch: Batch | None) -> Turn | None:
    """A turn that brings rows to the device, and hears a batch; None is nothing.

    Args:
      there: those that are loaded; later ones may take the slots of others.
    """
    written: list[tuple[Table, Row, int]] = []
    wanted = [[row] for row, _ in there]
    if batch is not None:
      wanted.append([job.row for job in batch.jobs if job.row is not None])
    for together in wanted:
      for kind in {row.kind for row in together if row.kind is not None}:
        table = self._tables[kind]
        own = [row for row in together if row.kind is kind]
        written += [(table, row, row.slot) for row in table.place(own)]
    wiped = [
      (table, slot) for table in self._tables.values() for slot in table.left()
    ]
    if not (there or wiped or batch):
      return None
    return Turn(there, wiped, written, batch, self._slots(batch))

  def write(self, turn: Turn) -> float:
    """Brings rows to their slots; the seconds that it took."""
    begun = time.monotonic()
    for table, slot in turn.wiped:
      table.wipe(self._compiled, slot)
    for table, row, slot in turn.written:
      table.write(self._compiled, row, slot)
    touched = [table.numbers for table, *_ in turn.written]
    jax.block_until_ready(touched)
    return time.monotonic() - begun

  def hear(self, turn: Turn) -> list[Any]:
    """What is heard in each item of the turn's batch."""
    if turn.batch is None:
      return []
    batch, programs = turn.batch, self._compiled
    wave_BS = np.zeros((batch.places, batch.samples), np.float32)
    lengths_B = np.zeros(batch.places, np.int32)
    for place, item in enumerate(batch.items):
      start, stop = item.job.pieces[item.place]
      wave_BS[place, : stop - start] = item.job.request.wave_S[start:stop]
      lengths_B[place] = stop - start
    tables = [self._tables[kind].numbers for kind in programs.kinds]
    said = jax.device_get(
      programs.run(tables, turn.slot_GB, wave_BS, lengths_B)
    )
    return [
      jax.tree.map(operator.itemgetter(place), said)
      for place in range(len(batch.items))
    ]

  def probe(self) -> None:
    """Whether it computes anything at all; raises whatever it doesn't by."""
    programs = self._compiled
    samples, places = programs.sizes.buckets[0], programs.sizes.batches[0]
    tables = [self._tables[kind].numbers for kind in programs.kinds]
    jax.block_until_ready(
      programs.run(
        tables,
        np.zeros((len(programs.kinds), places), np.int32),
        np.zeros((places, samples), np.float32),
        np.zeros(places, np.int32),
      )
    )

  def clear(self) -> None:
    """Empties all slots: what stands in them is not known."""
    for table in self._tables.values():
      table.clear(self._compiled)

  @property
  def _compiled(self) -> Programs:
    assert self.programs is not None
    return self.programs

  def _slots(self, batch: Batch | None) -> np.ndarray:
    kinds, items = self._compiled.kinds, batch.items if batch else []
    places = batch.places if batch else 0
    slot_GB = np.zeros((len(kinds), places), np.int32)
    for place, item in enumerate(items):
      row = item.job.row
      if row is not None and row.kind is not None:
        slot_GB[kinds.index(row.kind), place] = row.slot
    return slot_GB
