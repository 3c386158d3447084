"""A Transformer that spells: the decoder of Whisper (Radford et al. 2022).

arXiv 2212.04356, section 2.2. Layers predict each label from the labels before it and
from the encoder's frames. A sentence begins with a prompt of labels, which say its
language and its task, and ends with label 0. Embeddings of labels are also the
output projection (Press and Wolf 2017), and places have embeddings of their own.

Searches go label by label: keys and values of the labels so far are kept, and those of
the frames are made once. What a search may not say is left out of its logits
(`hra.decoders.prompted`); losses and the logits that are compared with labels have all.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from hra.config import BackboneConfig
from hra.decoders.interface import BLANK, Labels, Loss, exactly, spelling_loss
from hra.decoders.prompted import Said, allowed, begun, said
from hra.decoders.scorers import AttentionScorer
from hra.nn import transformer
from hra.nn.attention import Cache, Memory, make_context
from hra.nn.depth import Depth
from hra.nn.norm import EPSILON, LayerNorm
from hra.nn.tap import Tap
from hra.nn.transformer import TransformerLayer
from hra.nn.types import types_of


class TransformerSpeller(nnx.Module):
  """Parameters; `adapted` is the decoder (`hra.decoders.interface.Layered`)."""

  def __init__(self, config: BackboneConfig, *, rngs: nnx.Rngs):
    types, decoder = types_of(config), config.decoder
    self.config = nnx.static(config)
    self.labels = nnx.Embed(config.vocabulary, config.width, rngs=rngs, **types)
    self.places = nnx.Embed(decoder.places, config.width, rngs=rngs, **types)
    self.layers = transformer.stacked(
      decoder.layers,
      key=rngs.params(),
      width=config.width,
      heads=decoder.heads,
      inner=decoder.feed_forward,
      activation=config.transformer.activation,
      key_bias=False,
      crosses=True,
      types=types,
    )
    self.norm = LayerNorm(config.width, epsilon=EPSILON, rngs=rngs, **types)

  def adapted(self, depth: Depth) -> "Speller":
    return Speller(self, depth)

  def embedded(self, labels: jax.Array, place: jax.Array) -> jax.Array:
    """What enters the layers."""
    return self.labels(labels) + self.places(place)

  def said(self, hidden: jax.Array) -> jax.Array:
    """[..., D] of the last layer -> logits [..., V]."""
    return exactly(self.labels.attend(self.norm(hidden)))


class SpellerState(NamedTuple):
  """After some labels."""

  caches_L: Cache
  """[L, ...] of the layers."""
  said: Said


@dataclasses.dataclass(frozen=True)
class Speller:
  """`hra.decoders.interface.Decoder`, as `depth` runs its layers."""

  module: TransformerSpeller
  depth: Depth

  def logits(
    self, hidden_TD: jax.Array, length: jax.Array, labels_U: jax.Array
  ) -> jax.Array:
    del length
    config = self.module.config
    prompt = jnp.asarray(config.decoder.prompt, labels_U.dtype)
    entering_P = jnp.concatenate([prompt, labels_U])
    # Longer than all places only where labels are padded: then what is behind the
    # last is nobody's.
    places_P = jnp.minimum(
      jnp.arange(len(entering_P)), config.decoder.places - 1
    )
    context = make_context(
      len(entering_P),
      jnp.asarray(len(entering_P)),
      position=None,
      width=config.width,
      heads=config.decoder.heads,
      causal=True,
    )

    def step(
      layer: TransformerLayer, extra: tuple[()], hidden_PD: jax.Array, tap: Tap
    ) -> tuple[jax.Array, tuple[()]]:
      memory = layer.memory(hidden_TD, tap=tap)
      return layer(hidden_PD, context, memory=memory, tap=tap), extra

    hidden_PD, _ = self.depth.through(
      self.module.layers, self.module.embedded(entering_P, places_P), step
    )
    return self.module.said(hidden_PD[len(prompt) - 1 :])

  def loss(
    self,
    hidden_TD: jax.Array,
    length: jax.Array,
    labels_U: jax.Array,
    label_length: jax.Array,
  ) -> Loss:
    """Cross-entropy of the labels and of the end, the prompt being given.

    A transcript that is longer than the decoder has places weighs nothing.
    """
    decoder = self.module.config.decoder
    return spelling_loss(
      self.logits(hidden_TD, length, labels_U),
      labels_U,
      label_length,
      smoothing=decoder.label_smoothing,
      counts=(length > 0)
      & (len(decoder.prompt) + label_length <= decoder.places),
    )

  def greedy(self, hidden_TD: jax.Array, length: jax.Array) -> Labels:
    """Until the end, or as many labels as there are places for.

    Without a frame nothing is said.
    """
    memory_L = self._memory(hidden_TD)
    most = self._most()

    def going(search: tuple[SpellerState, jax.Array, Labels]) -> jax.Array:
      _, label, heard = search
      ended = (label == BLANK) & (heard.length > 0)
      return ~ended & (heard.length < most) & (length > 0)

    def step(
      search: tuple[SpellerState, jax.Array, Labels],
    ) -> tuple[SpellerState, jax.Array, Labels]:
      state, label, heard = search
      state, logits_V, _ = self._step(memory_L, state, label)
      label = jnp.argmax(logits_V).astype(label.dtype)
      labels_U = heard.labels_U.at[heard.length].set(label)
      return state, label, Labels(labels_U, heard.length + 1)

    state, last = self._begun(memory_L)
    nothing = Labels(jnp.zeros(most, jnp.int32), jnp.zeros((), jnp.int32))
    _, label, heard = jax.lax.while_loop(going, step, (state, last, nothing))
    # The end was written down as a label too.
    ended = (label == BLANK) & (heard.length > 0)
    return heard._replace(length=heard.length - ended)

  def scorer(self, hidden_TD: jax.Array, length: jax.Array) -> AttentionScorer:
    """Its coverage is that of the mean attention of all layers and heads."""
    memory_L = self._memory(hidden_TD)

    def decode(
      state: SpellerState, label: jax.Array
    ) -> tuple[SpellerState, jax.Array, jax.Array]:
      return self._step(memory_L, state, label)

    state, _ = self._begun(memory_L)
    return AttentionScorer(
      decode=decode,
      begin=state,
      length=jnp.where(length > 0, len(hidden_TD), 0),
      first=self.module.config.decoder.prompt[-1],
      most=self._most(),
    )

  def _most(self) -> int:
    """Labels of a sentence."""
    decoder = self.module.config.decoder
    return decoder.places - len(decoder.prompt)

  def _memory(self, frames_TD: jax.Array) -> Memory:
    """[L, ...]: what the layers keep of the frames."""
    return self.depth.each(
      self.module.layers, lambda layer, tap: layer.memory(frames_TD, tap=tap)
    )

  def _begun(self, memory_L: Memory) -> tuple[SpellerState, jax.Array]:
    """The state after the prompt but for its last label, and that label."""
    config = self.module.config
    *before, last = config.decoder.prompt
    size = config.width // config.decoder.heads
    empty = jnp.zeros(
      (
        config.decoder.layers,
        config.decoder.places,
        config.decoder.heads,
        size,
      ),
      jnp.dtype(config.dtype),
    )

    def body(
      state: SpellerState, label: jax.Array
    ) -> tuple[SpellerState, None]:
      return self._step(memory_L, state, label)[0], None

    state = SpellerState(Cache(empty, empty), begun())
    state, _ = jax.lax.scan(body, state, jnp.asarray(before, jnp.int32))
    return state, jnp.asarray(last, jnp.int32)

  def _step(
    self, memory_L: Memory, state: SpellerState, label: jax.Array
  ) -> tuple[SpellerState, jax.Array, jax.Array]:
    """After one more label: the state, logits [V] of what may come, attention [T]."""
    config = self.module.config

    def step(
      layer: TransformerLayer,
      kept: tuple[Cache, Memory],
      hidden_1D: jax.Array,
      tap: Tap,
    ) -> tuple[jax.Array, tuple[Cache, jax.Array]]:
      cache, memory = kept
      after = layer.step(
        hidden_1D[0], cache, state.said.number, memory=memory, tap=tap
      )
      return after.hidden_D[None], (after.cache, after.attended_T)

    entering_D = self.module.embedded(label, state.said.number)
    hidden_1D, (caches_L, attended_LT) = self.depth.through(
      self.module.layers,
      entering_D[None],
      step,
      (state.caches_L, memory_L),
    )
    after = said(state.said, label, config.decoder)
    logits_V = allowed(self.module.said(hidden_1D[0]), after, config.decoder)
    return SpellerState(caches_L, after), logits_V, attended_LT.mean(axis=0)


def projections(config: BackboneConfig) -> dict[str, tuple[int, int]]:
  """Sites of a layer's projections -> (inputs, outputs) of each."""
  return transformer.projections(
    config.width, inner=config.decoder.feed_forward, crosses=True
  )


def biases(config: BackboneConfig) -> dict[str, int]:
  """Sites of a layer where a bias is added -> how wide it is."""
  return transformer.biases(
    config.width,
    inner=config.decoder.feed_forward,
    key_bias=False,
    crosses=True,
  )
