"""The Python face: a backbone that featurises, scores and transcribes.

One call may mix speakers, adapter families, sets of shared parameters and the bare
backbone; each waveform is answered with its own Submodel or with none, all of them
by one compiled program. Only who was fine-tuned in full is answered apart.
"""

import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from hra.adapters import families
from hra.adapters.composite import Composite
from hra.adapters.interface import Adapter, Frozen, Tree, check_trees
from hra.backbone import store
from hra.backbone.network import Backbone
from hra.config import AdapterConfig, BackboneConfig
from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.evaluate.search import Search
from hra.evaluate.transcribe import heard, spelled
from hra.features.frontend import Mel
from hra.model import Model, Output
from hra.submodels import Submodel

_ROUND = SAMPLE_RATE // 2
"""Batches are padded to multiples of half a second: few compiled shapes."""

_Kind = tuple[str, ...]


def load_backbone(
  folder: epath.PathLike, *, computed: BackboneConfig | None = None
) -> "Recognizer":
  """A backbone's folder (or "tiny", the bundled one) ready to transcribe.

  Args:
    computed: types, weights in 8 bits or not, and rematerialisation in place of
      the folder's.

  Raises:
    InputError: when the folder is not a backbone's.
  """
  return Recognizer(store.load(folder, computed=computed))


class Recognizer:
  """A resident backbone."""

  def __init__(self, stored: store.StoredBackbone):
    self.stored = stored
    self._bare = Model(adapter=Frozen(), frontend=stored.frontend)

  def features(
    self, waves: Sequence[np.ndarray]
  ) -> tuple[jax.Array, jax.Array]:
    """Waveforms, 16 kHz float32 in [-1, 1] -> mel_BTF, valid frames [B]."""
    _check_waves(waves)
    wave_BS, lengths_B = _stacked(_filled(waves))
    mel = _features(self._bare, wave_BS, lengths_B)
    return mel.mel_TF[: len(waves)], mel.length[: len(waves)]

  def logits(
    self,
    features: jax.Array,
    lengths: jax.Array,
    submodels: Sequence[Submodel | None] | None = None,
    *,
    labels: np.ndarray | jax.Array | None = None,
    guard: bool = True,
  ) -> tuple[jax.Array, jax.Array]:
    """mel_BTF, valid frames -> logits, valid frames [B].

    CTC: [B, T, V]. Transducer: [B, T, U + 1, V]. Attention: [B, U + 1, V].

    Args:
      submodels: one for each row, None being the bare backbone.
      labels: labels_BU that the logits are of; CTC has no use for them.
      guard: as for `transcribe`.

    Raises:
      InputError: when a Submodel was made for another backbone or holds other
        parameters than its adapter; without labels where there have to be some.
    """
    labels_BU = self._labels(labels, count=len(features))
    outputs: list[tuple[jax.Array, jax.Array]] = [
      (jnp.zeros(()), jnp.zeros(()))
    ] * len(features)
    if not outputs:
      return self._no_logits(features, lengths, labels_BU)
    chosen = [None] * len(features) if submodels is None else submodels
    for group in self._groups(chosen, len(features), guard=guard):
      index = np.asarray(_filled(group.members))
      logits_B, lengths_B = _logits(
        group.model,
        group.backbone,
        group.shared,
        group.rows,
        group.active,
        features[index],
        lengths[index],
        labels_BU[index],
      )
      for place, member in enumerate(group.members):  # the others fill up
        outputs[member] = logits_B[place], lengths_B[place]
    logits, valid = zip(*outputs, strict=True)
    return jnp.stack(logits), jnp.stack(valid)

  def transcribe(
    self,
    waves: Sequence[np.ndarray],
    submodels: Sequence[Submodel | None] | None = None,
    *,
    search: Search | None = None,
    guard: bool = True,
  ) -> list[str]:
    """Waveforms, 16 kHz float32 in [-1, 1] -> texts.

    Args:
      submodels: one for each waveform, None being the bare backbone.
      search: `hra.evaluate.search.open_search`; None is greedy.
      guard: the bare backbone answers in place of a Submodel that was no better
        than it on its dev recordings; False uses every Submodel that is given.

    Raises:
      InputError: when a waveform is not one-dimensional float, or a Submodel was
        made for another backbone or holds other parameters than its adapter.
    """
    _check_waves(waves)
    chosen = [None] * len(waves) if submodels is None else submodels
    texts = [""] * len(waves)
    for group in self._groups(chosen, len(waves), guard=guard):
      wave_BS, lengths_B = _stacked([waves[i] for i in _filled(group.members)])
      found = heard(
        group.model,
        search,
        group.backbone,
        group.shared,
        group.rows,
        group.active,
        wave_BS,
        lengths_B,
      )
      spoken = spelled(found, self.stored.tokenizer)
      for member, text in zip(group.members, spoken, strict=False):
        texts[member] = text
    return texts

  def _groups(
    self,
    submodels: Sequence[Submodel | None],
    count: int,
    *,
    guard: bool = False,
  ) -> Iterator["_Group"]:
    """The rows that one compiled program can run together.

    That is all of them, but for those that were fine-tuned in full: each of these
    is a backbone of its own, made when its turn comes.
    """
    if len(submodels) != count:
      raise InputError(
        "submodels",
        expected=f"one for each of {count}",
        got=str(len(submodels)),
      )
    mixed: dict[int, Submodel | None] = {}
    full: dict[_Kind, list[int]] = {}
    weights: dict[_Kind, Submodel] = {}
    for index, submodel in enumerate(submodels):
      if submodel is None:
        mixed[index] = None
        continue
      self._check(submodel)
      bare = submodel.adapter.family == "none"
      if bare or (guard and submodel.worse_than_backbone):
        mixed[index] = None
      elif submodel.adapter.family == "full":
        kind = _kind(weights, submodel, by=submodel.task, alike="row")
        full.setdefault(kind, []).append(index)
      else:
        mixed[index] = submodel
    if mixed:
      yield self._mixed_group(mixed)
    for kind, members in full.items():
      yield self._full_group(weights[kind], members)

  def _mixed_group(self, chosen: Mapping[int, Submodel | None]) -> "_Group":
    members = list(chosen)
    kinds: dict[_Kind, Submodel] = {}
    kind_of = {
      index: _kind(kinds, each, by=each.shared_fingerprint, alike="shared")
      for index, each in chosen.items()
      if each is not None
    }
    if not kinds:
      return self._bare_group(self.stored.module, members)
    if len(kinds) == 1:
      (first,) = kinds.values()
      adapter, shared = self._adapter(first.adapter), first.shared
      rows = [(each or first).row for each in chosen.values()]
    else:
      # In an order of their own: the same mix is the same program.
      names = {kind: str(place) for place, kind in enumerate(sorted(kinds))}
      parts = {names[kind]: each for kind, each in kinds.items()}
      adapter = composite = Composite(
        parts=tuple(
          (name, self._adapter(parts[name].adapter)) for name in names.values()
        )
      )
      shared = composite.shared(
        {name: each.shared for name, each in parts.items()}
      )
      rows = [
        composite.row({names[kind_of[index]]: each.row} if each else {})
        for index, each in chosen.items()
      ]
    active = np.zeros(_places(len(members)), bool)
    active[: len(members)] = [each is not None for each in chosen.values()]
    return _Group(
      Model(adapter=adapter, frontend=self.stored.frontend),
      self.stored.module,
      members,
      shared,
      jax.tree.map(lambda *leaves: np.stack(leaves), *_filled(rows)),
      active,
    )

  def _full_group(self, submodel: Submodel, members: list[int]) -> "_Group":
    """The bare model on the weights of one Submodel."""
    backbone = _merged(
      self._adapter(submodel.adapter), submodel.row, self.stored.module
    )
    return self._bare_group(backbone, members)

  def _bare_group(self, backbone: Backbone, members: list[int]) -> "_Group":
    inactive = np.zeros(_places(len(members)), bool)
    return _Group(self._bare, backbone, members, {}, {}, inactive)

  def _no_logits(
    self, features: jax.Array, lengths: jax.Array, labels_BU: np.ndarray
  ) -> tuple[jax.Array, jax.Array]:
    """What an empty batch is answered with: shapes without numbers."""
    shapes = jax.eval_shape(
      functools.partial(_logits, self._bare),
      *(self.stored.module, {}, {}, np.zeros(0, bool)),
      *(features, lengths, labels_BU),
    )
    logits, valid = (jnp.zeros(each.shape, each.dtype) for each in shapes)
    return logits, valid

  def _labels(
    self, labels: np.ndarray | jax.Array | None, *, count: int
  ) -> np.ndarray:
    """labels_BU; without any where the decoder predicts none from another."""
    kind = self.stored.config.decoder.kind
    if labels is None and kind == "ctc":
      return np.zeros((count, 0), np.int32)
    got = np.asarray([] if labels is None else labels)
    if (
      got.ndim != 2
      or len(got) != count
      or not np.issubdtype(got.dtype, np.integer)
    ):
      raise InputError(
        "labels",
        expected=f"integers [{count}, U]: the decoder is {kind!r}",
        got="none" if labels is None else f"{got.dtype} {got.shape}",
      )
    return got

  def _adapter(self, config: AdapterConfig) -> Adapter:
    mels = self.stored.frontend.num_mels * self.stored.frontend.stack
    return families.build(config, self.stored.config, mels=mels)

  def _check(self, submodel: Submodel) -> None:
    where = f"Submodel of task {submodel.task!r}"
    if submodel.backbone_fingerprint != self.stored.fingerprint:
      raise InputError(
        where,
        expected=f"one made for backbone {self.stored.fingerprint}",
        got=submodel.backbone_fingerprint,
        fix="load the backbone that it was trained on",
      )
    adapter = self._adapter(submodel.adapter)
    check_trees(adapter, submodel.row, submodel.shared, where=where)


class _Group(NamedTuple):
  """Members of a request that one program runs on one backbone.

  Rows and `active` have a place for each of `_filled(members)`; those that fill
  up are not active.
  """

  model: Model
  backbone: Backbone
  members: list[int]
  shared: Tree
  rows: Tree
  active: np.ndarray


def _kind(
  kinds: dict[_Kind, Submodel],
  submodel: Submodel,
  *,
  by: str,
  alike: Literal["row", "shared"],
) -> _Kind:
  """The first of `kinds` with the same adapter and arrays, or a new one.

  What files say of their arrays is a hint: these are compared.

  Args:
    by: a name that those of the same arrays have in common.
    alike: what has to be equal.
  """
  arrays = operator.attrgetter(alike)
  place = 0
  while True:  # a new kind is equal to itself
    kind = (repr(submodel.adapter), by, str(place))
    if _equal(arrays(kinds.setdefault(kind, submodel)), arrays(submodel)):
      return kind
    place += 1


def _equal(first: Tree, second: Tree) -> bool:
  """Whether trees of the same structure hold the same numbers."""
  return first is second or all(
    np.array_equal(ours, theirs)
    for ours, theirs in zip(
      jax.tree.leaves(first), jax.tree.leaves(second), strict=True
    )
  )


def _places(count: int) -> int:
  """The next power of two: few compiled shapes serve requests of all sizes."""
  return 1 << (count - 1).bit_length() if count else 0


def _filled(members: Sequence[Any]) -> list[Any]:
  """As many as there are places; the first fills up."""
  given = list(members)
  return given + given[:1] * (_places(len(given)) - len(given))


def _check_waves(waves: Sequence[np.ndarray]) -> None:
  for index, wave in enumerate(waves):
    if np.ndim(wave) != 1 or not np.issubdtype(
      np.asarray(wave).dtype, np.floating
    ):
      raise InputError(
        f"waveform {index}",
        expected="one-dimensional float samples in [-1, 1] at 16 kHz",
        got=f"{np.asarray(wave).dtype} of shape {np.shape(wave)}",
        fix="hra.data.audio.decode reads files so",
      )


def _stacked(waves: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  lengths_B = np.array([len(wave) for wave in waves], np.int32)
  size = max(-(-int(lengths_B.max(initial=1)) // _ROUND) * _ROUND, _ROUND)
  wave_BS = np.zeros((len(waves), size), np.float32)
  for index, wave in enumerate(waves):
    wave_BS[index, : len(wave)] = wave
  return wave_BS, lengths_B


@functools.partial(jax.jit, static_argnums=0)
def _features(model: Model, wave_BS: jax.Array, lengths_B: jax.Array) -> Mel:
  return jax.vmap(model.features)(wave_BS, lengths_B)


@functools.partial(jax.jit, static_argnums=0)
def _merged(adapter: Adapter, row: Tree, backbone: Backbone) -> Backbone:
  return adapter.merge(row, backbone)


@functools.partial(jax.jit, static_argnums=0)
def _logits(
  model: Model,
  backbone: Backbone,
  shared: Tree,
  rows: Tree,
  active_B: jax.Array,
  mel_BTF: jax.Array,
  lengths_B: jax.Array,
  labels_BU: jax.Array,
) -> Output:
  return jax.vmap(model.logits, in_axes=(None, None, 0, 0, 0, 0, 0))(
    backbone, shared, rows, active_B, mel_BTF, lengths_B, labels_BU
  )
