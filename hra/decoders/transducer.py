"""The transducer's loss (Graves 2012, arXiv 1211.3711) by anti-diagonals.

In: encoded_TD of the encoder, predicted_PD of the prediction net (P = U + 1 states: one
before each label and one after the last), and the joint that scores pairs of them; or
its logits. Out: a loss.

From state (t, u) a blank leads to (t + 1, u) and label u + 1 to (t, u + 1); blank ends
(length - 1, U). All cells on an anti-diagonal t + u = n depend on the one before only,
so that each of two scans takes Z = T + U steps of vectors [P].
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hra.decoders.interface import BLANK, Loss, exactly, masked

Tree = Any

Joint = Callable[[jax.Array, jax.Array], jax.Array]
"""encoded_TD, predicted_PD -> logits_TPV."""


def loss(
  logits_BTPV: jax.Array,
  labels_BU: jax.Array,
  lengths_B: jax.Array,
  label_lengths_B: jax.Array,
  *,
  blank: int = BLANK,
) -> jax.Array:
  """Negative log-likelihoods [B] in nats, for tests and small sizes.

  Training uses `joint_loss`, which never holds the logits.

  Args:
    logits_BTPV: not normalised; P = U + 1.
    labels_BU: none of them is the blank.
    lengths_B: valid frames; without any the loss is infinite.
    label_lengths_B: labels of U.
    blank: its id; from the end where negative.
  """

  def one(
    logits_TPV: jax.Array,
    labels_U: jax.Array,
    length: jax.Array,
    label_length: jax.Array,
  ) -> jax.Array:
    blank_TP, label_TU = scores(logits_TPV, labels_U, blank=blank)
    return -log_likelihood(blank_TP, label_TU, length, label_length)

  return jax.vmap(one)(logits_BTPV, labels_BU, lengths_B, label_lengths_B)


def joint_loss(
  joint: Joint,
  encoded_TD: jax.Array,
  predicted_PD: jax.Array,
  length: jax.Array,
  labels_U: jax.Array,
  label_length: jax.Array,
  *,
  chunk: int = 4,
) -> Loss:
  """The transducer loss of one utterance with `length` valid frames.

  Logits [T, P, V] never exist: `chunk` frames are scored at a time, and again in
  the backward pass. An utterance without frames or labels weighs nothing.

  Args:
    joint: may close over parameters, which get their gradients.
  """

  def score(part_TD: jax.Array) -> tuple[jax.Array, jax.Array]:
    return scores(joint(part_TD, predicted_PD), labels_U)

  blank_TP, label_TU = in_chunks(score, encoded_TD, chunk=chunk)
  total = -log_likelihood(blank_TP, label_TU, length, label_length)
  return masked(total, label_length, (length > 0) & (label_length > 0))


def in_chunks(
  score: Callable[[jax.Array], Tree], encoded_TD: jax.Array, *, chunk: int
) -> Tree:
  """What `score` says of all frames, `chunk` of them at a time.

  What it computes on the way is computed again in the backward pass.
  """
  frames = len(encoded_TD)
  chunk = min(chunk, max(frames, 1))
  padded = jnp.pad(encoded_TD, ((0, -frames % chunk), (0, 0)))
  parts = padded.reshape(-1, chunk, encoded_TD.shape[1])
  scored = jax.lax.map(jax.checkpoint(score), parts)
  return jax.tree.map(
    lambda each: each.reshape(len(padded), *each.shape[2:])[:frames], scored
  )


def scores(
  logits_TPV: jax.Array, labels_U: jax.Array, *, blank: int = BLANK
) -> tuple[jax.Array, jax.Array]:
  """Log-probabilities of the blank [T, P] and of the next label [T, U]."""
  logits_TPV = exactly(logits_TPV)
  total_TP = jax.nn.logsumexp(logits_TPV, axis=-1)
  named_TUV = logits_TPV[:, :-1]
  label_TU = jnp.take_along_axis(named_TUV, labels_U[None, :, None], axis=-1)
  return logits_TPV[..., blank] - total_TP, label_TU[..., 0] - total_TP[:, :-1]


@jax.custom_vjp
def log_likelihood(
  blank_TP: jax.Array,
  label_TU: jax.Array,
  length: jax.Array,
  label_length: jax.Array,
) -> jax.Array:
  """Of all alignments together, in nats; -inf of an utterance without frames.

  Its gradient is the chance that an alignment takes a transition (Graves
  2012, section 2.5).

  Args:
    blank_TP: log-probability of the blank in each state.
    label_TU: of the next label.
  """
  return _forward(blank_TP, label_TU, length, label_length)[0]


def _forward(
  blank_TP: jax.Array,
  label_TU: jax.Array,
  length: jax.Array,
  label_length: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
  """The likelihood, and what the gradient needs."""
  blank_ZP, label_ZP = _lattice(blank_TP, label_TU, length, label_length)
  state_P = jnp.arange(blank_TP.shape[1])
  first_P = jnp.where(state_P == 0, 0, -jnp.inf).astype(blank_TP.dtype)
  nothing = jnp.zeros((), blank_TP.dtype)

  def step(
    before: tuple[jax.Array, jax.Array], leaving: tuple[jax.Array, jax.Array]
  ) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    alpha_P, offset = before
    blank_P, label_P = leaving
    after_label_P = shifted(alpha_P + label_P, by=1)
    next_P, peak = levelled(jnp.logaddexp(alpha_P + blank_P, after_label_P))
    return (next_P, offset + peak), before

  last, (alpha_ZP, offset_Z) = jax.lax.scan(
    step, (first_P, nothing), (blank_ZP, label_ZP)
  )
  # The end lies one blank beyond the last state: on a diagonal of its own.
  end = length + label_length
  ends_Z = jnp.append(alpha_ZP[:, label_length], last[0][label_length])
  total = ends_Z[end] + jnp.append(offset_Z, last[1])[end]
  total = jnp.where(length > 0, total, -jnp.inf)
  return total, (alpha_ZP, blank_ZP, label_ZP, length, label_length)


def _backward(
  kept: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
  alpha_ZP, blank_ZP, label_ZP, length, label_length = kept
  steps, states = alpha_ZP.shape
  state_P, end = jnp.arange(states), length + label_length

  def at_end(index: jax.Array | int) -> jax.Array:
    return (state_P == label_length) & (index == end)

  def step(
    after_P: jax.Array, scanned: tuple[jax.Array, ...]
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    index, alpha_P, blank_P, label_P = scanned
    by_blank_P = blank_P + after_P
    by_label_P = label_P + shifted(after_P, by=-1)
    # An alignment leaves each diagonal once: these chances sum to 1.
    logs = jnp.stack([alpha_P + by_blank_P, alpha_P + by_label_P])
    logs, _ = levelled(logs)
    chances = jnp.exp(logs)
    chances /= jnp.maximum(chances.sum(), 1)
    beta_P, _ = levelled(jnp.logaddexp(by_blank_P, by_label_P))
    return jnp.where(at_end(index), 0, beta_P), (chances[0], chances[1])

  last_P = jnp.where(at_end(steps), 0, -jnp.inf).astype(alpha_ZP.dtype)
  scanned = (jnp.arange(steps), alpha_ZP, blank_ZP, label_ZP)
  _, (of_blank_ZP, of_label_ZP) = jax.lax.scan(
    step, last_P, scanned, reverse=True
  )
  of_blank_TP, of_label_TP = map(by_frame, (of_blank_ZP, of_label_ZP))
  return (
    cotangent * of_blank_TP,
    cotangent * of_label_TP[:, :-1],
    None,
    None,
  )


def levelled(logs: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Less their largest, and that; 0 where all are -inf.

  Left as they are, logs of a long utterance are some thousand nats, of which float32
  keeps four decimals: the gradient was wrong by 5e-4, and is by 1e-6.
  """
  peak = logs.max()
  peak = jnp.where(jnp.isfinite(peak), peak, 0)
  return logs - peak, peak


log_likelihood.defvjp(_forward, _backward)


def _lattice(
  blank_TP: jax.Array,
  label_TU: jax.Array,
  length: jax.Array,
  label_length: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Both by anti-diagonal [Z, P]; -inf where a transition doesn't exist."""
  frames, states = blank_TP.shape
  frame_T1, state_P = jnp.arange(frames)[:, None], jnp.arange(states)
  there_TP = (frame_T1 < length) & (state_P <= label_length)
  blank_TP = jnp.where(there_TP, blank_TP, -jnp.inf)
  label_TP = jnp.pad(label_TU, ((0, 0), (0, 1)))
  label_TP = jnp.where(there_TP & (state_P < label_length), label_TP, -jnp.inf)
  return by_diagonal(blank_TP), by_diagonal(label_TP)


def by_diagonal(x_TP: jax.Array) -> jax.Array:
  """[T, P] by frame -> [Z, P] by t + u; -inf beyond the lattice."""
  frames, states = x_TP.shape
  padding = ((0, 0), (0, states))
  wide = jnp.pad(x_TP.T, padding, constant_values=-jnp.inf).ravel()
  return wide[: states * (frames + states - 1)].reshape(states, -1).T


def by_frame(x_ZP: jax.Array) -> jax.Array:
  """The inverse of `by_diagonal`."""
  steps, states = x_ZP.shape
  frames = steps - states + 1
  wide = jnp.pad(x_ZP.T.ravel(), (0, states))
  return wide.reshape(states, frames + states)[:, :frames].T


def shifted(x_P: jax.Array, *, by: int) -> jax.Array:
  """Each state's value at the next one (1) or the one before (-1); -inf moves in."""
  edge = jnp.full_like(x_P[:1], -jnp.inf)
  if by > 0:
    return jnp.concatenate([edge, x_P[:-1]])
  return jnp.concatenate([x_P[1:], edge])
