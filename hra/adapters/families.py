"""The registry: a family's name in a config -> the adapter."""

from hra.adapters.hierarchical import HierarchicalRecurrent
from hra.adapters.interface import Adapter, Frozen
from hra.config import AdapterConfig, BackboneConfig


def build(config: AdapterConfig, backbone: BackboneConfig) -> Adapter:
  """The adapter that `config` describes, for a backbone of that shape."""
  return FAMILIES[config.family](config, backbone)


def _hierarchical(
  config: AdapterConfig, backbone: BackboneConfig
) -> HierarchicalRecurrent:
  return HierarchicalRecurrent(
    width=backbone.width,
    controller=config.width,
    head=config.head,
    head_width=config.head_width,
    heads=config.heads,
    param_dtype="float64" if backbone.dtype == "float64" else "float32",
  )


FAMILIES = {
  "hra": _hierarchical,
  "none": lambda config, backbone: Frozen(),
}
