"""What an adapter_config.json says, and one that says what a Submodel is.

Fields that say nothing of what a trained LoRA does are passed over; all that have no
form here have to be absent or off, whatever fields later versions of PEFT add.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from hra.backbone.foreign.checkpoint import FAMILIES
from hra.backbone.foreign.modules import Module
from hra.errors import InputError

Told = Mapping[str, Any]

_READ = frozenset(
  {
    "peft_type",
    "auto_mapping",
    "r",
    "lora_alpha",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "init_lora_weights",
    "bias",
  }
)
_SILENT = frozenset(
  {
    "base_model_name_or_path",
    "revision",
    "task_type",
    "inference_mode",
    "peft_version",
    "lora_dropout",
    "megatron_core",
    "qalora_group_size",
    "layers_pattern",
    "eva_config",
    "corda_config",
    "loftq_config",
    "lora_ga_config",
    "runtime_config",
  }
)
"""Of training, of how it began, of where it came from, or of what is off."""
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica")
"""Initialisations that leave the weights of the base model alone."""
_ALL_LINEAR = "all-linear"
_ALL_LAYERS = "a row here has every layer"


class Settings(NamedTuple):
  """A LoRA of one rank on the same projections of every layer."""

  rank: int
  alpha: float
  """Updates are multiplied by alpha / rank."""
  modules: tuple[str, ...]
  """Names of all that are updated."""


def parse(
  told: Told,
  modules: Mapping[str, Module],
  *,
  architecture: str,
  where: str,
) -> Settings:
  """What an adapter_config.json says.

  Args:
    modules: of the backbone.
    where: its path, for messages.

  Raises:
    InputError: a field that has no form here, by its name; modules that adapters
      don't reach, or don't reach in this layer alone.
  """
  _check_fields(told, where=where)
  _check_architecture(told, architecture, where=where)
  chosen = _chosen(told, modules, where=where)
  if not chosen:
    raise InputError(
      f"{where}: target_modules",
      expected=f"some of {_offered(modules)}",
      got=repr(told.get("target_modules")),
    )
  _check_layers(told, chosen, modules, where=where)
  _check_reached(chosen, modules, where=where)
  rank = int(_one(told, "r", "rank_pattern", chosen, where=where))
  alpha = _one(told, "lora_alpha", "alpha_pattern", chosen, where=where)
  if told.get("use_rslora"):
    alpha *= math.sqrt(rank)
  return Settings(rank, float(alpha), chosen)


def described(
  settings: Settings, modules: Mapping[str, Module], *, architecture: str
) -> dict[str, Any]:
  """An adapter_config.json that says so."""
  alpha = settings.alpha
  return {
    "peft_type": "LORA",
    "task_type": None,
    "auto_mapping": {
      "base_model_class": architecture,
      "parent_library": "transformers",
    },
    "base_model_name_or_path": None,
    "inference_mode": True,
    "r": settings.rank,
    "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
    "lora_dropout": 0.0,
    "use_rslora": False,
    "use_dora": False,
    "bias": "none",
    "fan_in_fan_out": False,
    "init_lora_weights": True,
    "modules_to_save": None,
    "target_modules": _targets(settings.modules, modules),
  }


def _check_fields(told: Told, *, where: str) -> None:
  """Whether all that a LoRA may be beside a plain one is off."""
  if told.get("peft_type") != "LORA":
    raise InputError(
      f"{where}: peft_type",
      expected="'LORA'",
      got=repr(told.get("peft_type")),
      fix="other kinds of PEFT have no form here",
    )
  bias = told.get("bias", "none")
  if bias != "none":
    raise InputError(f"{where}: bias", expected="'none'", got=repr(bias))
  start = told.get("init_lora_weights", True)
  if not isinstance(start, bool) and start not in _PLAIN_STARTS:
    raise InputError(
      f"{where}: init_lora_weights",
      expected=f"true, false or one of {', '.join(_PLAIN_STARTS)}",
      got=repr(start),
      fix="it changes the base model too: save it as a plain LoRA, by PEFT's "
      "path_initial_model_for_weight_conversion",
    )
  for field, value in told.items():
    if value and field not in _READ | _SILENT:
      raise InputError(
        f"{where}: {field}",
        expected="nothing, or that it is off",
        got=repr(value),
        fix="only plain LoRA has a form here",
      )


def _check_architecture(told: Told, architecture: str, *, where: str) -> None:
  mapping = told.get("auto_mapping") or {}
  made_for = mapping.get("base_model_class") if _is_object(mapping) else None
  if made_for in FAMILIES and made_for != architecture:
    raise InputError(
      f"{where}: auto_mapping",
      expected=f"a LoRA of {architecture}, as the backbone is one",
      got=f"one of {made_for}",
    )


def _check_layers(
  told: Told,
  chosen: Collection[str],
  modules: Mapping[str, Module],
  *,
  where: str,
) -> None:
  given = told.get("layers_to_transform")
  if given is None or given == []:
    return
  numbers = given if isinstance(given, list) else [given]
  layers = {modules[name].layer for name in chosen}
  if not layers <= {each for each in numbers if _is_int(each)}:
    raise InputError(
      f"{where}: layers_to_transform",
      expected=f"null, or each of {len(layers)} layers",
      got=repr(given),
      fix=_ALL_LAYERS,
    )


def _chosen(
  told: Told, modules: Mapping[str, Module], *, where: str
) -> tuple[str, ...]:
  """Names that `target_modules` means and `exclude_modules` doesn't."""
  field = f"{where}: target_modules"
  targets = told.get("target_modules")
  if isinstance(targets, str) and targets.lower() == _ALL_LINEAR:
    found = {name for name, module in modules.items() if module.linear}
  else:
    found = _meant(targets, modules, where=field)
  without = told.get("exclude_modules") or []
  found -= _meant(without, modules, where=f"{where}: exclude_modules")
  return tuple(name for name in modules if name in found)


def _meant(targets: Any, names: Collection[str], *, where: str) -> set[str]:
  """Names that a regular expression is, or that end in one of a list."""
  if isinstance(targets, str):
    pattern = _compiled(targets, where=where)
    return {name for name in names if pattern.fullmatch(name)}
  if not _is_list_of_names(targets):
    raise InputError(
      where,
      expected="a list of names or a regular expression",
      got=repr(targets),
    )
  ends = tuple(f".{target}" for target in targets)
  return {name for name in names if f".{name}".endswith(ends)}


def _check_reached(
  chosen: Collection[str], modules: Mapping[str, Module], *, where: str
) -> None:
  """Whether they are projections, each in all layers of its stack."""
  for name in chosen:
    if not modules[name].site:
      raise InputError(
        f"{where}: target_modules",
        expected=f"some of {_offered(modules)}",
        got=f"also {name}",
        fix="LoRA acts on the projections of layers here, and on nothing else",
      )
  everywhere = Counter((each.stack, each.site) for each in modules.values())
  seen = Counter((modules[name].stack, modules[name].site) for name in chosen)
  for name in chosen:
    place = modules[name].stack, modules[name].site
    count, layers = seen[place], everywhere[place]
    if count < layers:
      raise InputError(
        f"{where}: target_modules",
        expected=f"the same modules in each of {layers} layers",
        got=f"{_end(name)} in {count} of them ({name})",
        fix=_ALL_LAYERS,
      )


def _one(
  told: Told, field: str, pattern: str, chosen: Collection[str], *, where: str
) -> float:
  """The number that a field and its exceptions say of all modules alike."""
  exceptions = told.get(pattern) or {}
  if not _is_object(exceptions):
    raise InputError(
      f"{where}: {pattern}", expected="an object", got=repr(exceptions)
    )
  numbers = {
    _excepted(name, told.get(field), exceptions, where=f"{where}: {pattern}")
    for name in chosen
  }
  if len(numbers) > 1:
    raise InputError(
      f"{where}: {pattern}",
      expected=f"one {field} for all modules",
      got=", ".join(map(repr, sorted(numbers, key=repr))),
      fix="rows here have one rank and one alpha",
    )
  (number,) = numbers
  whole = field == "r"
  real = _is_int(number) or (isinstance(number, float) and not whole)
  if not real or not 0 < number < math.inf:
    raise InputError(
      f"{where}: {field}",
      expected="a whole number above 0" if whole else "a number above 0",
      got=repr(number),
    )
  return number


def _excepted(name: str, usual: Any, exceptions: Told, *, where: str) -> Any:
  """What the first exception that a name ends in says, as PEFT reads them."""
  for end, value in exceptions.items():
    if _compiled(rf"(.*\.)?({end})$", where=where).match(name):
      return value
  return usual


def _targets(
  chosen: Collection[str], modules: Mapping[str, Module]
) -> list[str]:
  """What PEFT takes for these modules alone: names in a layer, or whole ones."""
  ends = sorted({_end(name) for name in chosen})
  return (
    ends
    if _meant(ends, modules, where="target_modules") == set(chosen)
    else sorted(chosen)
  )


def _offered(modules: Mapping[str, Module]) -> str:
  """Projections that adapters reach, as a list of PEFT's would name them."""
  ends = {_end(name): None for name, module in modules.items() if module.site}
  return ", ".join(ends)


def _end(name: str) -> str:
  """A module of a layer without what precedes the layer: `self_attn.q_proj`."""
  return re.sub(r"^.*?\.\d+\.", "", name)


def _compiled(pattern: str, *, where: str) -> re.Pattern[str]:
  try:
    return re.compile(pattern)
  except re.error as error:
    raise InputError(
      where, expected="a regular expression", got=f"{pattern!r} ({error})"
    ) from error


def _is_int(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)


def _is_object(value: Any) -> bool:
  return isinstance(value, Mapping)


def _is_list_of_names(value: Any) -> bool:
  return isinstance(value, list) and all(isinstance(x, str) for x in value)
