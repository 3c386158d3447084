"""Which kinds of Submodels a store holds, by its list and one Submodel of each."""

import itertools
from collections.abc import Iterator
from typing import Any

from hra.errors import InputError
from hra.evaluate.groups import Grouping
from hra.serve.kinds import Kind, Kinds, hint
from hra.serve.reading import Shelf

_TRIES = 4
"""Submodels that are opened to know one kind: some may be damaged."""
_WITHOUT = ("none", "full")
"""Families that have no slots."""


class Listing:
  """Of Submodels of one backbone; it takes as long as the store does."""

  def __init__(self, store: Shelf, grouping: Grouping, kinds: Kinds):
    self._store, self._kinds = store, kinds
    self._own = grouping.stored.fingerprint

  def hints(self) -> set[str] | None:
    """Of all kinds; None where the store doesn't say."""
    try:
      return {_hint(entry) for entry in self._entries()}
    except (InputError, OSError):
      return None

  def kinds(self, *, most: int) -> list[Kind]:
    """The most frequent ones."""
    try:
      entries = list(self._entries())
    except (InputError, OSError):  # it may come later, and so do its kinds
      return []
    members: dict[str, list[str]] = {}
    for entry in entries:
      members.setdefault(_hint(entry), []).append(entry.task)
    often = sorted(members.values(), key=len, reverse=True)
    found = map(self._one, itertools.islice(often, most))
    return list(dict.fromkeys(kind for kind in found if kind is not None))

  def _one(self, tasks: list[str]) -> Kind | None:
    """The kind of the first that can be read."""
    for task in tasks[:_TRIES]:
      try:
        return self._kinds.of(self._store[task])
      except (InputError, OSError, KeyError):
        continue
    return None

  def _entries(self) -> Iterator[Any]:
    found, _ = self._store.listing()
    for entry in found:
      kind = entry.kind
      ours = kind.backbone_fingerprint == self._own
      if ours and kind.adapter.family not in _WITHOUT:
        yield entry


def _hint(entry: Any) -> str:
  return hint(entry.kind.adapter, entry.kind.shared_fingerprint)
