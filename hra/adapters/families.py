"""The registry: a family's name in a config -> the adapter."""

from hra import config_tree
from hra.adapters.bitfit import BitFit
from hra.adapters.full import Full
from hra.adapters.hierarchical import HierarchicalRecurrent
from hra.adapters.interface import Adapter, Frozen
from hra.adapters.lora import Lora, sites_of
from hra.adapters.residual import Residual
from hra.backbone.encoders import ENCODERS
from hra.config import AdapterConfig, BackboneConfig


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
  config_tree.validate(config, path="config.adapter")
  return FAMILIES[config.family](config, backbone, mels)


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
    sites=sites_of(
      config.sites, ENCODERS[backbone.encoder].projections(backbone)
    ),
    alpha=config.alpha or 2.0 * config.width,
    param_dtype=_dtype(backbone),
  )


def _bitfit(
  config: AdapterConfig, backbone: BackboneConfig, mels: int | None
) -> BitFit:
  del config, mels
  outputs = ENCODERS[backbone.encoder].biases(backbone)
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
