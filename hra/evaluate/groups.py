"""Rows of a request -> groups that one compiled program can run, each on one backbone.

In: a Submodel or none for each member. Out: models with their rows, stacked. That is
one group for all of them, whatever their families and shared parameters, and one for
each that was fine-tuned in full.
"""

import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import jax
import numpy as np

from hra.adapters import families
from hra.adapters.composite import Composite
from hra.adapters.interface import Adapter, Frozen, Tree, wide
from hra.backbone import store
from hra.backbone.network import Backbone
from hra.config import AdapterConfig
from hra.evaluate.places import check_count, filled, places
from hra.model import Model
from hra.peft.folder import Given, open_all
from hra.submodels import Submodel, fit

_Kind = tuple[str, ...]


class Group(NamedTuple):
  """Members of a request that one program runs on one backbone.

  Rows and `active` have a place for each of `filled(members)`; those that fill
  up are not active.
  """

  model: Model
  backbone: Backbone
  members: list[int]
  shared: Tree
  rows: Tree
  active: np.ndarray


class Grouping:
  """Of requests to a resident backbone."""

  def __init__(self, stored: store.StoredBackbone):
    self.stored = stored
    self.bare = Model(adapter=Frozen(), frontend=stored.frontend)

  def groups(
    self,
    submodels: Sequence[Given],
    count: int,
    *,
    guard: bool = False,
  ) -> Iterator[Group]:
    """The rows that one compiled program can run together.

    That is all of them, but for those that were fine-tuned in full: each of these
    is a backbone of its own, made when its turn comes.
    """
    check_count(submodels, count)
    mixed: dict[int, Submodel | None] = {}
    full: dict[_Kind, list[int]] = {}
    weights: dict[_Kind, Submodel] = {}
    for index, submodel in enumerate(open_all(submodels, self.stored)):
      if submodel is None:
        mixed[index] = None
        continue
      fit.check(submodel, self.stored)
      bare = submodel.adapter.family == "none"
      if bare or (guard and submodel.worse_than_backbone):
        mixed[index] = None
      elif submodel.adapter.family == "full":
        kind = _kind(weights, submodel, by=submodel.task, alike="row")
        full.setdefault(kind, []).append(index)
      else:
        mixed[index] = submodel
    if mixed:
      yield self._mixed_group(mixed)
    for kind, members in full.items():
      yield self._full_group(weights[kind], members)

  def _mixed_group(self, chosen: Mapping[int, Submodel | None]) -> Group:
    members = list(chosen)
    kinds: dict[_Kind, Submodel] = {}
    kind_of = {
      index: _kind(kinds, each, by=each.shared_fingerprint, alike="shared")
      for index, each in chosen.items()
      if each is not None
    }
    if not kinds:
      return self._bare_group(self.stored.module, members)
    if len(kinds) == 1:
      (first,) = kinds.values()
      adapter, shared = self.adapter(first.adapter), first.shared
      rows = [wide((each or first).row) for each in chosen.values()]
    else:
      # In an order of their own: the same mix is the same program.
      names = {kind: str(place) for place, kind in enumerate(sorted(kinds))}
      parts = {names[kind]: each for kind, each in kinds.items()}
      adapter = composite = Composite(
        parts=tuple(
          (name, self.adapter(parts[name].adapter)) for name in names.values()
        )
      )
      shared = composite.shared(
        {name: each.shared for name, each in parts.items()}
      )
      rows = [
        composite.row({names[kind_of[index]]: wide(each.row)} if each else {})
        for index, each in chosen.items()
      ]
    active = np.zeros(places(len(members)), bool)
    active[: len(members)] = [each is not None for each in chosen.values()]
    return Group(
      Model(adapter=adapter, frontend=self.stored.frontend),
      self.stored.module,
      members,
      shared,
      jax.tree.map(lambda *leaves: np.stack(leaves), *filled(rows)),
      active,
    )

  def _full_group(self, submodel: Submodel, members: list[int]) -> Group:
    """The bare model on the weights of one Submodel."""
    backbone = _merged(
      self.adapter(submodel.adapter), submodel.row, self.stored.module
    )
    return self._bare_group(backbone, members)

  def _bare_group(self, backbone: Backbone, members: list[int]) -> Group:
    inactive = np.zeros(places(len(members)), bool)
    return Group(self.bare, backbone, members, {}, {}, inactive)

  def adapter(self, config: AdapterConfig) -> Adapter:
    """As it is on this backbone."""
    mels = self.stored.frontend.width
    return families.build(config, self.stored.config, mels=mels)


def _kind(
  kinds: dict[_Kind, Submodel],
  submodel: Submodel,
  *,
  by: str,
  alike: Literal["row", "shared"],
) -> _Kind:
  """The first of `kinds` with the same adapter and arrays, or a new one.

  What files say of their arrays is a hint: these are compared.

  Args:
    by: a name that those of the same arrays have in common.
    alike: what has to be equal.
  """
  arrays = operator.attrgetter(alike)
  place = 0
  while True:  # a new kind is equal to itself
    kind = (repr(submodel.adapter), by, str(place))
    if equal(arrays(kinds.setdefault(kind, submodel)), arrays(submodel)):
      return kind
    place += 1


def equal(first: Tree, second: Tree) -> bool:
  """Whether trees of the same structure hold the same numbers."""
  return first is second or all(
    np.array_equal(ours, theirs)
    for ours, theirs in zip(
      jax.tree.leaves(first), jax.tree.leaves(second), strict=True
    )
  )


@functools.partial(jax.jit, static_argnums=0)
def _merged(adapter: Adapter, row: Tree, backbone: Backbone) -> Backbone:
  return adapter.merge(row, backbone)
