"""The task table: who is read, who is written, and what a fresh row depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import tiny

from hra.adapters import families, table
from hra.config import AdapterConfig

ADAPTER = families.build(
  AdapterConfig(width=4, head="feed_forward", head_width=3), tiny.BACKBONE
)
KEY = jax.random.key(0)


def _table(tasks=5):
  rng = np.random.default_rng(0)
  return {
    "a": jnp.asarray(rng.standard_normal((tasks, 2, 3)), jnp.float32),
    "b": {"c": jnp.asarray(rng.standard_normal(tasks), jnp.float32)},
  }


def _assert_same(first, second):
  jax.tree.map(np.testing.assert_array_equal, first, second)


def test_gather_reads_rows_in_order_and_zeros_out_of_range():
  rows = table.gather(_table(), np.array([3, 5, 0, 900, -1]))
  for leaf, source in zip(
    jax.tree.leaves(rows), jax.tree.leaves(_table()), strict=True
  ):
    np.testing.assert_array_equal(leaf[0], source[3])
    np.testing.assert_array_equal(leaf[2], source[0])
    for place in (1, 3, 4):
      np.testing.assert_array_equal(leaf[place], np.zeros_like(source[0]))


def test_scatter_writes_the_batch_and_nothing_else():
  before = _table()
  rows = jax.tree.map(lambda leaf: 10 + leaf, _table(tasks=5))
  after = table.scatter(before, np.array([4, 5, 1, 6, -1]), rows)
  for old, new, row in zip(
    *map(jax.tree.leaves, (before, after, rows)), strict=True
  ):
    np.testing.assert_array_equal(new[4], row[0])
    np.testing.assert_array_equal(new[1], row[2])
    for untouched in (0, 2, 3):
      np.testing.assert_array_equal(new[untouched], old[untouched])


def test_scatter_undoes_gather():
  task_K = np.array([2, 7, 0])
  before = _table()
  _assert_same(
    table.scatter(before, task_K, table.gather(before, task_K)), before
  )


def test_gradient_of_a_gathered_row_stays_in_its_row():
  gradient = jax.grad(
    lambda rows: table.gather(rows, np.array([3, 5]))["a"].sum()
  )(_table())["a"]
  expected = np.zeros((5, 2, 3))
  expected[3] = 1
  np.testing.assert_array_equal(gradient, expected)


def test_fresh_row_depends_on_name_and_key_only():
  crowd = table.init_rows(
    ADAPTER.init_task, ["anna", "bert", "cleo", "dora"], KEY
  )
  alone = table.init_rows(ADAPTER.init_task, ["cleo"], KEY)
  moved = table.init_rows(ADAPTER.init_task, ["cleo", "zoë"], KEY)
  third = jax.tree.map(lambda leaf: leaf[2:3], crowd)
  _assert_same(third, alone)
  _assert_same(jax.tree.map(lambda leaf: leaf[:1], moved), alone)
  hidden = crowd["head"]["hidden"]["kernel"]
  assert len({np.asarray(row).tobytes() for row in hidden}) == 4
  other = table.init_rows(ADAPTER.init_task, ["cleo"], jax.random.key(1))
  assert np.any(other["head"]["hidden"]["kernel"] != hidden[2:3])


def test_count_takes_arrays_and_shapes():
  assert table.count(_table()) == 5 * (2 * 3 + 1)
  assert table.count(jax.eval_shape(_table)) == 35
  assert table.count({}) == 0
