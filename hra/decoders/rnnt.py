"""A transducer: prediction net and joint (Graves 2012; Graves et al. 2013).

The prediction net is an LSTM over the labels so far, or stateless: it sees the last one
only (Ghodsi et al. 2020) or the last few (Prabhavalkar et al. 2021, arXiv 2012.06749).

    joint(t, u) = tanh(encoded_t A + predicted_u C + b) V + c

One that knows durations (Xu et al. 2023) goes on by as many frames as it says.
"""

import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from hra.config import BackboneConfig
from hra.decoders import durations, transducer
from hra.decoders.interface import (
  BLANK,
  Emissions,
  Labels,
  Loss,
  exactly,
  no_beam,
)
from hra.decoders.scorers import TransducerScorer
from hra.nn.activations import ACTIVATIONS
from hra.nn.lstm import LstmStack, LstmState
from hra.nn.types import Types, types_of


class Prediction(Protocol):
  """What a transducer knows of the labels before the next one."""

  def start(self) -> Any:
    """The state before anything: it advances by a blank first."""
    ...

  def advance(self, state: Any, label: jax.Array) -> Any:
    """The state after one more label."""
    ...

  def predicted(self, state: Any) -> jax.Array:
    """What a state says of the next label."""
    ...

  def __call__(self, labels_U: jax.Array) -> jax.Array:
    """Of every state [P], the first included."""
    ...


class LstmPrediction(nnx.Module):
  """Every label so far, by LSTM layers."""

  def __init__(self, config: BackboneConfig, *, types: Types, rngs: nnx.Rngs):
    decoder = config.decoder
    self.embedding = nnx.Embed(
      config.vocabulary, decoder.embedding, rngs=rngs, **types
    )
    self.lstm = LstmStack(
      decoder.embedding,
      decoder.width,
      layers=decoder.layers,
      types=types,
      rngs=rngs,
    )

  def start(self) -> tuple[LstmState, ...]:
    return self.lstm.start()

  def advance(
    self, state: tuple[LstmState, ...], label: jax.Array
  ) -> tuple[LstmState, ...]:
    return self.lstm.step(state, self.embedding(label))

  def predicted(self, state: tuple[LstmState, ...]) -> jax.Array:
    return state[-1].hidden_H

  def __call__(self, labels_U: jax.Array) -> jax.Array:
    begun_P = jnp.pad(labels_U, (1, 0), constant_values=BLANK)
    return self.lstm(self.embedding(begun_P))


class StatelessPrediction(nnx.Module):
  """The last `context` labels, each place with an embedding of its own, summed."""

  def __init__(self, config: BackboneConfig, *, types: Types, rngs: nnx.Rngs):
    decoder = config.decoder
    self.embeddings = nnx.List(
      nnx.Embed(config.vocabulary, decoder.width, rngs=rngs, **types)
      for _ in range(decoder.context)
    )

  def start(self) -> jax.Array:
    """Blanks stand for the labels before the first."""
    return jnp.full(len(self.embeddings), BLANK)

  def advance(self, state: jax.Array, label: jax.Array) -> jax.Array:
    return jnp.concatenate([label[None].astype(state.dtype), state[:-1]])

  def predicted(self, state: jax.Array) -> jax.Array:
    each = [
      embedding(label)
      for embedding, label in zip(self.embeddings, state, strict=True)
    ]
    return jax.nn.relu(sum(each[1:], each[0]))

  def __call__(self, labels_U: jax.Array) -> jax.Array:
    context = len(self.embeddings)
    begun = jnp.pad(labels_U, (context, 0), constant_values=BLANK)
    windows = [
      begun[context - 1 - back : len(begun) - back] for back in range(context)
    ]
    return jax.vmap(self.predicted)(jnp.stack(windows, axis=1))


class _MakePrediction(Protocol):
  def __call__(
    self, config: BackboneConfig, *, types: Types, rngs: nnx.Rngs
  ) -> Prediction: ...


_PREDICTIONS: dict[str, _MakePrediction] = {
  "lstm": LstmPrediction,
  "stateless": StatelessPrediction,
}


class _Search(NamedTuple):
  """Where greedy search is."""

  frame: jax.Array
  in_frame: jax.Array
  """Labels of this frame."""
  state: Any
  heard: Emissions


class Rnnt(nnx.Module):
  """`hra.decoders.interface.Decoder`, frame by frame and label by label.

  Of kind `tdt` each label and each blank says how many frames it lasts, too: its
  logits stand behind those of labels.
  """

  def __init__(self, config: BackboneConfig, *, rngs: nnx.Rngs):
    types, decoder = types_of(config), config.decoder
    self.config = nnx.static(decoder)
    self.vocabulary = config.vocabulary
    self.prediction = _PREDICTIONS[decoder.prediction](
      config, types=types, rngs=rngs
    )
    self.encoded = nnx.Linear(config.width, decoder.joint, rngs=rngs, **types)
    self.predicted = nnx.Linear(
      decoder.width, decoder.joint, use_bias=False, rngs=rngs, **types
    )
    self.output = nnx.Linear(
      decoder.joint,
      config.vocabulary + len(self.durations),
      rngs=rngs,
      **types,
    )

  @property
  def durations(self) -> tuple[int, ...]:
    """In the order of their logits."""
    return self.config.durations if self.config.kind == "tdt" else ()

  def joint(self, encoded_TJ: jax.Array, predicted_PJ: jax.Array) -> jax.Array:
    """Logits [T, P, V], or [T, P, V + Q], of projected frames and states."""
    activation = ACTIVATIONS[self.config.joint_activation]
    return self.output(activation(encoded_TJ[:, None] + predicted_PJ))

  def loss(
    self,
    hidden_TD: jax.Array,
    length: jax.Array,
    labels_U: jax.Array,
    label_length: jax.Array,
  ) -> Loss:
    loss = functools.partial(transducer.joint_loss, chunk=self.config.chunk)
    if self.durations:
      loss = functools.partial(
        durations.joint_loss,
        durations=self.durations,
        sigma=self.config.sigma,
        chunk=self.config.chunk,
      )
    return loss(
      self.joint,
      self.encoded(hidden_TD),
      self.predicted(self.prediction(labels_U)),
      length,
      labels_U,
      label_length,
    )

  def logits(
    self, hidden_TD: jax.Array, length: jax.Array, labels_U: jax.Array
  ) -> jax.Array:
    del length
    predicted_PJ = self.predicted(self.prediction(labels_U))
    return exactly(self.joint(self.encoded(hidden_TD), predicted_PJ))

  def greedy(self, hidden_TD: jax.Array, length: jax.Array) -> Labels:
    heard = self.emissions(hidden_TD, length)
    return Labels(heard.labels_U, heard.length)

  def emissions(self, hidden_TD: jax.Array, length: jax.Array) -> Emissions:
    """What is heard, and at which frame.

    Of a frame `frame_labels` labels at most, unless that is 0; in all
    `most_labels` for each of `length` frames.
    """
    encoded_TJ = self.encoded(hidden_TD)
    most = self.config.most_labels

    def going(search: _Search) -> jax.Array:
      room = search.heard.length < most * length
      return (search.frame < length) & room

    def step(search: _Search) -> _Search:
      frame, in_frame, state, heard = search
      predicted_J = self.predicted(self.prediction.predicted(state))
      logits = self.joint(encoded_TJ[frame][None], predicted_J[None])[0, 0]
      label = jnp.argmax(logits[: self.vocabulary])
      said = label != BLANK
      lasts = self._lasts(logits, label, in_frame)
      after = self.prediction.advance(state, label)
      state = jax.tree.map(
        lambda new, old: jnp.where(said, new, old), after, state
      )
      place = jnp.where(said, heard.length, len(heard.labels_U))
      heard = Emissions(
        heard.labels_U.at[place].set(label, mode="drop"),
        heard.frame_U.at[place].set(frame, mode="drop"),
        heard.length + said,
      )
      in_frame = jnp.where(lasts > 0, 0, in_frame + 1)
      return _Search(frame + lasts, in_frame, state, heard)

    none = jnp.zeros((), jnp.int32)
    nothing_U = jnp.zeros(most * len(hidden_TD), jnp.int32)
    state = self.prediction.advance(self.prediction.start(), none + BLANK)
    heard = Emissions(nothing_U, nothing_U, none)
    begun = _Search(none, none, state, heard)
    return jax.lax.while_loop(going, step, begun).heard

  def _lasts(
    self, logits: jax.Array, label: jax.Array, in_frame: jax.Array
  ) -> jax.Array:
    """Frames from here to where search goes on.

    Args:
      logits: of labels and of durations.
      label: the likeliest.
      in_frame: labels of this frame before it.
    """
    goes_on = label == BLANK
    if self.config.frame_labels:
      goes_on |= in_frame + 1 >= self.config.frame_labels
    if not self.durations:
      return goes_on.astype(jnp.int32)
    longest = jnp.argmax(logits[self.vocabulary :])
    lasts = jnp.asarray(self.durations, jnp.int32)[longest]
    return jnp.where(goes_on, jnp.maximum(lasts, 1), lasts)

  def scorer(self, hidden_TD: jax.Array, length: jax.Array) -> TransducerScorer:
    """Raises InputError where labels have durations."""
    if self.durations:
      raise no_beam("tdt")

    def predict(state: Any, label: jax.Array) -> tuple[Any, jax.Array]:
      state = self.prediction.advance(state, label)
      return state, self.predicted(self.prediction.predicted(state))

    def joint(encoded_J: jax.Array, predicted_J: jax.Array) -> jax.Array:
      return self.joint(encoded_J[None], predicted_J[None])[0, 0]

    return TransducerScorer(
      encoded_TD=self.encoded(hidden_TD),
      length=length,
      predict=predict,
      joint=joint,
      begin=self.prediction.start(),
    )
