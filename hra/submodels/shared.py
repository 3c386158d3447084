"""Shared parameters in a store: one file each, named by the hash of its content."""

import collections
import dataclasses
import re
import threading
from collections.abc import Mapping

import numpy as np

from hra.backbone.tensors import hash_tensors
from hra.errors import InputError, StorageError
from hra.submodels import layout
from hra.submodels.file import Tree, flat
from hra.submodels.names import SUFFIX
from hra.submodels.place import Place

_WHAT = "a safetensors file"
_NONE = hash_tensors({})
_NAME = re.compile(rf"shared-([0-9a-f]{{32}}){re.escape(SUFFIX)}")
_MOST = 16
"""How many are held for who asks next."""


@dataclasses.dataclass
class _Held:
  tree: Tree | None = None
  lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)


class Shared:
  """Of one folder; those that were asked for last are held."""

  def __init__(self, place: Place):
    self._place = place
    self._held: collections.OrderedDict[str, _Held] = collections.OrderedDict()
    self._saved: tuple[Tree, str] | None = None
    self._lock = threading.Lock()

  def load(self, fingerprint: str) -> Tree:
    """The parameters of that hash; while they are held, the same arrays for all.

    Raises:
      InputError: they are not there, or are others by now.
    """
    from hra.sharding import nested  # a leaf: with jax, slow to import

    with self._lock:
      held = self._held.setdefault(fingerprint, _Held())
      self._held.move_to_end(fingerprint)
      if len(self._held) > _MOST:
        self._held.popitem(last=False)
    with held.lock:  # nobody else's
      if held.tree is None:
        held.tree = nested(self._tensors(fingerprint))
      return held.tree

  def save(self, shared: Tree) -> str:
    """Writes them, where they are not there and whole, and returns their hash."""
    if self._saved is not None and self._saved[0] is shared:
      fingerprint = self._saved[1]
      if fingerprint == _NONE or self._has(fingerprint):
        return fingerprint
    tensors = flat(shared)
    fingerprint = hash_tensors(tensors)
    self._saved = (shared, fingerprint)
    if not tensors or self._is_whole(fingerprint):
      return fingerprint
    head, laid = layout.build(
      {name: (leaf.dtype, leaf.shape) for name, leaf in tensors.items()}, {}
    )
    data = head + b"".join(tensors[name].tobytes() for name in laid.spans)
    self._place.write(_name(fingerprint), data)
    return fingerprint

  def remove(self, fingerprint: str) -> None:
    if fingerprint != _NONE:
      self._place.remove(_name(fingerprint))

  def _has(self, fingerprint: str) -> bool:
    try:
      self._place.look(_name(fingerprint))
    except FileNotFoundError:
      return False
    return True

  def _is_whole(self, fingerprint: str) -> bool:
    try:
      self._tensors(fingerprint)
    except StorageError:
      raise
    except InputError:
      return False
    return True

  def _tensors(self, fingerprint: str) -> Mapping[str, np.ndarray]:
    if fingerprint == _NONE:
      return {}
    path = f"{self._place.path}/{_name(fingerprint)}"
    try:
      data = self._place.read(_name(fingerprint))
    except FileNotFoundError:
      raise InputError(
        path,
        expected="the shared parameters beside the Submodels",
        got="no such file",
        fix="copy the folder whole",
      ) from None
    laid = layout.read(
      lambda start, stop: data[start:stop], len(data), where=path, what=_WHAT
    )
    tensors = {name: span.of(data) for name, span in laid.spans.items()}
    found = hash_tensors(tensors)
    if found != fingerprint:
      raise InputError(
        path,
        expected=f"content of hash {fingerprint}",
        got=found,
        fix="it was changed: copy the folder whole again",
      )
    return tensors


def shared_fingerprint(shared: Tree) -> str:
  """What tells shared parameters from others: the hash in their file's name."""
  return hash_tensors(flat(shared))


def is_shared(name: str) -> bool:
  """Whether a file of that name holds shared parameters."""
  return _NAME.fullmatch(name) is not None


def _name(fingerprint: str) -> str:
  return f"shared-{fingerprint}{SUFFIX}"
