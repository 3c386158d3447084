"""The Python face: a backbone that featurises, scores and transcribes.

One call may mix speakers, adapter families and the bare backbone; each waveform
is answered with its own Submodel or with none.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from hra.adapters import families
from hra.adapters.interface import Frozen, Tree
from hra.backbone import store
from hra.config import BackboneConfig
from hra.decoders import ctc
from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.evaluate.transcribe import best_paths
from hra.features.frontend import Mel
from hra.model import Model
from hra.submodels import Submodel

_ROUND = SAMPLE_RATE // 2
"""Batches are padded to multiples of half a second: few compiled shapes."""


def load_backbone(
  folder: epath.PathLike, *, computed: BackboneConfig | None = None
) -> "Recognizer":
  """A backbone's folder (or "tiny", the bundled one) ready to transcribe.

  Args:
    computed: types and rematerialisation in place of the folder's.

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
    wave_BS, lengths_B = _stacked(waves)
    mel = _features(self._bare, wave_BS, lengths_B)
    return mel.mel_TF, mel.length

  def logits(
    self,
    features: jax.Array,
    lengths: jax.Array,
    submodels: Sequence[Submodel | None] | None = None,
  ) -> tuple[jax.Array, jax.Array]:
    """mel_BTF, valid frames -> CTC logits [B, T, V], valid frames [B].

    Args:
      submodels: one for each row, None being the bare backbone.

    Raises:
      InputError: when a Submodel was made for another backbone.
    """
    outputs: list[tuple[jax.Array, jax.Array]] = [
      (jnp.zeros(()), jnp.zeros(()))
    ] * len(features)
    for group in self._groups(submodels, len(features)):
      index = np.asarray(group.members)
      logits_BTV, lengths_B = _logits(
        group.model,
        self.stored.module,
        group.shared,
        group.rows,
        group.active,
        features[index],
        lengths[index],
      )
      for place, member in enumerate(group.members):
        outputs[member] = logits_BTV[place], lengths_B[place]
    logits, valid = zip(*outputs, strict=True)
    return jnp.stack(logits), jnp.stack(valid)

  def transcribe(
    self,
    waves: Sequence[np.ndarray],
    submodels: Sequence[Submodel | None] | None = None,
  ) -> list[str]:
    """Waveforms, 16 kHz float32 in [-1, 1] -> texts.

    Args:
      submodels: one for each waveform, None being the bare backbone.

    Raises:
      InputError: when a waveform is not one-dimensional float, or a Submodel was
        made for another backbone.
    """
    _check_waves(waves)
    texts = [""] * len(waves)
    for group in self._groups(submodels, len(waves)):
      wave_BS, lengths_B = _stacked([waves[i] for i in group.members])
      paths_BT = best_paths(
        group.model,
        self.stored.module,
        group.shared,
        group.rows,
        np.arange(len(group.members)),
        group.active,
        wave_BS,
        lengths_B,
      )
      for member, path_T in zip(
        group.members, jax.device_get(paths_BT), strict=True
      ):
        texts[member] = self.stored.tokenizer.decode(ctc.collapse(path_T))
    return texts

  def _groups(
    self, submodels: Sequence[Submodel | None] | None, count: int
  ) -> list["_Group"]:
    """The rows that one compiled program can run together."""
    chosen = list(submodels) if submodels is not None else [None] * count
    if len(chosen) != count:
      raise InputError(
        "submodels", expected=f"one for each of {count}", got=str(len(chosen))
      )
    families_used: dict[tuple, list[int]] = {}
    for index, submodel in enumerate(chosen):
      if submodel is not None:
        self._check(submodel)
        key = (submodel.adapter, submodel.shared_fingerprint)
        families_used.setdefault(key, []).append(index)
    bare = [index for index, submodel in enumerate(chosen) if submodel is None]
    if not families_used:
      return [_Group(self._bare, bare, {}, {}, np.zeros(count, bool))]
    groups = []
    for members in families_used.values():
      # The bare ones ride along with the first group, switched off.
      members, riders = members + bare, len(bare)
      bare = []
      first = chosen[members[0]]
      assert first is not None
      adapter = families.build(first.adapter, self.stored.config)
      rows = [(chosen[index] or first).row for index in members]
      active = np.arange(len(members)) < len(members) - riders
      groups.append(
        _Group(
          Model(adapter=adapter, frontend=self.stored.frontend),
          members,
          first.shared,
          jax.tree.map(lambda *leaves: np.stack(leaves), *rows),
          active,
        )
      )
    return groups

  def _check(self, submodel: Submodel) -> None:
    if submodel.backbone_fingerprint != self.stored.fingerprint:
      raise InputError(
        f"Submodel of task {submodel.task!r}",
        expected=f"one made for backbone {self.stored.fingerprint}",
        got=submodel.backbone_fingerprint,
        fix="load the backbone that it was trained on",
      )


class _Group:
  """Members of a request that share an adapter and its shared parameters."""

  def __init__(
    self,
    model: Model,
    members: list[int],
    shared: Tree,
    rows: Tree,
    active: np.ndarray,
  ):
    self.model = model
    self.members = members
    self.shared = shared
    self.rows = rows
    self.active = active


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
def _logits(model, backbone, shared, rows, active_B, mel_BTF, lengths_B):
  def one(row, active, mel_TF, length):
    return model.encode(backbone, shared, row, mel_TF, length, active=active)

  output = jax.vmap(one)(rows, active_B, mel_BTF, lengths_B)
  return output.logits_TV, output.length
