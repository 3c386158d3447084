"""Connectionist temporal classification (Graves et al. 2006) of one utterance.

In: hidden_TD of an encoder. Out: a loss, or labels by best path.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from hra.config import BackboneConfig
from hra.decoders.interface import (
  BLANK,
  Emissions,
  Labels,
  Loss,
  exactly,
  masked,
)
from hra.decoders.scorers import CtcScorer
from hra.nn.types import types_of


class Ctc(nnx.Linear):
  """One projection: a label, or the blank, for each frame."""

  def __init__(self, config: BackboneConfig, *, rngs: nnx.Rngs):
    super().__init__(
      config.width, config.vocabulary, rngs=rngs, **types_of(config)
    )

  def loss(
    self,
    hidden_TD: jax.Array,
    length: jax.Array,
    labels_U: jax.Array,
    label_length: jax.Array,
  ) -> Loss:
    return loss(exactly(self(hidden_TD)), length, labels_U, label_length)

  def logits(
    self, hidden_TD: jax.Array, length: jax.Array, labels_U: jax.Array
  ) -> jax.Array:
    del length, labels_U
    return exactly(self(hidden_TD))

  def greedy(self, hidden_TD: jax.Array, length: jax.Array) -> Labels:
    return collapse(best_path(exactly(self(hidden_TD)), length))

  def emissions(self, hidden_TD: jax.Array, length: jax.Array) -> Emissions:
    path_T = best_path(exactly(self(hidden_TD)), length)
    return Emissions(path_T, jnp.arange(len(path_T)), length)

  def scorer(self, hidden_TD: jax.Array, length: jax.Array) -> CtcScorer:
    return CtcScorer(logits_TV=exactly(self(hidden_TD)), length=length)


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
  return masked(total, label_length, possible & (label_length > 0))


def best_path(logits_TV: jax.Array, length: jax.Array) -> jax.Array:
  """The likeliest label of each frame [T]; blank where the frame is padding."""
  valid_T = jnp.arange(len(logits_TV)) < length
  return jnp.where(valid_T, jnp.argmax(logits_TV, axis=-1), BLANK)


def collapse(path_T: jax.Array) -> Labels:
  """A frame-wise path -> labels: repeats merged, blanks dropped."""
  before_T = jnp.concatenate([jnp.full_like(path_T[:1], BLANK), path_T[:-1]])
  kept_T = (path_T != BLANK) & (path_T != before_T)
  place_T = jnp.where(kept_T, jnp.cumsum(kept_T) - 1, len(path_T))
  labels_U = jnp.zeros_like(path_T).at[place_T].set(path_T, mode="drop")
  return Labels(labels_U, kept_T.sum())
