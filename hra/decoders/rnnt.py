"""A transducer: prediction net and joint (Graves 2012; Graves et al. 2013).

The prediction net is an LSTM over the labels so far, or stateless: it sees the last one
only (Ghodsi et al. 2020) or the last few (Prabhavalkar et al. 2021, arXiv 2012.06749).

    joint(t, u) = tanh(encoded_t A + predicted_u C + b) V + c
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from hra.config import BackboneConfig
from hra.decoders import transducer
from hra.decoders.interface import BLANK, Labels, Loss, exactly
from hra.decoders.scorers import TransducerScorer
from hra.nn.lstm import LstmStack, LstmState
from hra.nn.types import Types, types_of

MAX_PER_FRAME = 10
"""Labels that greedy search hears in one frame at most."""


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
  heard: Labels


class Rnnt(nnx.Module):
  """`hra.decoders.interface.Decoder`, frame by frame and label by label."""

  def __init__(self, config: BackboneConfig, *, rngs: nnx.Rngs):
    types, decoder = types_of(config), config.decoder
    self.chunk = decoder.chunk
    self.prediction = _PREDICTIONS[decoder.prediction](
      config, types=types, rngs=rngs
    )
    self.encoded = nnx.Linear(config.width, decoder.joint, rngs=rngs, **types)
    self.predicted = nnx.Linear(
      decoder.width, decoder.joint, use_bias=False, rngs=rngs, **types
    )
    self.output = nnx.Linear(
      decoder.joint, config.vocabulary, rngs=rngs, **types
    )

  def joint(self, encoded_TJ: jax.Array, predicted_PJ: jax.Array) -> jax.Array:
    """Logits [T, P, V] of projected frames and states."""
    return self.output(jnp.tanh(encoded_TJ[:, None] + predicted_PJ))

  def loss(
    self,
    hidden_TD: jax.Array,
    length: jax.Array,
    labels_U: jax.Array,
    label_length: jax.Array,
  ) -> Loss:
    return transducer.joint_loss(
      self.joint,
      self.encoded(hidden_TD),
      self.predicted(self.prediction(labels_U)),
      length,
      labels_U,
      label_length,
      chunk=self.chunk,
    )

  def logits(
    self, hidden_TD: jax.Array, length: jax.Array, labels_U: jax.Array
  ) -> jax.Array:
    del length
    predicted_PJ = self.predicted(self.prediction(labels_U))
    return exactly(self.joint(self.encoded(hidden_TD), predicted_PJ))

  def greedy(self, hidden_TD: jax.Array, length: jax.Array) -> Labels:
    """At most `MAX_PER_FRAME` labels of a frame, `length` in all."""
    encoded_TJ = self.encoded(hidden_TD)
    most = len(hidden_TD)

    def going(search: _Search) -> jax.Array:
      return search.frame < length

    def step(search: _Search) -> _Search:
      frame, in_frame, state, heard = search
      predicted_J = self.predicted(self.prediction.predicted(state))
      logits_V = self.joint(encoded_TJ[frame][None], predicted_J[None])[0, 0]
      label = jnp.argmax(logits_V)
      full = (in_frame >= MAX_PER_FRAME) | (heard.length >= length)
      stays = (label == BLANK) | full
      after = self.prediction.advance(state, label)
      state = jax.tree.map(
        lambda new, old: jnp.where(stays, old, new), after, state
      )
      place = jnp.where(stays, most, heard.length)
      heard = Labels(
        heard.labels_U.at[place].set(label, mode="drop"),
        heard.length + ~stays,
      )
      in_frame = jnp.where(stays, 0, in_frame + 1)
      return _Search(frame + stays, in_frame, state, heard)

    none = jnp.zeros((), jnp.int32)
    nothing = Labels(jnp.zeros(most, jnp.int32), none)
    state = self.prediction.advance(self.prediction.start(), none + BLANK)
    begun = _Search(none, none, state, nothing)
    return jax.lax.while_loop(going, step, begun).heard

  def scorer(self, hidden_TD: jax.Array, length: jax.Array) -> TransducerScorer:
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
