"""The registry: a family's name in a config -> the adapter."""

import dataclasses

from hra.adapters.bitfit import BitFit
from hra.adapters.full import Full
from hra.adapters.hierarchical import HierarchicalRecurrent
from hra.adapters.interface import Adapter, Frozen
from hra.adapters.lora import Lora, sites_of
from hra.adapters.residual import Residual
from hra.backbone.conformer import NORMS, projections
from hra.config import AdapterConfig, BackboneConfig
from hra.errors import InputError


def build(
  config: AdapterConfig, backbone: BackboneConfig, *, mels: int | None = None
) -> Adapter:
  """The adapter that `config` describes, for a backbone of that shape.

  Adapters keep float32, or float64 where the backbone computes in it.

  Args:
    mels: what the backbone hears of a frame; only `full` asks for it.

  Raises:
    InputError: a field is set that the family does not use, or names no site.
  """
  _check_fields(config)
  return FAMILIES[config.family](config, backbone, mels)


def _check_fields(config: AdapterConfig) -> None:
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    users = [family for family, fields in USES.items() if field.name in fields]
    if field.name == "family" or config.family in users:
      continue
    if value != field.default:
      raise InputError(
        f"config.adapter.{field.name}",
        expected=f"its default, {field.default!r}, with family "
        f"{config.family!r}",
        got=repr(value),
        fix=f"it belongs to {', '.join(map(repr, users))}",
      )


def _hierarchical(
  config: AdapterConfig, backbone: BackboneConfig, mels: int | None
) -> HierarchicalRecurrent:
  del mels
  return HierarchicalRecurrent(
    width=backbone.width,
    layers=backbone.layers,
    controller_width=config.width,
    controller=config.controller,
    controllers=config.controllers,
    head=config.head,
    head_width=config.head_width,
    heads=config.heads,
    param_dtype=_dtype(backbone),
  )


def _residual(
  config: AdapterConfig, backbone: BackboneConfig, mels: int | None
) -> Residual:
  del mels
  return Residual(
    width=backbone.width,
    layers=backbone.layers,
    bottleneck=config.width,
    norm=config.norm,
    param_dtype=_dtype(backbone),
  )


def _lora(
  config: AdapterConfig, backbone: BackboneConfig, mels: int | None
) -> Lora:
  del mels
  return Lora(
    layers=backbone.layers,
    rank=config.width,
    sites=sites_of(config.sites, projections(backbone)),
    alpha=config.alpha,
    param_dtype=_dtype(backbone),
  )


def _bitfit(
  config: AdapterConfig, backbone: BackboneConfig, mels: int | None
) -> BitFit:
  del config, mels
  outputs = {site: wide for site, (_, wide) in projections(backbone).items()}
  outputs |= dict.fromkeys(NORMS, backbone.width)
  return BitFit(
    layers=backbone.layers,
    sites=tuple(outputs.items()),
    param_dtype=_dtype(backbone),
  )


def _full(
  config: AdapterConfig, backbone: BackboneConfig, mels: int | None
) -> Full:
  del config
  if mels is None:
    raise ValueError("full fine-tuning needs to know `mels`")
  return Full(config=backbone, mels=mels, param_dtype=_dtype(backbone))


def _none(
  config: AdapterConfig, backbone: BackboneConfig, mels: int | None
) -> Frozen:
  del config, backbone, mels
  return Frozen()


def _dtype(backbone: BackboneConfig) -> str:
  return "float64" if backbone.dtype == "float64" else "float32"


FAMILIES = {
  "hra": _hierarchical,
  "residual": _residual,
  "lora": _lora,
  "bitfit": _bitfit,
  "full": _full,
  "none": _none,
}

USES: dict[str, frozenset[str]] = {
  "hra": frozenset(
    {"width", "controller", "controllers", "head", "head_width", "heads"}
  ),
  "residual": frozenset({"width", "norm"}),
  "lora": frozenset({"width", "alpha", "sites"}),
}
"""Fields of the config that a family uses; all others use none."""
