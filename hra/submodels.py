"""Submodel files: what one task owns, as NAME.safetensors with JSON metadata.

The shared parameters that rows were trained with stand once beside them as
`shared-HASH.safetensors`. A row loads only on the backbone and the shared
parameters that it was made for.
"""

import dataclasses
import json
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from hra import config_tree
from hra.adapters.interface import Tree
from hra.backbone.tensors import hash_tensors, read_tensors
from hra.config import AdapterConfig
from hra.errors import InputError
from hra.files import write_aside
from hra.keys import stable_hash
from hra.sharding import named_leaves, nested

Verdict = Literal["better", "not better", "unjudged"]
"""Of a Submodel beside the bare backbone, on the task's dev split."""

_FORMAT = 1
_LONGEST_STEM = 180
"""Bytes of a file's name that every file system takes."""
_LONGEST_HEADER = 100_000_000
"""Bytes, by safetensors' own rule."""


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
  version: int = 0
  """In its store, from 1; 0 as long as it is in none."""
  fingerprint: str = ""
  """Of all that its file holds; likewise empty."""

  @property
  def worse_than_backbone(self) -> bool:
    """Whether it was judged on dev and is no better than the bare backbone."""
    return self.summary.get("verdict") == "not better"


class Store(Mapping[str, Submodel]):
  """A folder of Submodels; `store["alice"]` reads one file."""

  def __init__(self, folder: epath.PathLike):
    self._folder = epath.Path(folder)
    if not self._folder.is_dir():
      raise InputError(
        self._folder, expected="a folder of Submodels", got="no such folder"
      )
    self._shared: dict[str, Tree] = {}

  def __getitem__(self, task: str) -> Submodel:
    path = self._folder / file_name(task)
    if not path.is_file():
      raise KeyError(
        f"{path}: no Submodel of task {task!r}; there are {len(self)}: "
        f"{', '.join(sorted(self)[:8])}"
      )
    found = load(path, shared_cache=self._shared)
    if found.task != task:
      raise InputError(
        path,
        expected=f"the Submodel of task {task!r}",
        got=f"that of {found.task!r}",
        fix="a file keeps the name that it was written under, in its own case",
      )
    return found

  def __contains__(self, task: object) -> bool:
    return isinstance(task, str) and (self._folder / file_name(task)).is_file()

  def __iter__(self) -> Iterator[str]:
    for path in sorted(self._folder.glob("*.safetensors")):
      if not path.name.startswith("shared-"):
        yield _read_metadata(path)["task"]

  def __len__(self) -> int:
    return sum(1 for _ in self)


def file_name(task: str) -> str:
  """A task's file: its name, escaped; a long one ends in its hash."""
  stem = urllib.parse.quote(task, safe=" ()+,@=")
  if stem.startswith(("shared-", ".")):
    stem = f"%{ord(stem[0]):02X}{stem[1:]}"
  if len(stem) > _LONGEST_STEM:
    stem = f"{stem[: _LONGEST_STEM - 17]}-{stable_hash(task):016x}"
  return f"{stem}.safetensors"


def shared_fingerprint(shared: Tree) -> str:
  """What tells shared parameters from others: the hash in their file's name."""
  return hash_tensors(_flat(shared))


def save_shared(folder: epath.Path, shared: Tree) -> str:
  """Writes shared-HASH.safetensors and returns the hash; `{}` writes nothing."""
  tensors = _flat(shared)
  fingerprint = shared_fingerprint(shared)
  path = folder / f"shared-{fingerprint}.safetensors"
  if tensors and not path.exists():
    folder.mkdir(parents=True, exist_ok=True)
    write_aside(path, safetensors.numpy.save(tensors))
  return fingerprint


def save(folder: epath.Path, submodel: Submodel) -> epath.Path:
  """Writes one task's file beside its shared parameters."""
  metadata = {
    "format": _FORMAT,
    "task": submodel.task,
    "adapter": config_tree.to_dict(submodel.adapter),
    "backbone": submodel.backbone_fingerprint,
    "shared": submodel.shared_fingerprint,
    "summary": dict(submodel.summary),
  }
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / file_name(submodel.task)
  data = safetensors.numpy.save(
    _flat(submodel.row), metadata={"hra": json.dumps(metadata, sort_keys=True)}
  )
  write_aside(path, data)
  return path


def load(
  path: epath.Path, *, shared_cache: dict[str, Tree] | None = None
) -> Submodel:
  """Reads a Submodel and the shared parameters beside it.

  Raises:
    InputError: when a file is missing, not a Submodel, or when the shared
      parameters are not those that the row was made for.
  """
  metadata = _read_metadata(path)
  fingerprint = metadata["shared"]
  cache = {} if shared_cache is None else shared_cache
  if fingerprint not in cache:
    cache[fingerprint] = _load_shared(path.parent, fingerprint)
  return Submodel(
    task=metadata["task"],
    adapter=config_tree.from_dict(
      AdapterConfig, metadata["adapter"], path=f"{path}: adapter"
    ),
    row=nested(read_tensors(path)),
    shared=cache[fingerprint],
    backbone_fingerprint=metadata["backbone"],
    shared_fingerprint=fingerprint,
    summary=metadata["summary"],
  )


def _load_shared(folder: epath.Path, fingerprint: str) -> Tree:
  if fingerprint == hash_tensors({}):
    return {}
  path = folder / f"shared-{fingerprint}.safetensors"
  if not path.is_file():
    raise InputError(
      path,
      expected="the shared parameters beside the Submodels",
      got="no such file",
      fix="copy the folder whole",
    )
  tensors = read_tensors(path)
  if hash_tensors(tensors) != fingerprint:
    raise InputError(
      path, expected=f"content of hash {fingerprint}", got=hash_tensors(tensors)
    )
  return nested(tensors)


def _read_metadata(path: epath.Path) -> dict[str, Any]:
  """What a Submodel's file says of it; no tensor is read.

  A safetensors file begins with the length of its header, 8 bytes, and the header,
  which is JSON.
  """
  try:
    with path.open("rb") as file:
      size = int.from_bytes(file.read(8), "little")
      header = json.loads(file.read(min(size, _LONGEST_HEADER)))
    text = header.pop("__metadata__", {}).get("hra")
    ends = [each["data_offsets"][1] for each in header.values()]
    whole = 8 + size + max(ends, default=0)
    there = epath.Path(path).stat().length
  except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
    raise InputError(
      path, expected="a Submodel file", got=str(error)
    ) from error
  if there != whole:
    raise InputError(
      path, expected=f"a Submodel file of {whole:,} bytes", got=f"{there:,}"
    )
  if text is None:
    raise InputError(
      path, expected="a Submodel file", got="safetensors without our metadata"
    )
  metadata = json.loads(text)
  if metadata["format"] != _FORMAT:
    raise InputError(
      path, expected=f"format {_FORMAT}", got=str(metadata["format"])
    )
  return metadata


def _flat(tree: Tree) -> dict[str, np.ndarray]:
  return {
    name: np.ascontiguousarray(jax.device_get(leaf))
    for name, leaf in named_leaves(tree)
  }
