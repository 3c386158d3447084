"""The Python face: a backbone that featurises, scores and transcribes.

One call may mix speakers, adapter families, sets of shared parameters and the bare
backbone; each waveform is answered with its own Submodel or with none, all of them
by one compiled program. Only who was fine-tuned in full is answered apart.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from hra.adapters.interface import Tree
from hra.backbone import store
from hra.backbone.network import Backbone
from hra.backbone.prompted import Asked
from hra.config import BackboneConfig, ChunksConfig
from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.evaluate import long
from hra.evaluate.groups import Grouping
from hra.evaluate.places import (
  check_count,
  check_waves,
  filled,
  stacked,
)
from hra.evaluate.search import Search
from hra.evaluate.segments import Segment, spans
from hra.evaluate.transcribe import heard
from hra.features.frontend import Mel
from hra.model import Model, Output
from hra.peft.folder import Given, open_submodel
from hra.submodels import Submodel


def load_backbone(
  folder: epath.PathLike,
  *,
  computed: BackboneConfig | None = None,
  asked: Asked | None = None,
) -> "Recognizer":
  """A backbone's folder (or "tiny", the bundled one) ready to transcribe.

  Args:
    computed: types, weights in 8 bits or not, and rematerialisation in place of
      the folder's.
    asked: of a decoder with prompts, in place of what the folder says.

  Raises:
    InputError: when the folder is not a backbone's, or its decoder can't be asked
      for that.
  """
  stored = store.load(folder, computed=computed)
  return Recognizer(store.asked(stored, asked) if asked else stored)


class Recognizer:
  """A resident backbone."""

  def __init__(self, stored: store.StoredBackbone):
    self.stored = stored
    self.grouping = Grouping(stored)

  def submodel(self, path: epath.PathLike, *, task: str = "") -> Submodel:
    """A Submodel's file, or a LoRA folder that PEFT saved for the original.

    Args:
      task: whose a folder is called; empty is its own name.

    Raises:
      InputError: it can't be read, or is none of this backbone.
    """
    return open_submodel(path, self.stored, task=task)

  def features(
    self, waves: Sequence[np.ndarray]
  ) -> tuple[jax.Array, jax.Array]:
    """Waveforms, 16 kHz float32 in [-1, 1] -> mel_BTF, valid frames [B]."""
    check_waves(waves)
    wave_BS, lengths_B = stacked(filled(waves))
    mel = _features(self.grouping.bare, wave_BS, lengths_B)
    return mel.mel_TF[: len(waves)], mel.length[: len(waves)]

  def logits(
    self,
    features: jax.Array,
    lengths: jax.Array,
    submodels: Sequence[Given] | None = None,
    *,
    labels: np.ndarray | jax.Array | None = None,
    guard: bool = True,
  ) -> tuple[jax.Array, jax.Array]:
    """mel_BTF, valid frames -> logits, valid frames [B].

    CTC: [B, T, V]. Transducer: [B, T, U + 1, V]. Attention: [B, U + 1, V].

    Args:
      submodels: one for each row, or its path as for `submodel`; None is the bare
        backbone.
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
    for group in self.grouping.groups(chosen, len(features), guard=guard):
      index = np.asarray(filled(group.members))
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
    submodels: Sequence[Given] | None = None,
    *,
    search: Search | None = None,
    guard: bool = True,
    chunks: ChunksConfig | None = None,
  ) -> list[str]:
    """Waveforms, 16 kHz float32 in [-1, 1] -> texts.

    Long ones are heard piece by piece (`hra.evaluate.long`), by greedy search of a
    decoder that knows at which frame it says something, or by any of Whisper's.

    Args:
      submodels: one for each waveform, or its path as for `submodel`; None is the
        bare backbone.
      search: `hra.evaluate.search.open_search`; None is greedy.
      guard: the bare backbone answers in place of a Submodel that was no better
        than it on its dev recordings; False uses every Submodel that is given.
      chunks: what is long, and its pieces; None is as configured by default.

    Raises:
      InputError: when a waveform is not one-dimensional float, or a Submodel was
        made for another backbone or holds other parameters than its adapter.
    """
    found = self._labels_of(waves, submodels, search, guard, chunks)
    return [self._spelled(labels) for labels in found]

  def segments(
    self,
    waves: Sequence[np.ndarray],
    submodels: Sequence[Given] | None = None,
    *,
    search: Search | None = None,
    guard: bool = True,
    chunks: ChunksConfig | None = None,
  ) -> list[list[Segment]]:
    """As `transcribe`, but what was said when.

    Raises:
      InputError: also where the decoder isn't asked for times.
    """
    decoder = self.stored.config.decoder
    if not decoder.timestamps:
      raise InputError(
        "segments",
        expected="a decoder that is asked for times",
        got=f"{decoder.kind!r} without",
        fix="load Whisper with asked=hra.Asked(timestamps=True)",
      )
    found = self._labels_of(waves, submodels, search, guard, chunks)
    return [
      [
        Segment(each.start, each.end, self._spelled(each.labels))
        for each in spans(labels, decoder, seconds=len(wave) / SAMPLE_RATE)
      ]
      for labels, wave in zip(found, waves, strict=True)
    ]

  def _labels_of(
    self,
    waves: Sequence[np.ndarray],
    submodels: Sequence[Given] | None,
    search: Search | None,
    guard: bool,
    chunks: ChunksConfig | None,
  ) -> list[list[int]]:
    """Of each waveform, in however many pieces."""
    check_waves(waves)
    chosen = [None] * len(waves) if submodels is None else submodels
    check_count(chosen, len(waves))
    cutting = long.cutting(
      self.stored, chunks or ChunksConfig(), greedy=search is None
    )
    run = functools.partial(self._run, guard=guard)
    hear = functools.partial(heard, search=search)
    return long.labels(run, hear, waves, chosen, cutting=cutting)

  def _spelled(self, labels: Sequence[int]) -> str:
    """The text of labels; times are none of it."""
    first = self.stored.config.decoder.first_time
    return self.stored.tokenizer.decode(
      [label for label in labels if not first or label < first]
    )

  def _run(
    self,
    hear: Callable[..., Any],
    waves: Sequence[np.ndarray],
    submodels: Sequence[Submodel | None],
    *,
    guard: bool,
  ) -> list[Any]:
    """What `hear` says of each waveform, on the host."""
    found: list[Any] = [None] * len(waves)
    for group in self.grouping.groups(submodels, len(waves), guard=guard):
      given = stacked([waves[i] for i in filled(group.members)])
      of_group = (group.backbone, group.shared, group.rows, group.active)
      said = jax.device_get(hear(group.model, *of_group, *given))
      for place, member in enumerate(group.members):  # the others fill up
        found[member] = jax.tree.map(operator.itemgetter(place), said)
    return found

  def _no_logits(
    self, features: jax.Array, lengths: jax.Array, labels_BU: np.ndarray
  ) -> tuple[jax.Array, jax.Array]:
    """What an empty batch is answered with: shapes without numbers."""
    shapes = jax.eval_shape(
      functools.partial(_logits, self.grouping.bare),
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


@functools.partial(jax.jit, static_argnums=0)
def _features(model: Model, wave_BS: jax.Array, lengths_B: jax.Array) -> Mel:
  return jax.vmap(model.features)(wave_BS, lengths_B)


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
