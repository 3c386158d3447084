"""What a prompted decoder may say next, in a search.

In: labels so far. Out: logits without what is never said: labels that are suppressed,
and with timestamps what breaks their rules (Radford et al. 2022, arXiv 2212.04356, section
2.3, and what transformers makes of it): times stand in pairs, one where a segment ends
and one where the next begins, and never go back; a sentence begins with a time; where
all times together are likelier than any text, a time comes.

Labels are, in order: 0, the end; text; what prompts are made of; times.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hra.config import DecoderConfig

_NEVER = -jnp.inf


class Said(NamedTuple):
  """What of the labels so far matters."""

  number: jax.Array
  """Labels, those of the prompt included."""
  time: jax.Array
  """The last time's label; 0 where there is none."""
  last_is_time: jax.Array
  before_is_time: jax.Array
  """The last but one; also where there is none behind the prompt."""


def begun() -> Said:
  """Before any label."""
  none = jnp.zeros((), jnp.int32)
  return Said(none, none, jnp.asarray(False), jnp.asarray(True))


def said(before: Said, label: jax.Array, config: DecoderConfig) -> Said:
  """After one more label; those of the prompt count as neither text nor time."""
  spoken = before.number >= len(config.prompt)
  is_time = spoken & (label >= config.first_time) & (config.first_time > 0)
  return Said(
    before.number + 1,
    jnp.where(is_time, label, before.time).astype(jnp.int32),
    is_time,
    jnp.where(
      before.number > len(config.prompt), before.last_is_time, jnp.asarray(True)
    ),
  )


def allowed(
  logits_V: jax.Array, so_far: Said, config: DecoderConfig
) -> jax.Array:
  """Logits of the next label; -inf of what may not come."""
  first = so_far.number == len(config.prompt)
  logits_V = _without(logits_V, config.suppressed)
  logits_V = jnp.where(
    first, _without(logits_V, config.suppressed_first), logits_V
  )
  if config.timestamps:
    logits_V = _timed(logits_V, so_far, first, config)
  return logits_V


def _without(logits_V: jax.Array, labels: tuple[int, ...]) -> jax.Array:
  if not labels:
    return logits_V
  return logits_V.at[jnp.asarray(labels)].set(_NEVER)


def _timed(
  logits_V: jax.Array, so_far: Said, first: jax.Array, config: DecoderConfig
) -> jax.Array:
  """By the rules of times."""
  label_V = jnp.arange(len(logits_V))
  time_V = label_V >= config.first_time
  text_V = (label_V > 0) & (label_V <= config.texts)
  paired = so_far.last_is_time & so_far.before_is_time
  open_V = so_far.last_is_time & ~so_far.before_is_time
  # A time may be said again only where it also begins the next segment.
  least = jnp.where(so_far.time > 0, so_far.time + ~open_V, config.first_time)
  latest = config.first_time + (config.latest_first_time or len(logits_V))
  never_V = (
    (label_V == config.first_time - 1)
    | (paired & time_V)
    | (open_V & text_V)
    | (time_V & (label_V < least))
    | (first & (~time_V | (label_V > latest)))
  )
  logits_V = jnp.where(never_V, _NEVER, logits_V)
  log_V = jax.nn.log_softmax(logits_V)
  of_times = jax.nn.logsumexp(jnp.where(time_V, log_V, _NEVER))
  of_text = jnp.max(jnp.where(time_V, _NEVER, log_V))
  return jnp.where((of_times > of_text) & ~time_V, _NEVER, logits_V)
