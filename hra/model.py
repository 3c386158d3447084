"""The sentence: featurise -> augment -> adapt -> decode; and THE layer scan.

Everything here is written for one utterance of one task and is the same in
training, evaluation, export and serving. Callers `vmap` it over the B utterances
of a task and over K tasks.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from hra.adapters.interface import (
  Adapter,
  Stack,
  Tree,
  layer_slices,
  switch,
  with_layer,
)
from hra.backbone.network import Backbone
from hra.config import FrontendConfig
from hra.decoders import beam as beams
from hra.decoders.beam import Hypotheses, LanguageModel, Weights
from hra.decoders.interface import (
  Decoder,
  Emissions,
  FrameDecoder,
  Labels,
  Loss,
  adapted,
)
from hra.features.frontend import Mel, log_mel
from hra.nn.depth import Step
from hra.nn.tap import Tap


def _all_but_elementwise(primitive: Any, *_: Any, **__: Any) -> bool:
  """Keeps for the backward pass all that is worth it.

  Functions of single numbers are computed again while their inputs are read, which
  is no slower than to write and read them. Cast or broadcast, a layer's weights
  would be kept layer after layer: a copy of the whole backbone. As they are, they
  are kept nowhere.
  """
  return primitive.name not in _ELEMENTWISE | _MOVED


_ELEMENTWISE = frozenset(
  [
    "add",
    "add_any",
    "convert_element_type",
    "erf",
    "exp",
    "integer_pow",
    "logistic",
    "max",
    "mul",
    "neg",
    "rsqrt",
    "select_n",
    "square",
    "sub",
    "tanh",
  ]
)
_MOVED = frozenset(
  [
    "broadcast_in_dim",
    "concatenate",
    "pad",
    "reshape",
    "slice",
    "split",
    "squeeze",
    "transpose",
  ]
)
_BRANCH = "branch"
_SITE = "site"
"""Names of what taps hand on: kept as one, not as the sums that it is made of."""
_BRANCH_SITES = (".output", ".down")
"""How sites end at which a branch of a layer leaves for the residual stream."""
_REMAT_POLICIES = {
  "none": _all_but_elementwise,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  "branches": jax.checkpoint_policies.save_only_these_names(_BRANCH),
  "full": jax.checkpoint_policies.nothing_saveable,
}


@dataclasses.dataclass(frozen=True)
class _Depth:
  """`hra.nn.depth.Depth` of a stack: THE layer scan."""

  adapter: Adapter
  """Of this stack's layers, as are its parameters."""
  shared: Tree
  row: Tree
  active: jax.Array | None
  remat: str
  placed: jax.sharding.Sharding | None

  def through(
    self, layers: Any, hidden_TD: jax.Array, step: Step, extras: Tree = ()
  ) -> tuple[jax.Array, Tree]:
    def body(
      carried: tuple[jax.Array, Tree], scanned: Tree
    ) -> tuple[tuple[jax.Array, Tree], Tree]:
      hidden_TD, carry = carried
      layer, extra, own = scanned
      own = self._seen(own)
      hidden_TD, said = step(layer, extra, hidden_TD, self._tap(own))
      carry, adapted_TD = self.adapter.after_layer(
        own.shared, own.row, own.layer, carry, hidden_TD
      )
      hidden_TD = switch(self.active, adapted_TD, hidden_TD)
      return (_placed(hidden_TD, self.placed), carry), said

    body = jax.checkpoint(
      body, policy=_REMAT_POLICIES[self.remat], prevent_cse=False
    )
    hidden_TD = _placed(hidden_TD, self.placed)
    start = (hidden_TD, self.adapter.init_carry(hidden_TD))
    scanned = (layers, extras, self._slices(layers))
    (hidden_TD, _), said_L = jax.lax.scan(body, start, scanned)
    return hidden_TD, said_L

  def each(self, layers: Any, function: Callable[[Any, Tap], Tree]) -> Tree:
    def body(scanned: tuple[Any, _Slice]) -> Tree:
      layer, own = scanned
      return function(layer, self._tap(self._seen(own)))

    return jax.lax.map(body, (layers, self._slices(layers)))

  def _slices(self, layers: Any) -> "_Slice":
    """[L, ...]: of each layer."""
    return _Slice(
      jnp.arange(len(jax.tree.leaves(layers)[0])),
      layer_slices(self.shared)[1],
      layer_slices(self.row)[1],
    )

  def _seen(self, own: "_Slice") -> "_Slice":
    """With what is there for every layer, as the adapter is to see it in one."""
    shared = with_layer(layer_slices(self.shared)[0], own.shared)
    row = with_layer(layer_slices(self.row)[0], own.row)
    row = self.adapter.look_up(shared, row, own.layer)
    return _Slice(own.layer, shared, row)

  def _tap(self, own: "_Slice") -> Tap:
    def tap(site: str, inputs: jax.Array, outputs: jax.Array) -> jax.Array:
      moved = self.adapter.tap(
        own.shared, own.row, own.layer, site, inputs, outputs
      )
      moved = switch(self.active, moved, outputs)
      ends = site.endswith(_BRANCH_SITES)
      return checkpoint_name(moved, _BRANCH if ends else _SITE)

    return tap


def _placed(
  hidden_TD: jax.Array, sharding: jax.sharding.Sharding | None
) -> jax.Array:
  if sharding is None:
    return hidden_TD
  return jax.lax.with_sharding_constraint(hidden_TD, sharding)


class _Slice(NamedTuple):
  """One layer's part of what adapts it."""

  layer: jax.Array
  shared: Tree
  row: Tree


class Encoded(NamedTuple):
  """What the encoder says of one utterance."""

  hidden_TD: jax.Array
  length: jax.Array
  """Valid frames of T."""
  decoder: Decoder
  """Of the backbone as it is adapted."""


class Output(NamedTuple):
  """What the decoder says of one utterance (`hra.decoders.interface.Decoder`)."""

  logits: jax.Array
  length: jax.Array
  """Valid frames of T."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
  """What is static of a model: no array stands in here."""

  adapter: Adapter
  frontend: FrontendConfig
  placed: jax.sharding.Sharding | None = None
  """Of an utterance's frames between layers, where devices divide a batch: without
  it XLA may divide their width and exchange frames in place of weights."""

  def features(self, wave_S: jax.Array, samples: jax.Array) -> Mel:
    """wave_S in [-1, 1] at 16 kHz, valid samples -> mel_TF, valid frames.

    In JAX's widest float: float32, unless 64 bits are asked for.
    """
    wave_S = wave_S.astype(jnp.result_type(float))
    return log_mel(wave_S, samples, self.frontend)

  def encode(
    self,
    backbone: Backbone,
    shared: Tree,
    row: Tree,
    mel_TF: jax.Array,
    length: jax.Array,
    *,
    active: jax.Array | None = None,
  ) -> Encoded:
    """mel_TF of one utterance -> the last layer's frames, as `row` adapts it.

    Args:
      active: a boolean that switches the adapter off, so that one batch may mix
        adapted utterances and the bare backbone; None is always on.
    """
    backbone = jax.tree.map(
      functools.partial(switch, active),
      self.adapter.merge(row, backbone),
      backbone,
    )
    hidden_TD, length, context = backbone.embed(mel_TF, length)

    def step(
      layer: Any, extra: Tree, hidden_TD: jax.Array, tap: Tap
    ) -> tuple[jax.Array, Tree]:
      return layer(hidden_TD, context, tap=tap), extra

    def depth(stack: Stack) -> _Depth:
      return _Depth(
        *self.adapter.at(stack, shared, row),
        active,
        backbone.config.remat,
        self.placed,
      )

    hidden_TD, _ = depth("encoder").through(backbone.layers, hidden_TD, step)
    return Encoded(
      backbone.leave(hidden_TD),
      length,
      adapted(backbone.head, depth("decoder")),
    )

  def loss(
    self,
    backbone: Backbone,
    shared: Tree,
    row: Tree,
    mel_TF: jax.Array,
    length: jax.Array,
    labels_U: jax.Array,
    label_length: jax.Array,
  ) -> Loss:
    """The decoder's loss of one utterance, and its weight."""
    hidden_TD, length, decoder = self.encode(
      backbone, shared, row, mel_TF, length
    )
    return decoder.loss(hidden_TD, length, labels_U, label_length)

  def logits(
    self,
    backbone: Backbone,
    shared: Tree,
    row: Tree,
    active: jax.Array | None,
    mel_TF: jax.Array,
    length: jax.Array,
    labels_U: jax.Array,
  ) -> Output:
    """What training compares with the labels; CTC asks for none."""
    hidden_TD, length, decoder = self.encode(
      backbone, shared, row, mel_TF, length, active=active
    )
    return Output(decoder.logits(hidden_TD, length, labels_U), length)

  def greedy(
    self,
    backbone: Backbone,
    shared: Tree,
    row: Tree,
    active: jax.Array | None,
    wave_S: jax.Array,
    samples: jax.Array,
  ) -> Labels:
    """wave_S -> labels, greedily."""
    hidden_TD, length, decoder = self._heard(
      backbone, shared, row, active, wave_S, samples
    )
    return decoder.greedy(hidden_TD, length)

  def emissions(
    self,
    backbone: Backbone,
    shared: Tree,
    row: Tree,
    active: jax.Array | None,
    wave_S: jax.Array,
    samples: jax.Array,
  ) -> Emissions:
    """wave_S -> what greedy search says, and of which frame.

    Not of every decoder (`hra.evaluate.long.WAYS`).
    """
    hidden_TD, length, decoder = self._heard(
      backbone, shared, row, active, wave_S, samples
    )
    return cast(FrameDecoder, decoder).emissions(hidden_TD, length)

  def search(
    self,
    backbone: Backbone,
    shared: Tree,
    row: Tree,
    active: jax.Array | None,
    wave_S: jax.Array,
    samples: jax.Array,
    *,
    beam: int,
    weights: Weights,
    language_model: LanguageModel | None,
  ) -> Hypotheses:
    """wave_S -> the `beam` best sentences (`hra.decoders.beam.search`)."""
    hidden_TD, length, decoder = self._heard(
      backbone, shared, row, active, wave_S, samples
    )
    return beams.search(
      decoder.scorer(hidden_TD, length),
      labels=len(hidden_TD),
      beam=beam,
      weights=weights,
      language_model=language_model,
    )

  def _heard(
    self,
    backbone: Backbone,
    shared: Tree,
    row: Tree,
    active: jax.Array | None,
    wave_S: jax.Array,
    samples: jax.Array,
  ) -> Encoded:
    mel_TF, length = self.features(wave_S, samples)
    return self.encode(backbone, shared, row, mel_TF, length, active=active)
