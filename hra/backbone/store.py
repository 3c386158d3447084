"""A backbone's folder: config.json, model.safetensors, its tokenizer.

The fingerprint is a hash of the configuration and of every parameter's name and
bytes; rows say by it which backbone they were made for.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from etils import epath

from hra import config_tree
from hra.backbone.encoders import ENCODERS
from hra.backbone.identity import (
  computed_as,
  fingerprint,
  fingerprint_of_file,
  fingerprinted,
)
from hra.backbone.network import Backbone
from hra.backbone.prompted import Asked, prompted
from hra.backbone.tensors import TensorFile, TensorHash, write_tensors
from hra.config import BackboneConfig, FrontendConfig
from hra.data.tokenizer import Tokenizer
from hra.decoders.interface import Layered
from hra.errors import InputError
from hra.files import write_aside, write_json
from hra.nn import int8
from hra.sharding import named_leaves, shardings

BUNDLED = {"tiny": epath.Path(__file__).parent / "bundled" / "tiny"}
"""Backbones that come with the package, by name."""

_FORMAT = 1
_Index = tuple[slice, ...]
_FIELDS = ("backbone", "features", "tokenizer_hash", "fingerprint", "about")


@dataclasses.dataclass(frozen=True)
class StoredBackbone:
  """What a folder holds."""

  module: Backbone
  config: BackboneConfig
  frontend: FrontendConfig
  tokenizer: Tokenizer
  fingerprint: str
  about: Mapping[str, Any]
  """How it was made and what it scored."""

  @property
  def most_samples(self) -> int:
    """Of a recording that it hears whole; 0 is any number."""
    return self.frontend.pad_to if self.config.encoder == "transformer" else 0


def save(
  folder: epath.PathLike,
  module: Backbone,
  *,
  frontend: FrontendConfig,
  tokenizer: Tokenizer,
  about: Mapping[str, Any],
) -> str:
  """Writes a folder and returns the fingerprint; config.json comes last."""
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  tensors = to_tensors(module)
  described = _described(module.config, frontend, tokenizer, about)
  described["fingerprint"] = fingerprint(described, tensors)
  write_aside(folder / "model.safetensors", safetensors.numpy.save(tensors))
  tokenizer.save(folder / tokenizer.name)
  write_json(folder / "config.json", described)
  return described["fingerprint"]


def save_streamed(
  folder: epath.PathLike,
  config: BackboneConfig,
  *,
  parts: Callable[[str], Iterable[np.ndarray]],
  frontend: FrontendConfig,
  tokenizer: Tokenizer,
  about: Mapping[str, Any],
) -> str:
  """`save` of parameters that come part by part, so that memory never holds all.

  Args:
    parts: a parameter's path -> its parts along the first axis, in order.
  """
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  described = _described(config, frontend, tokenizer, about)
  digest = TensorHash(fingerprinted(described))
  shapes = dict(named_leaves(abstract(config, frontend)))
  write_tensors(
    folder / "model.safetensors", shapes, parts=parts, digest=digest
  )
  tokenizer.save(folder / tokenizer.name)
  described["fingerprint"] = digest.hexdigest()
  write_json(folder / "config.json", described)
  return described["fingerprint"]


def _described(
  config: BackboneConfig,
  frontend: FrontendConfig,
  tokenizer: Tokenizer,
  about: Mapping[str, Any],
) -> dict[str, Any]:
  """What config.json says, the fingerprint apart."""
  return {
    "format": _FORMAT,
    "architecture": config.encoder,
    "backbone": config_tree.to_dict(config),
    "features": config_tree.to_dict(frontend),
    "tokenizer_hash": tokenizer.hash,
    "about": dict(about),
  }


def load(
  folder: epath.PathLike,
  *,
  computed: BackboneConfig | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> StoredBackbone:
  """Reads a folder, or a bundled backbone by its name.

  Args:
    computed: how to compute and train: its types, weights in 8 bits, rematerialisation
      and what the decoder's `chunk`, `label_smoothing`, `sigma`, `language`, `task`
      and `timestamps` say take the place of the folder's; None keeps those.
    mesh: where the parameters go, by the table of `hra.sharding`; None is the
      default device.

  Raises:
    InputError: when a file is missing, of another format, or does not hold
      exactly the parameters that its configuration asks for.
  """
  folder = folder_of(folder)
  described = _read_config(folder)
  config, frontend = _outline(folder, described)
  file = TensorFile(folder / "model.safetensors")
  found = fingerprint_of_file(file, described)
  if found != described["fingerprint"]:
    raise InputError(
      folder / "model.safetensors",
      expected=f"the parameters of fingerprint {described['fingerprint']}",
      got=found,
      fix="the folder was changed or mixed: copy it again",
    )
  tokenizer = Tokenizer.load(folder)
  if tokenizer.hash != described["tokenizer_hash"]:
    raise InputError(
      folder / tokenizer.name,
      expected=f"the tokenizer of hash {described['tokenizer_hash']}",
      got=tokenizer.hash,
      fix="the folder was changed or mixed: copy it again",
    )
  if computed is not None:
    config = computed_as(config, computed)
    config = prompted(config, tokenizer, language=computed.decoder.language)
  floats = _floats(config, frontend)
  _check_holds(file.entries, floats, where=str(folder))
  module = _placed(file.parts, floats, config, frontend, mesh=mesh)
  about = described["about"]
  return StoredBackbone(module, config, frontend, tokenizer, found, about)


def asked(stored: StoredBackbone, asked: Asked) -> StoredBackbone:
  """A backbone whose decoder is asked for something else.

  Raises:
    InputError: as `prompted`.
  """
  decoder = dataclasses.replace(
    stored.config.decoder, task=asked.task, timestamps=asked.timestamps
  )
  config = prompted(
    dataclasses.replace(stored.config, decoder=decoder),
    stored.tokenizer,
    language=asked.language,
  )
  shapes = abstract(config, stored.frontend)
  module = jax.tree.unflatten(
    jax.tree.structure(shapes), jax.tree.leaves(stored.module)
  )
  return dataclasses.replace(stored, module=module, config=config)


def outline(
  folder: epath.PathLike, *, computed: BackboneConfig | None = None
) -> tuple[BackboneConfig, FrontendConfig]:
  """What a folder says of its backbone; no parameter is read.

  Args:
    computed: as `load`, but for prompts, which a tokenizer has to say.

  Raises:
    InputError: it is no backbone's folder.
  """
  folder = folder_of(folder)
  config, frontend = _outline(folder, _read_config(folder))
  return computed_as(config, computed) if computed else config, frontend


def _outline(
  folder: epath.Path, described: Mapping[str, Any]
) -> tuple[BackboneConfig, FrontendConfig]:
  where = f"{folder}/config.json"
  return (
    config_tree.from_dict(
      BackboneConfig, described["backbone"], path=f"{where}:backbone"
    ),
    config_tree.from_dict(
      FrontendConfig, described["features"], path=f"{where}:features"
    ),
  )


def folder_of(name: epath.PathLike) -> epath.Path:
  """A bundled backbone's folder by its name, or the folder itself."""
  return BUNDLED.get(str(name), epath.Path(name))


def to_tensors(module: Backbone) -> dict[str, np.ndarray]:
  """Every parameter by its path, on the host."""
  return {path: np.asarray(leaf) for path, leaf in named_leaves(module)}


def from_tensors(
  tensors: Mapping[str, np.ndarray],
  config: BackboneConfig,
  frontend: FrontendConfig,
  *,
  where: str,
  mesh: jax.sharding.Mesh | None = None,
) -> Backbone:
  """The module of `config` with these parameters; each is used exactly once."""

  def parts(path: str, indices: Sequence[_Index]) -> list[np.ndarray]:
    return [tensors[path][index] for index in indices]

  floats = _floats(config, frontend)
  _check_holds(tensors, floats, where=where)
  return _placed(parts, floats, config, frontend, mesh=mesh)


def _check_holds(
  tensors: Mapping[str, Any], floats: Backbone, *, where: str
) -> None:
  """Whether there is exactly what the configuration asks for."""
  wanted = dict(named_leaves(floats))
  for path in sorted(wanted.keys() | tensors.keys()):
    ours = wanted[path].shape if path in wanted else "nothing"
    theirs = tensors[path].shape if path in tensors else "nothing"
    if ours != theirs:
      raise InputError(f"{where}: {path}", expected=str(ours), got=str(theirs))


def _floats(config: BackboneConfig, frontend: FrontendConfig) -> Backbone:
  """What a folder holds, as shapes."""
  return jax.eval_shape(lambda: _built(config, frontend))


def _placed(
  parts: Callable[[str, Sequence[_Index]], list[np.ndarray]],
  floats: Backbone,
  config: BackboneConfig,
  frontend: FrontendConfig,
  *,
  mesh: jax.sharding.Mesh | None,
) -> Backbone:
  """The module, leaf by leaf where it belongs: a host holds no more than its own
  devices' parts of one, and devices the floats of one beside what is kept."""
  quantised = config.weights == "int8"
  shapes = abstract(config, frontend) if quantised else floats
  kept = dict(named_leaves(shapes))
  placed: dict[str, Any] = dict.fromkeys(kept)
  if mesh is not None:
    placed = dict(
      named_leaves(shardings({"backbone": shapes}, mesh)["backbone"])
    )
  made: dict[str, jax.Array] = {}
  for path, like in named_leaves(floats):
    leaf = _leaf(functools.partial(parts, path), like, placed[path])
    if kept[path].dtype == like.dtype:
      made[path] = leaf
      continue
    scale = f"{path.removesuffix('kernel')}scale"
    quantise = jax.jit(
      int8.quantised,
      out_shardings=int8.Quantised(placed[path], placed[scale])
      if mesh
      else None,
    )
    made[path], made[scale] = quantise(leaf)
  return jax.tree.unflatten(
    jax.tree.structure(shapes), [made[path] for path in kept]
  )


def _leaf(
  parts: Callable[[Sequence[_Index]], list[np.ndarray]],
  like: jax.ShapeDtypeStruct,
  placed: jax.sharding.Sharding | None,
) -> jax.Array:
  """A parameter, of which a host reads its own devices' parts."""
  if placed is None:
    (whole,) = parts([(slice(None),) * len(like.shape)])
    return jax.device_put(whole.astype(like.dtype))
  own = placed.addressable_devices_indices_map(like.shape).values()
  indices = {str(index): index for index in own if index is not None}
  read = parts(list(indices.values()))
  by_index = {
    key: part.astype(like.dtype, copy=False)
    for key, part in zip(indices, read, strict=True)
  }
  return jax.make_array_from_callback(
    like.shape, placed, lambda index: by_index[str(index)]
  )


def abstract(config: BackboneConfig, frontend: FrontendConfig) -> Backbone:
  """The module of `config` as shapes, without a number computed."""
  return jax.eval_shape(lambda: _as_kept(_built(config, frontend)))


def _built(config: BackboneConfig, frontend: FrontendConfig) -> Backbone:
  mels = frontend.width
  return Backbone(config, mels=mels, key=jax.random.key(0))


def _as_kept(module: Backbone) -> Backbone:
  """A module of floats, its layers' projections as `weights` says."""
  if module.config.weights == "int8":
    int8.quantise(module.layers)
    if isinstance(module.head, Layered):
      int8.quantise(module.head.layers)
  return module


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
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise InputError(path, expected="JSON", got=str(error)) from error
  if not isinstance(described, dict):
    raise InputError(path, expected="a mapping", got=type(described).__name__)
  known = {"format": (_FORMAT,), "architecture": tuple(ENCODERS)}
  for field, ours in known.items():
    if described.get(field) not in ours:
      raise InputError(
        path,
        expected=f"{field} {' or '.join(map(str, ours))}",
        got=str(described.get(field)),
      )
  for field in _FIELDS:
    if field not in described:
      raise InputError(path, expected=f"the field {field}", got="none")
  return described
