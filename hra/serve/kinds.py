"""Submodels -> kinds: those of one kind stand in one table on the device.

A kind is an adapter and the parameters that its tasks share, by their content.
"""

import dataclasses
import itertools
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from hra.adapters.composite import Composite
from hra.adapters.interface import Adapter, Frozen, Tree
from hra.adapters.lookup import Lookup
from hra.config import AdapterConfig
from hra.errors import InputError
from hra.evaluate.groups import Grouping, equal
from hra.submodels import Submodel, fit


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:
  """Known by itself: `Kinds.of` makes one of each."""

  hint: str
  """What files say of it (`hint`)."""
  name: str
  """Sorts kinds in an order that a restart keeps."""
  adapter: Adapter
  shared: Tree
  """On the host."""
  outline: Tree
  """The shapes of a row."""

  def cast(self, row: Tree) -> Tree:
    """A Submodel's row in the types that stand in slots; no file is behind it."""
    return jax.tree.map(
      lambda leaf, own: np.array(own, leaf.dtype),
      self.outline,
      row,
    )


def hint(adapter: AdapterConfig, shared_fingerprint: str) -> str:
  """What those of one kind say alike; so may those of another."""
  return f"{adapter!r} {shared_fingerprint}"


class Kinds:
  """Of the Submodels of one backbone; safe from any thread."""

  def __init__(self, grouping: Grouping):
    self._grouping = grouping
    self._lock = threading.Lock()
    self._known: list[weakref.ref[Kind]] = []
    """What nobody holds is known no more."""

  def of(self, submodel: Submodel) -> Kind | None:
    """None where it adds nothing to the backbone.

    Raises:
      InputError: it is none of this backbone, or has no slots.
    """
    fit.check(submodel, self._grouping.stored)
    family = submodel.adapter.family
    where = f"Submodel of task {submodel.task!r}"
    if family == "none":
      return None
    if family == "full":
      raise InputError(
        where,
        expected="a family that is a small row, which slots hold",
        got="a backbone of its own (family 'full')",
        fix="hra transcribe hears by it",
      )
    own = hint(submodel.adapter, submodel.shared_fingerprint)
    with self._lock:
      known = [kind for each in self._known if (kind := each()) is not None]
      for kind in known:
        if kind.hint == own and equal(kind.shared, submodel.shared):
          return kind
      names = {kind.name for kind in known}
      adapter = self._grouping.adapter(submodel.adapter)
      kind = Kind(
        hint=own,
        name=next(n for n in _names(own) if n not in names),
        adapter=adapter,
        shared=submodel.shared,
        outline=jax.eval_shape(adapter.init_task, jax.random.key(0)),
      )
      self._known = [weakref.ref(each) for each in (*known, kind)]
      return kind


def _names(hint: str) -> Iterator[str]:
  return (f"{hint} {number}" for number in itertools.count())


def joined(kinds: Sequence[Kind]) -> Adapter:
  """The adapter that acts as each of them, by rows that stand in tables."""
  if not kinds:
    return Frozen()
  if len(kinds) == 1:
    return Lookup(family=kinds[0].adapter)
  return Composite(
    parts=tuple(
      (str(number), Lookup(family=kind.adapter))
      for number, kind in enumerate(kinds)
    )
  )


def shared_of(
  adapter: Adapter, shared: Sequence[Tree], tables: Sequence[Tree]
) -> Tree:
  """What is shared of `joined`'s adapter: of each kind, and its table."""
  found = [Lookup.shared(*each) for each in zip(shared, tables, strict=True)]
  if isinstance(adapter, Composite):
    return adapter.shared(_named(adapter, found))
  return found[0] if found else {}


def rows_of(
  adapter: Adapter, slots: Sequence[jax.Array], active: Sequence[jax.Array]
) -> Tree:
  """A row of `joined`'s adapter, of one slot and one flag for each kind."""
  rows = [Lookup.row(slot) for slot in slots]
  if isinstance(adapter, Composite):
    return adapter.of_all(_named(adapter, rows), _named(adapter, active))
  return rows[0] if rows else {}


def _named(adapter: Composite, each: Sequence[Any]) -> dict[str, Any]:
  return {name: own for (name, _), own in zip(adapter.parts, each, strict=True)}
