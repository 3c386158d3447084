"""Kinds are told apart by what they hold, whatever files say of that."""

import dataclasses
import weakref

import adapted
import jax
import numpy as np
import pytest
import serve_stores as stores

from hra.evaluate.groups import Grouping
from hra.serve.kinds import Kinds, joined, shared_of


@pytest.fixture
def kinds(recognizer):
  return Kinds(Grouping(recognizer.stored))


def test_the_same_adapter_and_shared_parameters_are_one_kind(
  kinds, recognizer, people
):
  kind = kinds.of(people[0])
  assert kinds.of(people[1]) is kind
  copied = jax.tree.map(np.copy, people[2].shared)
  assert kinds.of(dataclasses.replace(people[2], shared=copied)) is kind


def test_what_a_file_says_of_its_shared_parameters_is_a_hint(
  kinds, recognizer, people
):
  other = stores.submodel(recognizer, "other", 1, shared_seed=6)
  lying = dataclasses.replace(other, shared_fingerprint="of 5")
  first, second = kinds.of(people[0]), kinds.of(lying)
  assert first is not second
  assert first.name != second.name
  assert kinds.of(lying) is second


def test_a_kind_that_nobody_holds_is_forgotten(kinds, recognizer):
  known = [
    kinds.of(stores.submodel(recognizer, "x", 1, shared_seed=seed))
    for seed in range(3)
  ]
  assert len(set(known)) == 3
  again = stores.submodel(recognizer, "y", 2, shared_seed=1)
  assert kinds.of(again) is known[1]
  gone = weakref.ref(known.pop(0))
  assert gone() is None
  assert kinds.of(again) is known[0]
  nothing = stores.submodel(recognizer, "z", 3, adapter=adapted.NONE)
  assert kinds.of(nothing) is None


def test_rows_have_numbers_of_their_own_in_the_tables_types(
  kinds, recognizer, people
):
  kind = kinds.of(people[0])
  half = jax.tree.map(lambda leaf: leaf.astype(np.float16), people[0].row)
  for leaf, own in zip(
    jax.tree.leaves(kind.cast(half)), jax.tree.leaves(half), strict=True
  ):
    assert leaf.dtype == np.float32
    np.testing.assert_array_equal(leaf, own)
  whole = jax.tree.leaves(people[0].row)
  for leaf, own in zip(
    jax.tree.leaves(kind.cast(people[0].row)), whole, strict=True
  ):
    assert not np.shares_memory(leaf, own)
  assert shared_of(joined([]), [], []) == {}
