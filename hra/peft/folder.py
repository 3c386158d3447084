"""A LoRA folder of PEFT <-> a Submodel of a converted backbone.

    lora_A.weight [r, inputs]     a [L, inputs, r]      sites by the projections' names
    lora_B.weight [outputs, r]    b [L, r, outputs]     (`hra.backbone.foreign.modules`)

of the one stack whose layers it updates, or of both (`hra.adapters.stacks`). A row
keeps its numbers in the type that they had, and `summary` the original's
adapter_config.json, so that what is written back is what was read.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import safetensors.numpy
from etils import epath

from hra import submodels
from hra.adapters import families
from hra.adapters.interface import Tree
from hra.adapters.lora import Lora
from hra.adapters.stacks import Stacks
from hra.backbone.foreign.modules import Module, architecture, modules
from hra.backbone.store import StoredBackbone
from hra.backbone.tensors import read_tensors
from hra.config import AdapterConfig
from hra.errors import InputError
from hra.files import absolute, storage, write_aside, write_json
from hra.peft import settings
from hra.peft.settings import Settings
from hra.submodels import Submodel, fit

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_PICKLE = "adapter_model.bin"
_PREFIX = "base_model.model."
_PARTS = {"a": "lora_A", "b": "lora_B"}
_SUMMARY = "peft"
"""Under which a Submodel's summary keeps what adapter_config.json said."""


Given: TypeAlias = Submodel | epath.PathLike | None
"""A Submodel, or where one is; None is the bare backbone."""


def is_folder(path: epath.PathLike) -> bool:
  """Whether a path is a folder that PEFT saved."""
  return (epath.Path(path) / CONFIG_FILE).is_file()


def open_submodel(
  path: epath.PathLike, backbone: StoredBackbone, *, task: str = ""
) -> Submodel:
  """A Submodel's file, or a LoRA folder of PEFT, by its path.

  Args:
    task: whose it is called where a folder is read, which names nobody; empty is
      the folder's own name.

  Raises:
    InputError: as `read` and `hra.submodels.load`.
  """
  path = epath.Path(path)
  if path.is_dir():
    return read(path, backbone, task=task)
  return submodels.load(path)


def open_all(
  given: Sequence[Given], backbone: StoredBackbone
) -> list[Submodel | None]:
  """Submodels of which some are given by their paths; each of these is read once.

  Raises:
    InputError: as `open_submodel`.
  """
  opened: dict[str, Submodel] = {}
  found: list[Submodel | None] = []
  for each in given:
    if each is None or isinstance(each, Submodel):
      found.append(each)
      continue
    path = os.fspath(each)
    if path not in opened:
      opened[path] = open_submodel(path, backbone)
    found.append(opened[path])
  return found


def read(
  folder: epath.PathLike, backbone: StoredBackbone, *, task: str = ""
) -> Submodel:
  """The Submodel that a LoRA folder is on a backbone.

  Args:
    task: its name; empty is the folder's.

  Raises:
    InputError: a file is missing or no safetensors; a field of the configuration
      that has no form here; a tensor that is missing, too many or of another
      shape; a backbone that was not converted.
  """
  folder = epath.Path(folder)
  known = modules(backbone)
  told = _read_config(folder)
  found = settings.parse(
    told,
    known,
    architecture=architecture(backbone),
    where=str(folder / CONFIG_FILE),
  )
  tensors = _read_weights(folder)
  _check(tensors, found, known, where=str(folder / WEIGHTS_FILE))
  adapter = AdapterConfig(
    family="lora",
    width=found.rank,
    alpha=found.alpha,
    stacks=_stacks(found, known),
    sites=_sites(found, known),
  )
  row = _row(tensors, found, known, where=str(folder / WEIGHTS_FILE))
  return Submodel(
    task=task or absolute(folder).name,
    adapter=adapter,
    row=row,
    shared={},
    backbone_fingerprint=backbone.fingerprint,
    shared_fingerprint=submodels.shared_fingerprint({}),
    summary={_SUMMARY: dict(told)},
    tokenizer=backbone.tokenizer.hash,
  )


def write(
  folder: epath.PathLike, submodel: Submodel, backbone: StoredBackbone
) -> epath.Path:
  """Writes a Submodel as a LoRA folder that PEFT loads; its configuration last.

  Raises:
    InputError: no LoRA; one of another backbone; a backbone that was not
      converted; a folder that holds an adapter.
    StorageError: it can't be written to.
  """
  folder = epath.Path(folder)
  known = modules(backbone)
  found = _settings(submodel, backbone, known)
  if (folder / CONFIG_FILE).exists():
    raise InputError(
      folder, expected="a new folder", got=f"one with {CONFIG_FILE}"
    )
  with storage(folder, expected="a folder that can be made"):
    folder.mkdir(parents=True, exist_ok=True)
  tensors = dict(_tensors(submodel.row, found, known))
  data = safetensors.numpy.save(tensors, metadata={"format": "pt"})
  write_aside(folder / WEIGHTS_FILE, data)
  told = _kept(submodel, backbone, known, found) or settings.described(
    found, known, architecture=architecture(backbone)
  )
  write_json(folder / CONFIG_FILE, told)
  return folder


def _read_config(folder: epath.Path) -> Mapping[str, Any]:
  path = folder / CONFIG_FILE
  if not path.is_file():
    raise InputError(
      path,
      expected="a LoRA folder of PEFT",
      got="no such file",
      fix="name the folder that save_pretrained wrote",
    )
  try:
    with storage(path, expected="a file that can be read"):
      told = json.loads(path.read_bytes())
  except ValueError as error:
    raise InputError(path, expected="JSON", got=str(error)) from error
  if not isinstance(told, dict):
    raise InputError(path, expected="a JSON object", got=type(told).__name__)
  return told


def _read_weights(folder: epath.Path) -> dict[str, np.ndarray]:
  path = folder / WEIGHTS_FILE
  if not path.is_file() and (folder / _PICKLE).is_file():
    raise InputError(
      path,
      expected="a safetensors file",
      got=f"only {_PICKLE}, a pickle, which may run any code",
      fix="load it with PEFT, where you trust it, and save it by save_pretrained",
    )
  return read_tensors(path)


def _check(
  tensors: Mapping[str, np.ndarray],
  found: Settings,
  known: Mapping[str, Module],
  *,
  where: str,
) -> None:
  """Whether there are the tensors of these modules and no others."""
  wanted = {
    tensor: shape
    for name in found.modules
    for tensor, shape in _shapes(name, known[name], found.rank)
  }
  for tensor in sorted(wanted.keys() | tensors.keys()):
    if tensor not in wanted:
      raise InputError(
        f"{where}: {tensor}",
        expected="no such tensor",
        got=f"one of shape {tensors[tensor].shape}",
        fix=f"{CONFIG_FILE} doesn't name its module, or adapters don't reach it",
      )
    got = tensors[tensor].shape if tensor in tensors else "no such tensor"
    if got != wanted[tensor]:
      raise InputError(
        f"{where}: {tensor}",
        expected=f"shape {wanted[tensor]}",
        got=str(got),
        fix="" if tensor in tensors else "PEFT saves all that it trains",
      )


def _shapes(
  name: str, module: Module, rank: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
  """Names of a module's two tensors, and the shapes that they have to have."""
  inputs, outputs = module.shape
  for part, ours in (("a", (inputs, rank)), ("b", (rank, outputs))):
    yield _tensor(name, part), module.rule.shapes(ours)[0]


def _tensor(module: str, part: str) -> str:
  return f"{_PREFIX}{module}.{_PARTS[part]}.weight"


def _stacks(
  found: Settings, known: Mapping[str, Module]
) -> Literal["encoder", "decoder", "both"]:
  """Those whose layers are updated."""
  stacks = {known[name].stack for name in found.modules}
  if len(stacks) > 1:
    return "both"
  return "encoder" if "encoder" in stacks else "decoder"


def _sites(found: Settings, known: Mapping[str, Module]) -> tuple[str, ...]:
  """Each once, in the order of the modules; by its stack where only one of two is
  updated that have it."""
  updated = {
    (known[name].stack, known[name].site): None for name in found.modules
  }
  both = _stacks(found, known) == "both"

  def path(stack: str, site: str) -> str:
    having = {each.stack for each in known.values() if each.site == site}
    whole = all((each, site) in updated for each in having)
    return f"{stack}.{site}" if both and not whole else site

  return tuple(dict.fromkeys(path(*place) for place in updated))


def _row(
  tensors: Mapping[str, np.ndarray],
  found: Settings,
  known: Mapping[str, Module],
  *,
  where: str,
) -> Tree:
  """Their tensors as a row of ours, each site's stacked over layers."""
  stacks: dict[str, dict[str, dict[str, list[np.ndarray]]]] = {}
  for name in found.modules:
    module = known[name]
    sites = stacks.setdefault(module.stack, {})
    site = sites.setdefault(module.site, {part: [] for part in _PARTS})
    for part in _PARTS:
      tensor = tensors[_tensor(name, part)]
      if site[part] and site[part][0].dtype != tensor.dtype:
        raise InputError(
          f"{where}: {_tensor(name, part)}",
          expected=f"{site[part][0].dtype}, as in other layers",
          got=str(tensor.dtype),
        )
      site[part].append(module.rule.make(tensor)[0])
  row = {
    stack: {
      "layers": {
        site: {part: np.stack(layers) for part, layers in own.items()}
        for site, own in sites.items()
      }
    }
    for stack, sites in stacks.items()
  }
  return row["encoder"] if list(row) == ["encoder"] else row


def _settings(
  submodel: Submodel, backbone: StoredBackbone, known: Mapping[str, Module]
) -> Settings:
  """What a Submodel is, in PEFT's words.

  Raises:
    InputError: no LoRA; of another backbone; its row is not its adapter's.
  """
  where = f"Submodel of task {submodel.task!r}"
  fit.check(submodel, backbone)
  adapter = families.build(
    submodel.adapter,
    backbone.config,
    mels=backbone.frontend.width,
  )
  parts = (
    adapter.parts if isinstance(adapter, Stacks) else (("encoder", adapter),)
  )
  loras = {stack: part for stack, part in parts if isinstance(part, Lora)}
  if not loras:
    raise InputError(
      where,
      expected="one of family 'lora'",
      got=repr(submodel.adapter.family),
      fix="PEFT has no form of it",
    )
  first, *_ = loras.values()
  places = {
    (stack, site) for stack, part in loras.items() for site, *_ in part.sites
  }
  return Settings(
    rank=first.rank,
    alpha=first.alpha,
    modules=tuple(
      name for name, each in known.items() if (each.stack, each.site) in places
    ),
  )


def _tensors(
  row: Tree, found: Settings, known: Mapping[str, Module]
) -> Iterator[tuple[str, np.ndarray]]:
  """A row as their tensors, by name."""
  stacks = {"encoder": row} if "layers" in row else row
  for name in found.modules:
    module = known[name]
    sites = stacks[module.stack]["layers"]
    for part, leaf in sites[module.site].items():
      ours = np.asarray(leaf[module.layer])
      (shape,) = module.rule.shapes(ours.shape)
      yield _tensor(name, part), np.ascontiguousarray(ours.T).reshape(shape)


def _kept(
  submodel: Submodel,
  backbone: StoredBackbone,
  known: Mapping[str, Module],
  found: Settings,
) -> Mapping[str, Any] | None:
  """The adapter_config.json that it was read with, where it is still that."""
  told = submodel.summary.get(_SUMMARY)
  if told is None:
    return None
  before = settings.parse(
    told,
    known,
    architecture=architecture(backbone),
    where=f"Submodel of task {submodel.task!r}",
  )
  return told if before == found else None
