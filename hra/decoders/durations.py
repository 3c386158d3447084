"""The loss of a token-and-duration transducer (Xu et al. 2023, arXiv 2304.06795).

In: encoded_TD and predicted_PD as for `hra.decoders.transducer`, and the joint, whose
logits are of labels and, behind them, of durations: [T, P, V + Q]. Out: a loss.

From state (t, u) a blank that lasts d > 0 leads to (t + d, u), label u + 1 to (t + d,
u + 1); a blank ends at (length, U) exactly. As each of them leads to a later
anti-diagonal, max(d) + 1 of which are ahead at most, two scans over diagonals suffice.
"""

import functools

import jax
import jax.numpy as jnp

from hra.decoders import transducer
from hra.decoders.interface import Loss, exactly, masked
from hra.decoders.transducer import Joint, levelled, shifted

Durations = tuple[int, ...]


def joint_loss(
  joint: Joint,
  encoded_TD: jax.Array,
  predicted_PD: jax.Array,
  length: jax.Array,
  labels_U: jax.Array,
  label_length: jax.Array,
  *,
  durations: Durations,
  sigma: float = 0.0,
  chunk: int = 4,
) -> Loss:
  """As `transducer.joint_loss`; an utterance without alignments weighs nothing.

  Args:
    durations: in the order of their logits.
    sigma: nats taken from each label's and blank's log-probability (section 3.3).
  """

  def score(part_TD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    logits = exactly(joint(part_TD, predicted_PD))
    vocabulary = logits.shape[-1] - len(durations)
    blank_TP, label_TU = transducer.scores(logits[..., :vocabulary], labels_U)
    duration_TPQ = jax.nn.log_softmax(logits[..., vocabulary:])
    return blank_TP - sigma, label_TU - sigma, duration_TPQ

  scored = transducer.in_chunks(score, encoded_TD, chunk=chunk)
  total = -log_likelihood(durations, *scored, length, label_length)
  possible = (length > 0) & (label_length > 0) & ~jnp.isposinf(total)
  return masked(total, label_length, possible)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def log_likelihood(
  durations: Durations,
  blank_TP: jax.Array,
  label_TU: jax.Array,
  duration_TPQ: jax.Array,
  length: jax.Array,
  label_length: jax.Array,
) -> jax.Array:
  """Of all alignments together, in nats; -inf where there are none.

  Its gradient is the chance that an alignment takes a transition.

  Args:
    blank_TP: log-probability of the blank in each state.
    label_TU: of the next label.
    duration_TPQ: of each duration, whichever of them it is of.
  """
  return _forward(
    durations, blank_TP, label_TU, duration_TPQ, length, label_length
  )[0]


def _forward(
  durations: Durations,
  blank_TP: jax.Array,
  label_TU: jax.Array,
  duration_TPQ: jax.Array,
  length: jax.Array,
  label_length: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
  """The likelihood, and what the gradient needs."""
  blank_ZQP, label_ZQP = _lattice(
    durations, blank_TP, label_TU, duration_TPQ, length, label_length
  )
  ahead = (max(durations) + 1, blank_TP.shape[1])
  # What arrives at this diagonal and at the next ones, in one measure.
  first_MP = jnp.full(ahead, -jnp.inf, blank_TP.dtype).at[0, 0].set(0)

  def step(
    before: tuple[jax.Array, jax.Array], leaving: tuple[jax.Array, jax.Array]
  ) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    pending_MP, offset = before
    here_P, next_MP = pending_MP[0], _moved(pending_MP, by=-1)
    for duration, blank_P, label_P in zip(durations, *leaving, strict=True):
      arrives = {duration: shifted(here_P + label_P, by=1)}
      if duration:
        arrives[duration - 1] = here_P + blank_P
      for place, mass_P in arrives.items():
        joined_P = jnp.logaddexp(next_MP[place], mass_P)
        next_MP = next_MP.at[place].set(joined_P)
    next_MP, peak = levelled(next_MP)
    return (next_MP, offset + peak), before

  begun = (first_MP, jnp.zeros((), blank_TP.dtype))
  last, (pending_ZMP, offset_Z) = jax.lax.scan(
    step, begun, (blank_ZQP, label_ZQP)
  )
  end = length + label_length
  here_ZP = jnp.concatenate([pending_ZMP[:, 0], last[0][:1]])
  total = here_ZP[end, label_length] + jnp.append(offset_Z, last[1])[end]
  total = jnp.where(length > 0, total, -jnp.inf)
  return total, (pending_ZMP, blank_ZQP, label_ZQP, length, label_length)


def _backward(
  durations: Durations, kept: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None, None]:
  pending_ZMP, blank_ZQP, label_ZQP, length, label_length = kept
  steps, _, states = pending_ZMP.shape
  state_P, end = jnp.arange(states), length + label_length

  def at_end(index: jax.Array | int) -> jax.Array:
    return (state_P == label_length) & (index == end)

  def step(
    after_MP: jax.Array, scanned: tuple[jax.Array, ...]
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    index, pending_MP, blank_QP, label_QP = scanned
    never_P = jnp.full_like(after_MP[0], -jnp.inf)
    after_blank = [after_MP[d - 1] if d else never_P for d in durations]
    by_blank_QP = blank_QP + jnp.stack(after_blank)
    after_label = [shifted(after_MP[d], by=-1) for d in durations]
    by_label_QP = label_QP + jnp.stack(after_label)
    both = jnp.stack([by_blank_QP, by_label_QP])
    beta_P = jnp.where(at_end(index), 0, jax.nn.logsumexp(both, axis=(0, 1)))
    beta_MP = _moved(after_MP, by=1).at[0].set(beta_P)
    # An alignment crosses into each diagonal, or over it, once.
    crossing, peak = levelled(pending_MP + beta_MP)
    crossings = jnp.maximum(jnp.exp(crossing).sum(), 1)
    chances = jnp.exp(pending_MP[0] + both - peak) / crossings
    return levelled(beta_MP)[0], (chances[0], chances[1])

  last_MP = jnp.full_like(pending_ZMP[0], -jnp.inf)
  last_MP = last_MP.at[0].set(jnp.where(at_end(steps), 0, -jnp.inf))
  scanned = (jnp.arange(steps), pending_ZMP, blank_ZQP, label_ZQP)
  _, found = jax.lax.scan(step, last_MP, scanned, reverse=True)
  of_blank_TPQ, of_label_TPQ = (
    jax.vmap(transducer.by_frame, 1, 2)(each) for each in found
  )
  return (
    cotangent * of_blank_TPQ.sum(axis=-1),
    cotangent * of_label_TPQ[:, :-1].sum(axis=-1),
    cotangent * (of_blank_TPQ + of_label_TPQ),
    None,
    None,
  )


log_likelihood.defvjp(_forward, _backward)


def _lattice(
  durations: Durations,
  blank_TP: jax.Array,
  label_TU: jax.Array,
  duration_TPQ: jax.Array,
  length: jax.Array,
  label_length: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Both with each duration by diagonal [Z, Q, P]; -inf where they don't exist."""
  frames, states = blank_TP.shape
  state_P1 = jnp.arange(states)[:, None]
  lasts_Q = jnp.asarray(durations)
  arrival_TPQ = jnp.arange(frames)[:, None, None] + lasts_Q
  ends_TPQ = (arrival_TPQ == length) & (state_P1 == label_length)
  blank_there = (lasts_Q > 0) & ((arrival_TPQ < length) | ends_TPQ)
  blank_there &= state_P1 <= label_length
  label_there = (arrival_TPQ < length) & (state_P1 < label_length)
  label_TP = jnp.pad(label_TU, ((0, 0), (0, 1)))

  def skewed(mass_TP: jax.Array, there_TPQ: jax.Array) -> jax.Array:
    mass_TPQ = mass_TP[..., None] + duration_TPQ
    mass_TPQ = jnp.where(there_TPQ, mass_TPQ, -jnp.inf)
    return jax.vmap(transducer.by_diagonal, 2, 1)(mass_TPQ)

  return skewed(blank_TP, blank_there), skewed(label_TP, label_there)


def _moved(x_MP: jax.Array, *, by: int) -> jax.Array:
  """Each diagonal's values at the next place (1) or the one before (-1)."""
  edge = jnp.full_like(x_MP[:1], -jnp.inf)
  if by > 0:
    return jnp.concatenate([edge, x_MP[:-1]])
  return jnp.concatenate([x_MP[1:], edge])
