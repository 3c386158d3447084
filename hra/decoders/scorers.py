"""What each kind of decoder says of a hypothesis in `hra.decoders.beam`.

In: what a decoder said of an utterance, or functions that are asked label by label.
CTC: prefix search (Graves and Jaitly 2014, algorithm 1; Hannun et al. 2014, arXiv
1408.2873, algorithm 1). Transducer: alignment-length synchronous search (Saon et al.
2020). Attention: label by label (Chan et al. 2015, arXiv 1508.01211).
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hra.decoders.beam import Mass, Prefix, Scores
from hra.decoders.interface import BLANK, exactly

Tree = Any

_NEVER = -jnp.inf


@dataclasses.dataclass(frozen=True, kw_only=True)
class CtcScorer:
  """A step is a frame; sentences end after the last.

  A frame's label is a new one only if it differs from the last or a blank was
  between, so that ways that end in a blank and in a label are kept apart.
  """

  logits_TV: jax.Array
  length: jax.Array
  """Valid frames; without any the only sentence is the empty one."""

  most_coverage = 0.0

  def steps(self, labels: int) -> int:
    del labels
    return len(self.logits_TV) + 1

  def start(self) -> tuple[()]:
    return ()

  def score(self, state: Tree, prefix: Prefix, step: jax.Array) -> Scores:
    del state
    log_V = _log_softmax(self.logits_TV[step])
    log_V = jnp.where(step < self.length, log_V, _NEVER)
    total, repeated = prefix.mass.total, prefix.mass.label
    stay = Mass(total + log_V[BLANK], repeated + log_V[prefix.last])
    is_last_V = jnp.arange(len(log_V)) == prefix.last
    extend_V = jnp.where(is_last_V, prefix.mass.blank, total) + log_V
    finish = jnp.where(step == self.length, total, _NEVER)
    return Scores(
      stay, extend_V.at[BLANK].set(_NEVER), finish, jnp.zeros_like(total)
    )

  def advance(self, state: Tree, label: jax.Array) -> Tree:
    del label
    return state


Predict = Callable[[Tree, jax.Array], tuple[Tree, jax.Array]]
"""(state, label) -> (state, predicted_D) after that label."""


class _Predicted(NamedTuple):
  state: Tree
  predicted_D: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransducerScorer:
  """A step is a blank, which goes on to the next frame, or a label.

  After n steps hypotheses with the same labels are at the same frame, n less the
  labels, so that their probabilities may be added. T + U steps end them all.
  """

  encoded_TD: jax.Array
  length: jax.Array
  """Valid frames; without any the only sentence is the empty one."""
  predict: Predict
  """Its first label is 0."""
  joint: Callable[[jax.Array, jax.Array], jax.Array]
  """encoded_D, predicted_D -> logits_V; the blank is 0."""
  begin: Tree
  """The prediction net's state before its first label."""

  most_coverage = 0.0

  def steps(self, labels: int) -> int:
    return len(self.encoded_TD) + labels

  def start(self) -> _Predicted:
    return _Predicted(*self.predict(self.begin, jnp.array(BLANK)))

  def score(self, state: _Predicted, prefix: Prefix, step: jax.Array) -> Scores:
    frame, total = step - prefix.length, prefix.mass.total
    log_V = _log_softmax(self.joint(self.encoded_TD[frame], state.predicted_D))
    log_V = total + jnp.where(frame < self.length, log_V, _NEVER)
    last = frame == self.length - 1
    blank = jnp.where(last, _NEVER, log_V[BLANK])
    finish = jnp.where(last, log_V[BLANK], _NEVER)
    finish = jnp.where((self.length == 0) & (step == 0), total, finish)
    return Scores(
      Mass(blank, jnp.full_like(blank, _NEVER)),
      log_V.at[BLANK].set(_NEVER),
      finish,
      jnp.zeros_like(total),
    )

  def advance(self, state: _Predicted, label: jax.Array) -> _Predicted:
    return _Predicted(*self.predict(state.state, label))


Decode = Callable[[Tree, jax.Array], tuple[Tree, jax.Array, jax.Array]]
"""(state, label) -> (state, logits_V of the next label, attention_T for it)."""


class _Decoded(NamedTuple):
  state: Tree
  log_V: jax.Array
  attended_T: jax.Array
  """The sum of the attention to each frame."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionScorer:
  """A step is a label, or the end of the sentence.

  Coverage is the number of frames whose attention, summed over all labels and the
  one to come, exceeds `threshold` (Chorowski and Jaitly 2017): what is skipped is
  missed, and what is heard twice gains nothing.
  """

  decode: Decode
  begin: Tree
  """The state before the first label, which is `first`."""
  length: jax.Array
  """Frames that are attended to; without any the only sentence is the empty one."""
  first: int = BLANK
  """What stands before the first label; it is no label itself."""
  end: int = BLANK
  """What stands behind the last."""
  most: int = sys.maxsize
  """Labels that a sentence can have."""
  threshold: float = 0.5

  @property
  def most_coverage(self) -> jax.Array:
    return self.length

  def steps(self, labels: int) -> int:
    return min(labels, self.most) + 1

  def start(self) -> _Decoded:
    return self._decoded(self.begin, jnp.array(self.first), 0.0)

  def score(self, state: _Decoded, prefix: Prefix, step: jax.Array) -> Scores:
    del step
    total, heard = prefix.mass.total, self.length > 0
    log_V = jnp.where(heard, total + state.log_V, _NEVER)
    no_label = jnp.array([self.first, self.end])
    never = jnp.full_like(prefix.mass.total, _NEVER)
    return Scores(
      Mass(never, never),
      log_V.at[no_label].set(_NEVER),
      jnp.where(heard, log_V[self.end], total),
      (state.attended_T > self.threshold).sum(),
    )

  def advance(self, state: _Decoded, label: jax.Array) -> _Decoded:
    return self._decoded(state.state, label, state.attended_T)

  def _decoded(
    self, state: Tree, label: jax.Array, attended: jax.Array | float
  ) -> _Decoded:
    state, logits_V, attention_T = self.decode(state, label)
    return _Decoded(state, _log_softmax(logits_V), attended + attention_T)


def _log_softmax(logits_V: jax.Array) -> jax.Array:
  return jax.nn.log_softmax(exactly(logits_V))
