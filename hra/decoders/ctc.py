"""Connectionist temporal classification (Graves et al. 2006) of one utterance.

In: logits_TV, the blank being id 0. Out: a loss, or labels by best path.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

BLANK = 0


class Loss(NamedTuple):
  """Divided once, by whoever sums: a task's by its own weight."""

  total: jax.Array
  """Negative log-likelihood in nats."""
  weight: jax.Array
  """Labels; 0 where no alignment exists, and then `total` is 0."""


def loss(
  logits_TV: jax.Array,
  length: jax.Array,
  labels_U: jax.Array,
  label_length: jax.Array,
) -> Loss:
  """The CTC loss of one utterance with `length` valid frames.

  An utterance whose transcript fits into no alignment (labels and the blanks
  between repeated ones outnumber the frames) weighs nothing, as does an empty
  place (`label_length` 0): optax returns about 1e5 there, with a gradient.
  """
  padding_T = (jnp.arange(len(logits_TV)) >= length).astype(logits_TV.dtype)
  index_U = jnp.arange(len(labels_U))
  padding_U = (index_U >= label_length).astype(logits_TV.dtype)
  total = optax.ctc_loss(
    logits_TV[None],
    padding_T[None],
    labels_U[None],
    padding_U[None],
    blank_id=BLANK,
  )[0]
  repeats = (labels_U[1:] == labels_U[:-1]) & (index_U[1:] < label_length)
  possible = label_length + repeats.sum() <= length
  counts = possible & (label_length > 0)
  weight = jnp.where(counts, label_length, 0).astype(logits_TV.dtype)
  return Loss(jnp.where(counts, total, 0), weight)


def best_path(logits_TV: jax.Array, length: jax.Array) -> jax.Array:
  """The likeliest label of each frame [T]; blank where the frame is padding."""
  valid_T = jnp.arange(len(logits_TV)) < length
  return jnp.where(valid_T, jnp.argmax(logits_TV, axis=-1), BLANK)


def collapse(path_T: np.ndarray) -> list[int]:
  """A frame-wise path on the host -> labels: repeats merged, blanks dropped."""
  path_T = np.asarray(path_T)
  starts_T = np.append(True, path_T[1:] != path_T[:-1])[: len(path_T)]
  return path_T[starts_T & (path_T != BLANK)].tolist()
