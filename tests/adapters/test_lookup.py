"""Rows in a table: looked up layer by layer, as if each were at hand."""

import adapted
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hra.adapters import table
from hra.adapters.composite import Composite
from hra.adapters.full import Full
from hra.adapters.lookup import Lookup
from hra.errors import InputError
from hra.model import Model

ROWS = 5
NAMES = ("hra_gru", "residual_norm", "lora", "bitfit")
END = adapted.mel(), adapted.LENGTH


@pytest.fixture(scope="module")
def parts():
  """Name -> its adapter, its shared parameters, a table of its rows."""
  found = {}
  for seed, name in enumerate(NAMES):
    adapter = tiny.model(adapted.VARIANTS[name]).adapter
    shared, _ = adapted.trees(adapter, seed=10 * seed)
    rows = [adapted.trees(adapter, seed=100 * seed + n)[1] for n in range(ROWS)]
    found[name] = adapter, shared, _stacked(rows)
  return found


def _stacked(rows):
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def _batch(adapter, shared, rows_B):
  """Logits of one recording, by each of the rows."""
  model = Model(adapter=adapter, frontend=tiny.FRONTEND)
  given = tiny.backbone(), shared
  by_row = jax.vmap(
    lambda row: adapted.logits(model, *given, row, *END), in_axes=0
  )
  return np.asarray(jax.jit(by_row)(rows_B))


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_each_row_by_itself(name, parts):
  adapter, shared, rows_N = parts[name]
  place_B = np.array([3, 0, 3, 4], np.int32)
  ours = _batch(
    Lookup(family=adapter),
    Lookup.shared(shared, rows_N),
    Lookup.row(place_B),
  )
  expected = _batch(adapter, shared, table.gather(rows_N, place_B))
  scale = np.abs(expected).max()
  np.testing.assert_allclose(ours, expected, atol=1e-6 * scale)
  np.testing.assert_array_equal(ours[0], ours[2])
  assert np.abs(ours[0] - ours[1]).max() > 0.01 * scale


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", [ROWS, -1])
def test_a_place_out_of_range_reads_zeros(name, place, parts):
  adapter, shared, rows_N = parts[name]
  ours = _batch(
    Lookup(family=adapter),
    Lookup.shared(shared, rows_N),
    Lookup.row(np.array([place], np.int32)),
  )
  zeros = jax.tree.map(lambda leaf: np.zeros_like(leaf[:1]), rows_N)
  expected = _batch(adapter, shared, zeros)
  np.testing.assert_allclose(ours, expected, atol=1e-6 * np.abs(expected).max())


def test_parts_of_a_composite_look_up_in_their_own_tables(parts):
  """Each by its own place; who doesn't act adds nothing."""
  by_rows = Composite(parts=tuple((n, parts[n][0]) for n in NAMES))
  by_places = Composite(
    parts=tuple((n, Lookup(family=parts[n][0])) for n in NAMES)
  )
  places = dict(zip(NAMES, (2, 4, 0, 1), strict=True))
  active = {n: np.array([n != "lora", n == "lora"]) for n in NAMES}
  shared = {n: Lookup.shared(*parts[n][1:]) for n in NAMES}
  place_B = {n: np.full(2, places[n], np.int32) for n in NAMES}
  ours = _batch(
    by_places,
    by_places.shared(shared),
    by_places.of_all({n: Lookup.row(place_B[n]) for n in NAMES}, active),
  )
  rows_B = {n: table.gather(parts[n][2], place_B[n]) for n in NAMES}
  expected = _batch(
    by_rows,
    by_rows.shared({n: parts[n][1] for n in NAMES}),
    by_rows.of_all(rows_B, active),
  )
  scale = np.abs(expected).max()
  np.testing.assert_allclose(ours, expected, atol=1e-6 * scale)
  alone = _batch(
    *parts["lora"][:2],
    table.gather(parts["lora"][2], np.array([places["lora"]])),
  )
  np.testing.assert_allclose(ours[1], alone[0], atol=1e-5 * scale)


def test_no_batch_of_rows_is_written(parts):
  """Only a layer's: 64 recordings by a table of 5 take no room for 64 rows."""
  adapter, shared, rows_N = parts["residual_norm"]
  model = Model(adapter=Lookup(family=adapter), frontend=tiny.FRONTEND)
  place_B = np.zeros(64, np.int32)
  layers, *sizes = rows_N["layers"]["down"]["kernel"].shape[1:]

  def by_place(place):
    return adapted.logits(
      model,
      tiny.backbone(),
      Lookup.shared(shared, rows_N),
      Lookup.row(place),
      *END,
    )

  text = jax.jit(jax.vmap(by_place)).lower(place_B).compile().as_text()
  of_a_layer = ",".join(map(str, (64, *sizes)))
  assert f"[{of_a_layer}]" in text
  for whole in ((64, layers, *sizes), (layers, 64, *sizes)):
    assert f"[{','.join(map(str, whole))}]" not in text


def test_full_fine_tuning_has_no_table():
  full = tiny.model(adapted.VARIANTS["full"]).adapter
  assert isinstance(full, Full)
  with pytest.raises(InputError, match="leaves the weights alone"):
    Lookup(family=full)
