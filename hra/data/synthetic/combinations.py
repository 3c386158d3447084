"""Which habits go together: two pools of speakers that share every habit but no
combination of them.

Some pairs of rules are held out: no training speaker has both rules of one, each
held-out speaker has both of at least one. So a combination of the one pool never
stands in the other, nor within a longer one there, whatever the seed, while every
single rule is heard in both: what a speaker of the other pool needs can be put
together, and can't be looked up.
"""

import functools
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from hra.data.synthetic import phonology

_PLACES = {
  rule: place
  for place, rule in enumerate(itertools.chain(*phonology.GROUPS.values()))
}
_MODULUS, _RESIDUE = 5, 1
"""Of a held-out pair's places: of all small ones, those at which the pools' rules
are most alike in frequency (within a factor of 1.25 at severities about 0.5)."""


def held_out_pairs(rules: Iterable[str]) -> list[tuple[str, str]]:
  """The pairs among these rules that no training speaker has, one in five."""
  ordered = sorted(rules, key=_PLACES.__getitem__)
  return [
    (first, second)
    for first, second in itertools.combinations(ordered, 2)
    if (_PLACES[first] + _PLACES[second]) % _MODULUS == _RESIDUE
  ]


def pick(
  groups: Sequence[str], *, pool: str, rng: np.random.Generator
) -> dict[str, str] | None:
  """A rule of each group, all allowed choices being equally likely.

  Args:
    groups: names in `phonology.GROUPS`.
    pool: `training` or `held_out`.
    rng: gives one number.

  Returns:
    Group -> rule; None where no choice belongs to the pool.
  """
  allowed = _allowed(tuple(groups), pool)
  if not allowed:
    return None
  chosen = allowed[int(rng.integers(len(allowed)))]
  return dict(zip(groups, chosen, strict=True))


@functools.cache
def _allowed(groups: tuple[str, ...], pool: str) -> list[tuple[str, ...]]:
  return [
    rules
    for rules in itertools.product(*(phonology.GROUPS[name] for name in groups))
    if bool(held_out_pairs(rules)) == (pool == "held_out")
  ]
