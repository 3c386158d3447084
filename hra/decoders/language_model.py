"""Language models over the recogniser's labels, of one sentence.

In: labels. Out: log-probabilities of the next one, label by label for the search
(`hra.decoders.beam.LanguageModel`) or all at once for training. Label 0, which no
decoder emits as a label, begins a sentence and ends it.

Either an LSTM (`hra.nn.lstm`), or a causal Transformer (Vaswani et al. 2017) with norms
before its branches, rotary positions and, where search goes label by label, keys and
values of the last `context` labels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from hra.config import LanguageModelConfig
from hra.decoders.interface import BLANK, Loss, exactly, masked
from hra.nn.attention import Cache, make_context
from hra.nn.lstm import LstmStack, LstmState
from hra.nn.norm import EPSILON, LayerNorm
from hra.nn.transformer import TransformerLayer, stacked
from hra.nn.types import Types

Tree = Any


class TrainedLanguageModel(Protocol):
  """What is also a `hra.decoders.beam.LanguageModel`."""

  def start(self) -> Tree: ...

  def advance(
    self, state: Tree, label: jax.Array
  ) -> tuple[Tree, jax.Array]: ...

  def log_probabilities(self, labels_U: jax.Array) -> jax.Array:
    """[P, V]: of each label, given those before it, and of the end."""
    ...


def loss(
  model: TrainedLanguageModel, labels_U: jax.Array, length: jax.Array
) -> Loss:
  """-log P(labels, end) of a sentence, in nats.

  Its weight is the number of labels and one, for the end: exp(total / weight), of
  sums over sentences, is the perplexity. An empty sentence weighs nothing.
  """
  log_PV = model.log_probabilities(labels_U)
  place_P = jnp.arange(len(log_PV))
  label_P = jnp.pad(labels_U, (0, 1))
  label_P = jnp.where(place_P < length, label_P, BLANK)
  log_P = jnp.take_along_axis(log_PV, label_P[:, None], axis=1)[:, 0]
  total = -jnp.where(place_P <= length, log_P, 0).sum()
  return masked(total, length + 1, length > 0)


class _Labels(nnx.Module):
  """Labels -> embeddings, and hidden states -> log-probabilities of labels."""

  def __init__(
    self, config: LanguageModelConfig, *, types: Types, rngs: nnx.Rngs
  ):
    size = config.embedding or config.width
    self.tied = config.output == "tied"
    self.embedding = nnx.Embed(config.vocabulary, size, rngs=rngs, **types)
    outputs = size if self.tied else config.vocabulary
    self.output = nnx.Linear(config.width, outputs, rngs=rngs, **types)

  def __call__(self, hidden: jax.Array) -> jax.Array:
    """[..., D] -> log-probabilities [..., V] in at least float32."""
    logits = self.output(hidden)
    if self.tied:
      logits = self.embedding.attend(logits)
    return jax.nn.log_softmax(exactly(logits))

  def embeddings(self, labels_U: jax.Array) -> jax.Array:
    """[P, E]: of label 0, which begins a sentence, and of each label."""
    return self.embedding(jnp.pad(labels_U, (1, 0), constant_values=BLANK))


class LstmLanguageModel(nnx.Module):
  """Layers of an LSTM one above the other."""

  def __init__(self, config: LanguageModelConfig, *, rngs: nnx.Rngs):
    types = _types(config)
    self.labels = _Labels(config, types=types, rngs=rngs)
    self.layers = LstmStack(
      config.embedding or config.width,
      config.width,
      layers=config.layers,
      types=types,
      rngs=rngs,
    )

  def start(self) -> tuple[LstmState, ...]:
    return self.layers.start()

  def advance(
    self, state: tuple[LstmState, ...], label: jax.Array
  ) -> tuple[tuple[LstmState, ...], jax.Array]:
    state = self.layers.step(state, self.labels.embedding(label))
    return state, self.labels(state[-1].hidden_H)

  def log_probabilities(self, labels_U: jax.Array) -> jax.Array:
    return self.labels(self.layers(self.labels.embeddings(labels_U)))


class TransformerState(NamedTuple):
  """After some labels."""

  caches_L: Cache
  """[L, ...] of the layers."""
  heard: jax.Array
  """Labels, label 0 at the beginning included."""


class TransformerLanguageModel(nnx.Module):
  """L stacked causal layers and a norm."""

  def __init__(self, config: LanguageModelConfig, *, rngs: nnx.Rngs):
    types = _types(config)
    self.config = nnx.static(config)
    self.labels = _Labels(config, types=types, rngs=rngs)
    size = config.embedding or config.width
    self.enter = nnx.Linear(size, config.width, rngs=rngs, **types)
    self.layers = stacked(
      config.layers,
      key=rngs.params(),
      width=config.width,
      heads=config.heads,
      inner=config.feed_forward,
      position="rotary",
      types=_types(config),
    )
    self.norm = _norm(config, rngs=rngs)

  def start(self) -> TransformerState:
    config = self.config
    shape = (config.layers, config.context, config.heads, -1)
    empty = jnp.zeros(
      (config.layers, config.context, config.width), jnp.dtype(config.dtype)
    ).reshape(shape)
    return TransformerState(Cache(empty, empty), jnp.array(0))

  def advance(
    self, state: TransformerState, label: jax.Array
  ) -> tuple[TransformerState, jax.Array]:
    def body(
      hidden_D: jax.Array, scanned: tuple[TransformerLayer, Cache]
    ) -> tuple[jax.Array, Cache]:
      layer, cache = scanned
      after = layer.step(hidden_D, cache, state.heard)
      return after.hidden_D, after.cache

    hidden_D = self.enter(self.labels.embedding(label))
    hidden_D, caches_L = jax.lax.scan(
      body, hidden_D, (self.layers, state.caches_L)
    )
    after = TransformerState(caches_L, state.heard + 1)
    return after, self.labels(self.norm(hidden_D))

  def log_probabilities(self, labels_U: jax.Array) -> jax.Array:
    config = self.config
    hidden_PD = self.enter(self.labels.embeddings(labels_U))
    context = make_context(
      len(hidden_PD),
      jnp.array(len(hidden_PD)),
      position="rotary",
      width=config.width,
      heads=config.heads,
      causal=True,
      left_context=config.context - 1,
      dtype=jnp.dtype(config.dtype),
    )

    def body(
      hidden_PD: jax.Array, layer: TransformerLayer
    ) -> tuple[jax.Array, None]:
      return layer(hidden_PD, context), None

    hidden_PD, _ = jax.lax.scan(body, hidden_PD, self.layers)
    return self.labels(self.norm(hidden_PD))


LanguageModule = LstmLanguageModel | TransformerLanguageModel

LANGUAGE_MODELS: dict[str, Callable[..., LanguageModule]] = {
  "lstm": LstmLanguageModel,
  "transformer": TransformerLanguageModel,
}


def build(config: LanguageModelConfig, *, key: jax.Array) -> LanguageModule:
  """A fresh one of `config.kind`; the vocabulary is given."""
  return LANGUAGE_MODELS[config.kind](config, rngs=nnx.Rngs(key))


def _norm(config: LanguageModelConfig, *, rngs: nnx.Rngs) -> LayerNorm:
  return LayerNorm(config.width, epsilon=EPSILON, rngs=rngs, **_types(config))


def _types(config: LanguageModelConfig) -> Types:
  return Types(
    dtype=jnp.dtype(config.dtype), param_dtype=jnp.dtype(config.param_dtype)
  )
