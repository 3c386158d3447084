"""A backbone's folder: config.json, model.safetensors, tokenizer.model.

The fingerprint is a hash of the configuration and of every parameter's name and
bytes; rows say by it which backbone they were made for.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from hra import config as config_lib
from hra.backbone.conformer import Conformer
from hra.config import BackboneConfig, FrontendConfig
from hra.data.tokenizer import Tokenizer
from hra.errors import InputError
from hra.files import write_aside
from hra.sharding import named_leaves, shardings

BUNDLED = {"tiny": epath.Path(__file__).parent / "bundled" / "tiny"}
"""Backbones that come with the package, by name."""

_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class StoredBackbone:
  """What a folder holds."""

  module: Conformer
  config: BackboneConfig
  frontend: FrontendConfig
  tokenizer: Tokenizer
  fingerprint: str
  about: Mapping[str, Any]
  """How it was made and what it scored."""


def save(
  folder: epath.PathLike,
  module: Conformer,
  *,
  frontend: FrontendConfig,
  tokenizer: Tokenizer,
  about: Mapping[str, Any],
) -> str:
  """Writes a folder and returns the fingerprint; config.json comes last."""
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  tensors = to_tensors(module)
  fingerprint = _fingerprint(module.config, frontend, tensors)
  described = {
    "format": _FORMAT,
    "architecture": "conformer",
    "backbone": config_lib.to_dict(module.config),
    "features": config_lib.to_dict(frontend),
    "tokenizer_hash": tokenizer.hash,
    "fingerprint": fingerprint,
    "about": dict(about),
  }
  write_aside(folder / "model.safetensors", safetensors.numpy.save(tensors))
  write_aside(folder / "tokenizer.model", tokenizer.model)
  text = json.dumps(described, indent=2, sort_keys=True) + "\n"
  write_aside(folder / "config.json", text.encode())
  return fingerprint


def load(
  folder: epath.PathLike,
  *,
  computed: BackboneConfig | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> StoredBackbone:
  """Reads a folder, or a bundled backbone by its name.

  Args:
    computed: how to compute: its types and rematerialisation take the place of
      the folder's; None keeps what the folder says.
    mesh: where the parameters go, by the table of `hra.sharding`; None is the
      default device.

  Raises:
    InputError: when a file is missing, of another format, or does not hold
      exactly the parameters that its configuration asks for.
  """
  folder = folder_of(folder)
  described = _read_config(folder)
  config = config_lib.from_dict(
    BackboneConfig, described["backbone"], path=f"{folder}/config.json:backbone"
  )
  frontend = config_lib.from_dict(
    FrontendConfig, described["features"], path=f"{folder}/config.json:features"
  )
  tensors = _read_tensors(folder / "model.safetensors")
  fingerprint = _fingerprint(config, frontend, tensors)
  if fingerprint != described["fingerprint"]:
    raise InputError(
      folder / "model.safetensors",
      expected=f"the parameters of fingerprint {described['fingerprint']}",
      got=fingerprint,
      fix="the folder was changed or mixed: copy it again",
    )
  if computed is not None:
    config = dataclasses.replace(
      config,
      dtype=computed.dtype,
      param_dtype=computed.param_dtype,
      remat=computed.remat,
    )
  module = from_tensors(tensors, config, frontend, where=str(folder), mesh=mesh)
  tokenizer = Tokenizer.load(folder / "tokenizer.model")
  about = described["about"]
  return StoredBackbone(module, config, frontend, tokenizer, fingerprint, about)


def folder_of(name: epath.PathLike) -> epath.Path:
  """A bundled backbone's folder by its name, or the folder itself."""
  return BUNDLED.get(str(name), epath.Path(name))


def to_tensors(module: Conformer) -> dict[str, np.ndarray]:
  """Every parameter by its path, on the host."""
  return {path: np.asarray(leaf) for path, leaf in named_leaves(module)}


def from_tensors(
  tensors: Mapping[str, np.ndarray],
  config: BackboneConfig,
  frontend: FrontendConfig,
  *,
  where: str,
  mesh: jax.sharding.Mesh | None = None,
) -> Conformer:
  """The module of `config` with these parameters; each is used exactly once."""
  shapes = abstract(config, frontend)
  wanted = dict(named_leaves(shapes))
  for path in sorted(wanted.keys() | tensors.keys()):
    ours = wanted[path].shape if path in wanted else "nothing"
    theirs = tensors[path].shape if path in tensors else "nothing"
    if ours != theirs:
      raise InputError(f"{where}: {path}", expected=str(ours), got=str(theirs))
  leaves = [tensors[path].astype(leaf.dtype) for path, leaf in wanted.items()]
  module = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
  if mesh is None:
    return jax.device_put(module)
  return jax.device_put(
    module, shardings({"backbone": module}, mesh)["backbone"]
  )


def abstract(config: BackboneConfig, frontend: FrontendConfig) -> Conformer:
  """The module of `config` as shapes, without a number computed."""
  mels = frontend.num_mels * frontend.stack
  return jax.eval_shape(
    lambda key: Conformer(config, mels=mels, key=key), jax.random.key(0)
  )


def _read_config(folder: epath.Path) -> dict[str, Any]:
  path = folder / "config.json"
  if not path.is_file():
    raise InputError(
      path,
      expected="a backbone's folder",
      got="no such file",
      fix=f"name a folder that pretraining made, or one of {sorted(BUNDLED)}",
    )
  try:
    described = json.loads(path.read_text())
  except json.JSONDecodeError as error:
    raise InputError(path, expected="JSON", got=str(error)) from error
  if described.get("format") != _FORMAT:
    raise InputError(
      path, expected=f"format {_FORMAT}", got=str(described.get("format"))
    )
  return described


def _read_tensors(path: epath.Path) -> dict[str, np.ndarray]:
  if not path.is_file():
    raise InputError(path, expected="the parameters", got="no such file")
  try:
    return safetensors.numpy.load(path.read_bytes())
  except safetensors.SafetensorError as error:
    raise InputError(
      path, expected="a safetensors file", got=str(error)
    ) from error


def _fingerprint(
  config: BackboneConfig,
  frontend: FrontendConfig,
  tensors: Mapping[str, np.ndarray],
) -> str:
  # Not how it is computed, only what: types and remat do not enter.
  shape = dataclasses.replace(
    config, dtype="float32", param_dtype="float32", remat="none"
  )
  text = config_lib.to_json(shape) + config_lib.to_json(frontend)
  return hash_tensors(tensors, text=text)


def hash_tensors(tensors: Mapping[str, np.ndarray], *, text: str = "") -> str:
  """A 128-bit hash of names, types, shapes and bytes, and of `text`."""
  digest = hashlib.blake2b(text.encode(), digest_size=16)
  for path in sorted(tensors):
    tensor = np.ascontiguousarray(tensors[path])
    digest.update(f"{path} {tensor.dtype} {tensor.shape}".encode())
    digest.update(tensor.tobytes())
  return digest.hexdigest()
