"""What every decoder offers: a loss, logits of given labels, ways to search.

All of one utterance: hidden_TD of an encoder, of which `length` frames are valid.
Label 0 is nobody's: the blank of CTC and of the transducer, the beginning and the
end of a sentence where labels are predicted from one another.
"""

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from hra.errors import InputError
from hra.nn.depth import Depth

if TYPE_CHECKING:
  from hra.decoders.beam import Scorer

BLANK = 0


class Loss(NamedTuple):
  """Divided once, by whoever sums: a task's by its own weight."""

  total: jax.Array
  """Negative log-likelihood in nats."""
  weight: jax.Array
  """Labels; 0 where nothing can be learned, and then `total` is 0."""


class Labels(NamedTuple):
  """What was heard: [U] of which `length` are labels, and 0 from there on."""

  labels_U: jax.Array
  length: jax.Array


class Emissions(NamedTuple):
  """What greedy search says, in order: [U] of which `length` count, 0 from there on.

  CTC: a label or a blank for each frame. Transducer: labels.
  """

  labels_U: jax.Array
  frame_U: jax.Array
  """Of the encoder; where each was said."""
  length: jax.Array


class Decoder(Protocol):
  """A decoder's parameters; registered in `hra.decoders.families`."""

  def loss(
    self,
    hidden_TD: jax.Array,
    length: jax.Array,
    labels_U: jax.Array,
    label_length: jax.Array,
  ) -> Loss:
    """Of a transcript; an empty one, or no frames, weighs nothing."""
    ...

  def logits(
    self, hidden_TD: jax.Array, length: jax.Array, labels_U: jax.Array
  ) -> jax.Array:
    """What training compares with the labels, in at least float32.

    CTC: [T, V], whatever the labels. Transducer: [T, U + 1, V], behind which those
    of durations stand where it has such. Attention: [U + 1, V], of each label and
    of the end, the labels before it being given.
    """
    ...

  def greedy(self, hidden_TD: jax.Array, length: jax.Array) -> Labels:
    """The labels that the likeliest next step leads to.

    `length` at most, but for a transducer that is told another bound, and for a
    Transformer, which has places for so many.
    """
    ...

  def scorer(self, hidden_TD: jax.Array, length: jax.Array) -> "Scorer":
    """What a beam search asks (`hra.decoders.beam`).

    Raises:
      InputError: the kind has none.
    """
    ...


@runtime_checkable
class Layered(Protocol):
  """A decoder with layers that can be adapted."""

  @property
  def layers(self) -> nnx.Module:
    """L of them, stacked."""
    ...

  def adapted(self, depth: Depth) -> Decoder:
    """It, as `depth` runs its layers."""
    ...


def adapted(decoder: Decoder | Layered, depth: Depth) -> Decoder:
  """A decoder as it is adapted; one without layers stays as it is."""
  return decoder.adapted(depth) if isinstance(decoder, Layered) else decoder


class FrameDecoder(Decoder, Protocol):
  """One that knows at which frame it says something."""

  def emissions(self, hidden_TD: jax.Array, length: jax.Array) -> Emissions:
    """What `greedy` makes labels of."""
    ...


def no_beam(kind: str) -> InputError:
  """A beam search was asked of a kind of decoder that has none."""
  return InputError(
    "beam",
    expected=f"greedy search with decoder {kind!r}",
    got="a beam search",
    fix="leave the beam at 0",
  )


def masked(total: jax.Array, weight: jax.Array, counts: jax.Array) -> Loss:
  """A loss, or nothing where an utterance doesn't count."""
  weight = jnp.where(counts, weight, 0).astype(total.dtype)
  return Loss(jnp.where(counts, total, 0), weight)


def spelling_loss(
  logits_PV: jax.Array,
  labels_U: jax.Array,
  label_length: jax.Array,
  *,
  smoothing: float,
  counts: jax.Array,
) -> Loss:
  """Cross-entropy of the labels and of the end, which counts as one of them.

  With label smoothing e, 1 - e of the target lies on the label and e on all alike
  (Szegedy et al. 2016, section 7).

  Args:
    logits_PV: of each label, those before it being given, and of the end: P = U + 1.
    counts: whether there is anything to learn; an empty transcript never is.
  """
  index_P = jnp.arange(len(logits_PV))
  target_P = jnp.where(index_P < label_length, jnp.pad(labels_U, (0, 1)), BLANK)
  # No [P, V] of targets: Whisper has 51,865 labels.
  each_P = optax.softmax_cross_entropy_with_integer_labels(logits_PV, target_P)
  if smoothing:
    spread_P = jax.nn.logsumexp(logits_PV, axis=-1) - logits_PV.mean(axis=-1)
    each_P = (1 - smoothing) * each_P + smoothing * spread_P
  total = jnp.where(index_P <= label_length, each_P, 0).sum()
  return masked(total, label_length + 1, counts & (label_length > 0))


def exactly(logits: jax.Array) -> jax.Array:
  """In at least float32, whatever they were computed in."""
  return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
