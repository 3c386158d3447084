"""The task table: rows of N tasks, stacked; a batch gathers and scatters K of them.

The one-hot lookup of the Submodels paper (Biadsy et al. 2022, section 3.1) as a
gather: its cost follows the batch, not the table.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from hra.adapters.interface import Tree
from hra.keys import fold_words, hash_words


def init_rows(
  init_task: Callable[[jax.Array], Tree], names: Sequence[str], key: jax.Array
) -> Tree:
  """Fresh rows [N, ...]; each is a function of the key and the task's name.

  Args:
    init_task: a key -> what one fresh task owns.
  """
  words_N2 = np.stack([hash_words(name) for name in names])
  keys_N = jax.vmap(lambda words: fold_words(key, words))(words_N2)
  return jax.vmap(init_task)(keys_N)


def gather(
  table: Tree, task_K: jax.Array | tuple[jax.Array, jax.Array]
) -> Tree:
  """Rows [K, ...] of a table [N, ...]; an id out of range reads zeros.

  Args:
    task_K: or (task_K, layer): parts [K, ...] of rows in a table [N, L, ...].
  """
  return jax.tree.map(
    lambda leaf: leaf.at[task_K].get(
      mode="fill", fill_value=0, wrap_negative_indices=False
    ),
    table,
  )


def scatter(table: Tree, task_K: jax.Array, rows: Tree) -> Tree:
  """Writes rows [K, ...] back; ids are distinct, those out of range dropped.

  With the table donated, XLA updates the K rows in place.
  """
  return jax.tree.map(
    lambda leaf, row: leaf.at[task_K].set(
      row, mode="drop", unique_indices=True, wrap_negative_indices=False
    ),
    table,
    rows,
  )


def nowhere(count: int) -> jax.Array:
  """Distinct ids [K] that are out of range of every table."""
  return jnp.iinfo(jnp.int32).max - jnp.arange(count, dtype=jnp.int32)


def count(tree: Tree) -> int:
  """Numbers in a tree of arrays or shapes."""
  return sum(int(np.prod(jnp.shape(leaf))) for leaf in jax.tree.leaves(tree))
