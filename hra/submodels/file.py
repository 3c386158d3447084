"""A Submodel's file: a row's tensors, and metadata that say whose and of what.

Enters: a Submodel, or a file's bytes. Leaves: the bytes, always the same for the
same content; or what they hold, when every one of them is what was written.

    metadata["hra"]   JSON: format, task, version, adapter, backbone, shared,
                      tokenizer, summary; fingerprint, of all these and the tensors
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from hra import config_tree
from hra.backbone.tensors import DTYPES, hash_tensors
from hra.config import AdapterConfig
from hra.errors import InputError
from hra.submodels import layout

Tree = Any
"""A pytree of arrays."""

Verdict = Literal["better", "not better", "unjudged"]
"""Of a Submodel beside the bare backbone, on the task's dev split."""

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
WHAT = "a Submodel file"
_FORMAT = 2
_FIELDS: Mapping[str, type] = {
  "format": int,
  "task": str,
  "version": int,
  "adapter": dict,
  "backbone": str,
  "shared": str,
  "tokenizer": str,
  "summary": dict,
  "fingerprint": str,
}
_HASH = re.compile(r"[0-9a-f]{32}")
_SPOILT = "it was changed or cut off: bring a copy back, or publish it anew"


@dataclasses.dataclass(frozen=True)
class Submodel:
  """One task's row, and the shared parameters that it belongs to."""

  task: str
  adapter: AdapterConfig
  row: Tree
  shared: Tree
  backbone_fingerprint: str
  shared_fingerprint: str
  summary: Mapping[str, Any]
  """How it was trained, and its dev WER with and without."""
  tokenizer: str = ""
  """The hash of the backbone's tokenizer; empty where nobody said it."""
  version: int = 0
  """In its store, from 1; 0 as long as it is in none."""
  fingerprint: str = ""
  """Of all that its file holds; likewise empty."""

  @property
  def worse_than_backbone(self) -> bool:
    """Whether it was judged on dev and is no better than the bare backbone."""
    return self.summary.get("verdict") == "not better"


class Kind(NamedTuple):
  """What Submodels that were trained together have in common."""

  adapter: AdapterConfig
  backbone_fingerprint: str
  shared_fingerprint: str
  tokenizer: str


class Entry(NamedTuple):
  """What a store knows of a Submodel without reading its row."""

  task: str
  version: int
  fingerprint: str
  kind: Kind
  verdict: Verdict
  bytes: int
  """Of its file, or of its part of a pack."""

  @property
  def adapter(self) -> AdapterConfig:
    return self.kind.adapter

  @property
  def backbone_fingerprint(self) -> str:
    return self.kind.backbone_fingerprint

  @property
  def shared_fingerprint(self) -> str:
    return self.kind.shared_fingerprint


class Told(NamedTuple):
  """Metadata that were checked: each field is there and of its type."""

  fields: Mapping[str, Any]
  adapter: AdapterConfig

  @property
  def task(self) -> str:
    return self.fields["task"]

  @property
  def version(self) -> int:
    return self.fields["version"]

  @property
  def fingerprint(self) -> str:
    return self.fields["fingerprint"]

  @property
  def kind(self) -> Kind:
    told = self.fields
    return Kind(
      self.adapter, told["backbone"], told["shared"], told["tokenizer"]
    )

  def entry(self, size: int) -> Entry:
    verdict = self.fields["summary"].get("verdict")
    return Entry(
      self.task,
      self.version,
      self.fingerprint,
      self.kind,
      verdict if verdict in VERDICTS else "unjudged",
      size,
    )


@dataclasses.dataclass(frozen=True)
class Content:
  """All that a file holds."""

  told: Told
  tensors: Mapping[str, np.ndarray]

  @functools.cached_property
  def _hash(self) -> str:
    return hash_tensors(self.tensors)

  def numbered(self, version: int) -> "Content":
    """The same under another number."""
    fields = dict(self.told.fields, version=version)
    fields["fingerprint"] = _fingerprint(fields, self._hash)
    return Content(self.told._replace(fields=fields), self.tensors)

  def is_same(self, told: Told) -> bool:
    """Whether a file says of itself that it is this, under whatever number."""
    fields = dict(self.told.fields, version=told.version)
    return _fingerprint(fields, self._hash) == told.fingerprint

  def encode(self) -> bytes:
    """The file."""
    told = json.dumps(dict(self.told.fields), sort_keys=True)
    tensors = self.tensors
    head, laid = layout.build(
      {name: (leaf.dtype, leaf.shape) for name, leaf in tensors.items()},
      {"hra": told},
    )
    return head + b"".join(tensors[name].tobytes() for name in laid.spans)

  def check(self, *, where: object) -> "Content":
    """Itself, where tensors and metadata are those that it was written with."""
    found = _fingerprint(self.told.fields, self._hash)
    if found != self.told.fingerprint:
      raise InputError(
        where,
        expected=f"content of fingerprint {self.told.fingerprint}",
        got=found,
        fix=_SPOILT,
      )
    return self

  def submodel(self, shared: Tree) -> Submodel:
    from hra.sharding import nested  # a leaf: with jax, slow to import

    told, kind = self.told, self.told.kind
    return Submodel(
      task=told.task,
      adapter=kind.adapter,
      row=nested(self.tensors),
      shared=shared,
      backbone_fingerprint=kind.backbone_fingerprint,
      shared_fingerprint=kind.shared_fingerprint,
      summary=told.fields["summary"],
      tokenizer=kind.tokenizer,
      version=told.version,
      fingerprint=told.fingerprint,
    )


def content(submodel: Submodel) -> Content:
  """What is written of a Submodel, as the first version."""
  told = {
    "format": _FORMAT,
    "task": submodel.task,
    "adapter": config_tree.to_dict(submodel.adapter),
    "backbone": submodel.backbone_fingerprint,
    "shared": submodel.shared_fingerprint,
    "tokenizer": submodel.tokenizer,
    "summary": dict(submodel.summary),
  }
  fields = json.loads(json.dumps(told))  # as it will be read
  row = flat(submodel.row)
  _check_tensors(row, where=f"Submodel of task {submodel.task!r}")
  return Content(Told(fields, submodel.adapter), row).numbered(1)


def read_told(
  read_part: layout.Read, size: int, *, where: object
) -> tuple[Told, layout.Layout]:
  """A file's header; no tensor is read.

  Raises:
    InputError: it is no Submodel's, or not whole, or of another format.
  """
  laid = layout.read(read_part, size, where=where, what=WHAT)
  text = laid.metadata.get("hra")
  if text is None:
    raise InputError(
      where, expected=WHAT, got="safetensors without our metadata"
    )
  return told_of(text, where=where), laid


def decode(data: bytes, *, where: object) -> Content:
  """A file's bytes -> what it holds, checked to the last of them.

  Raises:
    InputError: as `read_told`, or the fingerprint is that of something else.
  """

  def part(start: int, stop: int) -> bytes:
    return data[start:stop]

  told, laid = read_told(part, len(data), where=where)
  tensors = {name: span.of(data) for name, span in laid.spans.items()}
  _check_tensors(tensors, where=where)
  return Content(told, tensors).check(where=where)


def told_of(text: str, *, where: object) -> Told:
  """Metadata as text -> metadata that were checked.

  Raises:
    InputError: as `check_fields`.
  """
  try:
    return check_fields(json.loads(text), where=where)
  except (ValueError, RecursionError) as error:
    if isinstance(error, InputError):
      raise
    raise InputError(
      where, expected=WHAT, got="metadata that are no JSON", fix=_SPOILT
    ) from error


def check_fields(fields: Any, *, where: object) -> Told:
  """Metadata, if they are a Submodel's.

  Raises:
    InputError: a field is missing, of another type or format.
  """
  found = fields.get("format") if isinstance(fields, dict) else None
  if found != _FORMAT:
    raise InputError(
      where,
      expected=f"format {_FORMAT}",
      got=str(found),
      fix="a run's are written anew by the same hra train, or hra enroll",
    )
  for name, kind in _FIELDS.items():
    if type(fields.get(name)) is not kind:
      raise InputError(
        where, expected=WHAT, got=f"metadata without {name}", fix=_SPOILT
      )
  hashes = (fields["shared"], fields["fingerprint"])
  if (
    fields["version"] < 1 or not fields["task"] or not all(map(is_hash, hashes))
  ):
    raise InputError(
      where, expected=WHAT, got="metadata that can't be ours", fix=_SPOILT
    )
  try:
    adapter = _adapter(_canonical(fields["adapter"]))
  except InputError as error:
    raise InputError(
      f"{where}: {error.where}",
      expected=error.expected,
      got=error.got,
      fix=error.fix,
    ) from error
  return Told(fields, adapter)


def is_hash(text: str) -> bool:
  """Whether it is a fingerprint, and so no path to anywhere."""
  return _HASH.fullmatch(text) is not None


def flat(tree: Tree) -> dict[str, np.ndarray]:
  """Leaves by their paths, on the host; the parts of a path are joined by "/"."""
  leaves: dict[str, np.ndarray] = {}

  def visit(node: Any, path: str) -> None:
    if isinstance(node, Mapping):
      for name, below in node.items():
        visit(below, f"{path}/{name}" if path else name)
    else:
      leaves[path] = np.asarray(node, order="C")

  visit(tree, "")
  return leaves


def _check_tensors(tensors: Mapping[str, np.ndarray], *, where: object) -> None:
  """Whether they are a row's: of known types, none of them inside another."""
  parents = {
    path[:end]
    for path in tensors
    for end in range(len(path))
    if path[end] == "/"
  }
  for path, tensor in tensors.items():
    if tensor.dtype not in DTYPES.values() or path in parents:
      raise InputError(
        f"{where}: {path!r}",
        expected=f"a tensor of {', '.join(DTYPES)}",
        got=f"one of {tensor.dtype}" if path not in parents else "a group",
      )


@functools.lru_cache(maxsize=256)
def _adapter(text: str) -> AdapterConfig:
  return config_tree.from_dict(AdapterConfig, json.loads(text), path="adapter")


def _fingerprint(fields: Mapping[str, Any], tensors_hash: str) -> str:
  told = {
    name: value for name, value in fields.items() if name != "fingerprint"
  }
  text = f"{_canonical(told)}\n{tensors_hash}"
  return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _canonical(value: Any) -> str:
  return json.dumps(value, sort_keys=True)
