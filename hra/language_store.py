"""A language model's folder: config.json, model.safetensors, its tokenizer.

Its labels are a tokenizer's: with a backbone of another one it can't be fused.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from etils import epath

from hra import config_tree
from hra.backbone.tensors import hash_tensors, read_tensors
from hra.config import LanguageModelConfig
from hra.data.tokenizer import Tokenizer
from hra.decoders import language_model
from hra.decoders.language_model import LanguageModule
from hra.errors import InputError
from hra.files import read_json, write_aside, write_json
from hra.sharding import named_leaves

_FORMAT = 1
_FIELDS = ("format", "language_model", "tokenizer_hash", "fingerprint", "about")


@dataclasses.dataclass(frozen=True)
class StoredLanguageModel:
  """What a folder holds."""

  module: LanguageModule
  config: LanguageModelConfig
  tokenizer: Tokenizer
  fingerprint: str
  about: Mapping[str, Any]
  """How it was made, and its figures."""


def save(
  folder: epath.PathLike,
  module: LanguageModule,
  config: LanguageModelConfig,
  *,
  tokenizer: Tokenizer,
  about: Mapping[str, Any],
) -> str:
  """Writes a folder and returns the fingerprint; config.json comes last.

  Raises:
    StorageError: it can't be written.
  """
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  tensors = {path: np.asarray(leaf) for path, leaf in named_leaves(module)}
  fingerprint = hash_tensors(tensors)
  write_aside(folder / "model.safetensors", safetensors.numpy.save(tensors))
  tokenizer.save(folder / tokenizer.name)
  described = {
    "format": _FORMAT,
    "language_model": config_tree.to_dict(config),
    "tokenizer_hash": tokenizer.hash,
    "fingerprint": fingerprint,
    "about": dict(about),
  }
  write_json(folder / "config.json", described)
  return fingerprint


def load(
  folder: epath.PathLike, *, tokenizer: Tokenizer | None = None
) -> StoredLanguageModel:
  """Reads a folder.

  Args:
    tokenizer: of the backbone that it is to be fused with.

  Raises:
    InputError: a file is missing, of another format or another tokenizer, or does
      not hold exactly the parameters that its configuration asks for.
  """
  folder = epath.Path(folder)
  path = folder / "config.json"
  if not path.is_file():
    raise InputError(
      path,
      expected="a language model's folder",
      got="no such file",
      fix="name a folder that training with train.mode 'language_model' made",
    )
  described = read_json(path, keys=_FIELDS)
  _check(path, described["format"], _FORMAT, expected="format {}")
  config = config_tree.from_dict(
    LanguageModelConfig,
    described["language_model"],
    path=f"{path}:language_model",
  )
  own = Tokenizer.load(folder)
  changed = "the folder was changed or mixed: copy it again"
  told = described["tokenizer_hash"]
  file = folder / own.name
  _check(file, own.hash, told, expected="the tokenizer of hash {}", fix=changed)
  if tokenizer is not None:
    _check(
      file,
      own.hash,
      tokenizer.hash,
      expected="the backbone's tokenizer, of hash {}",
      fix="train a language model for this backbone (config.backbone_path)",
    )
  file = folder / "model.safetensors"
  tensors = read_tensors(file)
  _check(
    file,
    hash_tensors(tensors),
    described["fingerprint"],
    expected="the parameters of fingerprint {}",
    fix=changed,
  )
  return StoredLanguageModel(
    _module(tensors, config, where=str(folder)),
    config,
    own,
    described["fingerprint"],
    described["about"],
  )


def _check(
  where: object, got: object, wanted: object, *, expected: str, fix: str = ""
) -> None:
  if got != wanted:
    raise InputError(
      where, expected=expected.format(wanted), got=str(got), fix=fix
    )


def _module(
  tensors: Mapping[str, np.ndarray], config: LanguageModelConfig, *, where: str
) -> LanguageModule:
  """The module of `config` with these parameters; each is used exactly once."""
  shapes = jax.eval_shape(
    lambda key: language_model.build(config, key=key), jax.random.key(0)
  )
  wanted = dict(named_leaves(shapes))
  for path in sorted(wanted.keys() | tensors.keys()):
    ours = wanted[path].shape if path in wanted else "nothing"
    theirs = tensors[path].shape if path in tensors else "nothing"
    _check(f"{where}: {path}", theirs, ours, expected="{}")
  leaves = [tensors[path].astype(leaf.dtype) for path, leaf in wanted.items()]
  return jax.device_put(jax.tree.unflatten(jax.tree.structure(shapes), leaves))
