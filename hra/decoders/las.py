"""Listen, Attend and Spell (Chan et al. 2015, arXiv 1508.01211): the speller.

LSTM layers predict each label from the labels before it and from what attention reads
of the encoder's frames; label 0 begins and ends a sentence. With s the first layer's
state and heads that each see a part of the widths,

    e_t = v tanh(s Q + hidden_t K + features_t L)      a = softmax(e)      c = a hidden W

(Bahdanau et al. 2015). `features` are convolutions of the attention so far, which keeps it
moving: of all steps' sum, where Chorowski et al. 2015 take the last step's. c enters the
first layer at the next step, the others and the output at this one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from hra.config import BackboneConfig
from hra.decoders.interface import BLANK, Labels, Loss, exactly, spelling_loss
from hra.decoders.scorers import AttentionScorer
from hra.nn.lstm import Lstm, LstmStack, LstmState
from hra.nn.types import Types, types_of

_LOCATION_TAPS = 31
"""Frames that a location feature sees, centred."""


class Memory(NamedTuple):
  """The encoder's frames as attention reads them, projected once."""

  keys_TAI: jax.Array
  values_TAI: jax.Array
  valid_T: jax.Array


class Attended(NamedTuple):
  """What attention read in one step."""

  context_I: jax.Array
  weights_AT: jax.Array


class Attention(nnx.Module):
  """Additive attention of several heads, aware of where it was."""

  def __init__(
    self, config: BackboneConfig, query: int, *, types: Types, rngs: nnx.Rngs
  ):
    decoder = config.decoder
    width = decoder.attention
    self.heads = decoder.heads

    def linear(inputs: int, *, bias: bool = False) -> nnx.Linear:
      return nnx.Linear(inputs, width, use_bias=bias, rngs=rngs, **types)

    self.query = linear(query, bias=True)
    self.key, self.value = linear(config.width), linear(config.width)
    size = width // decoder.heads
    scale = size**-0.5
    self.score = nnx.Param(
      scale
      * jax.random.normal(
        rngs.params(), (decoder.heads, size), types["param_dtype"]
      )
    )
    if decoder.location:
      self.filters = nnx.Conv(
        1, decoder.location, kernel_size=(_LOCATION_TAPS,), rngs=rngs, **types
      )
      self.location = nnx.Linear(
        decoder.location, size, use_bias=False, rngs=rngs, **types
      )
    self.aware = decoder.location > 0

  def memory(self, hidden_TD: jax.Array, length: jax.Array) -> Memory:
    frames = len(hidden_TD)
    keys, values = (
      projection(hidden_TD).reshape(frames, self.heads, -1)
      for projection in (self.key, self.value)
    )
    return Memory(keys, values, jnp.arange(frames) < length)

  def __call__(
    self, memory: Memory, query_H: jax.Array, so_far_AT: jax.Array
  ) -> Attended:
    """Reads of the frames.

    Args:
      so_far_AT: the weights of all steps before, summed.
    """
    query_AI = self.query(query_H).reshape(self.heads, -1)
    inner_TAI = memory.keys_TAI + query_AI
    if self.aware:
      features = self.filters(so_far_AT[..., None].astype(query_H.dtype))
      inner_TAI += jnp.swapaxes(self.location(features), 0, 1)
    energy_AT = jnp.einsum(
      "tai,ai->at", jnp.tanh(inner_TAI), self.score[...].astype(query_H.dtype)
    )
    energy_AT = exactly(energy_AT)
    # A large finite number, not -inf: without any frame it stays finite.
    lowest = jnp.finfo(energy_AT.dtype).min / 2
    energy_AT = jnp.where(memory.valid_T, energy_AT, lowest)
    weights_AT = jax.nn.softmax(energy_AT)
    context_AI = jnp.einsum(
      "at,tai->ai", weights_AT.astype(query_H.dtype), memory.values_TAI
    )
    return Attended(context_AI.reshape(-1), weights_AT)


class SpellerState(NamedTuple):
  """After a label."""

  first: LstmState
  above: tuple[LstmState, ...]
  context_I: jax.Array
  so_far_AT: jax.Array
  """Attention of all steps, summed: what `coverage` terms ask for."""


class Las(nnx.Module):
  """`hra.decoders.interface.Decoder`, label by label."""

  def __init__(self, config: BackboneConfig, *, rngs: nnx.Rngs):
    types, decoder = types_of(config), config.decoder
    width, attention = decoder.width, decoder.attention
    self.smoothing = decoder.label_smoothing
    self.embedding = nnx.Embed(
      config.vocabulary, decoder.embedding, rngs=rngs, **types
    )
    self.first = Lstm(
      decoder.embedding + attention, width, types=types, rngs=rngs
    )
    self.attention = Attention(config, width, types=types, rngs=rngs)
    self.above = LstmStack(
      width + attention,
      width,
      layers=decoder.layers - 1,
      types=types,
      rngs=rngs,
    )
    self.output = nnx.Linear(
      width + attention, config.vocabulary, rngs=rngs, **types
    )

  def start(self, memory: Memory) -> SpellerState:
    """The state before the first label; `step` takes it on with label 0."""
    frames, heads, size = memory.values_TAI.shape
    first = self.first.start()
    return SpellerState(
      first,
      self.above.start(),
      jnp.zeros(heads * size, memory.values_TAI.dtype),
      jnp.zeros((heads, frames), first.cell_H.dtype),
    )

  def step(
    self, memory: Memory, state: SpellerState, label: jax.Array
  ) -> tuple[SpellerState, jax.Array]:
    """After one more label: the state, and logits [V] of the next."""
    entering = [self.embedding(label), state.context_I]
    first = self.first.step(state.first, jnp.concatenate(entering))
    read = self.attention(memory, first.hidden_H, state.so_far_AT)
    said = jnp.concatenate([first.hidden_H, read.context_I])
    above = self.above.step(state.above, said)
    if above:
      said = jnp.concatenate([above[-1].hidden_H, read.context_I])
    after = SpellerState(
      first, above, read.context_I, state.so_far_AT + read.weights_AT
    )
    return after, exactly(self.output(said))

  def logits(
    self, hidden_TD: jax.Array, length: jax.Array, labels_U: jax.Array
  ) -> jax.Array:
    memory = self.attention.memory(hidden_TD, length)

    # Recomputed in the backward pass: T x attention numbers a step are not kept.
    @jax.checkpoint
    def body(
      state: SpellerState, label: jax.Array
    ) -> tuple[SpellerState, jax.Array]:
      return self.step(memory, state, label)

    begun_P = jnp.pad(labels_U, (1, 0), constant_values=BLANK)
    return jax.lax.scan(body, self.start(memory), begun_P)[1]

  def loss(
    self,
    hidden_TD: jax.Array,
    length: jax.Array,
    labels_U: jax.Array,
    label_length: jax.Array,
  ) -> Loss:
    """Cross-entropy of the labels and of the end."""
    return spelling_loss(
      self.logits(hidden_TD, length, labels_U),
      labels_U,
      label_length,
      smoothing=self.smoothing,
      counts=length > 0,
    )

  def greedy(self, hidden_TD: jax.Array, length: jax.Array) -> Labels:
    """Until the end, or as many labels as there are frames."""
    memory = self.attention.memory(hidden_TD, length)

    def going(search: tuple[SpellerState, jax.Array, Labels]) -> jax.Array:
      _, label, heard = search
      return ((label != BLANK) | (heard.length == 0)) & (heard.length < length)

    def step(
      search: tuple[SpellerState, jax.Array, Labels],
    ) -> tuple[SpellerState, jax.Array, Labels]:
      state, label, heard = search
      state, logits_V = self.step(memory, state, label)
      label = jnp.argmax(logits_V).astype(label.dtype)
      labels_U = heard.labels_U.at[heard.length].set(label)
      return state, label, Labels(labels_U, heard.length + 1)

    none = jnp.zeros((), jnp.int32)
    nothing = Labels(jnp.zeros(len(hidden_TD), jnp.int32), none)
    begun = (self.start(memory), jnp.asarray(BLANK, jnp.int32), nothing)
    _, label, heard = jax.lax.while_loop(going, step, begun)
    # The end was written down as a label too.
    ended = (label == BLANK) & (heard.length > 0)
    return heard._replace(length=heard.length - ended)

  def scorer(self, hidden_TD: jax.Array, length: jax.Array) -> AttentionScorer:
    """Its coverage is that of the heads' mean attention."""
    memory = self.attention.memory(hidden_TD, length)

    def decode(
      state: SpellerState, label: jax.Array
    ) -> tuple[SpellerState, jax.Array, jax.Array]:
      after, logits_V = self.step(memory, state, label)
      attended_AT = after.so_far_AT - state.so_far_AT
      return after, logits_V, attended_AT.mean(axis=0)

    return AttentionScorer(
      decode=decode, begin=self.start(memory), length=length
    )
