"""The registry: a family's name in a config -> the adapter."""

from collections.abc import Mapping
from typing import NamedTuple

from hra import config_tree
from hra.adapters.bitfit import BitFit
from hra.adapters.full import Full
from hra.adapters.hierarchical import HierarchicalRecurrent
from hra.adapters.interface import Adapter, Frozen, Stack
from hra.adapters.lora import Lora, sites_of
from hra.adapters.residual import Residual
from hra.adapters.stacks import Stacks
from hra.backbone.encoders import ENCODERS
from hra.config import AdapterConfig, BackboneConfig
from hra.decoders.families import LAYERED
from hra.errors import InputError


def build(
  config: AdapterConfig, backbone: BackboneConfig, *, mels: int | None = None
) -> Adapter:
  """The adapter that `config` describes, for a backbone of that shape.

  Adapters keep float32, or float64 where the backbone computes in it.

  Args:
    mels: what the backbone hears of a frame; only `full` asks for it.

  Raises:
    InputError: a field is set that the family does not use, or names no site; the
      decoder has no layers to adapt.
  """
  config_tree.validate(config, path="config.adapter")
  if config.family == "none":
    return Frozen()
  if config.family == "full":
    return _full(backbone, mels)
  stacks: tuple[Stack, ...] = (
    ("encoder", "decoder") if config.stacks == "both" else (config.stacks,)
  )
  layers = {stack: _layers_of(backbone, stack) for stack in stacks}
  made = FAMILIES[config.family](config, layers, _dtype(backbone))
  if stacks == ("encoder",):
    return made["encoder"]
  return Stacks(parts=tuple(made.items()))


class Layers(NamedTuple):
  """What a family has to know of a stack."""

  width: int
  number: int
  projections: dict[str, tuple[int, int]]
  """Sites of a layer -> (inputs, outputs)."""
  biases: dict[str, int]
  """Sites of a layer where a bias is added -> how wide it is."""


_Made = dict[Stack, Adapter]


def _layers_of(backbone: BackboneConfig, stack: Stack) -> Layers:
  if stack == "encoder":
    encoder = ENCODERS[backbone.encoder]
    return Layers(
      backbone.width,
      backbone.layers,
      encoder.projections(backbone),
      encoder.biases(backbone),
    )
  decoder = backbone.decoder
  if decoder.kind not in LAYERED:
    raise InputError(
      "config.adapter.stacks",
      expected=f"'encoder': decoder {decoder.kind!r} has no layers to adapt",
      got=stack,
    )
  sites = LAYERED[decoder.kind]
  return Layers(
    backbone.width,
    decoder.layers,
    sites.projections(backbone),
    sites.biases(backbone),
  )


def _hierarchical(
  config: AdapterConfig, stacks: Mapping[Stack, Layers], dtype: str
) -> _Made:
  return {
    stack: HierarchicalRecurrent(
      width=layers.width,
      layers=layers.number,
      controller_width=config.width,
      controller=config.controller,
      controllers=config.controllers,
      head=config.head,
      head_width=config.head_width,
      heads=config.heads,
      param_dtype=dtype,
    )
    for stack, layers in stacks.items()
  }


def _residual(
  config: AdapterConfig, stacks: Mapping[Stack, Layers], dtype: str
) -> _Made:
  return {
    stack: Residual(
      width=layers.width,
      layers=layers.number,
      bottleneck=config.width,
      norm=config.norm,
      param_dtype=dtype,
    )
    for stack, layers in stacks.items()
  }


def _lora(
  config: AdapterConfig, stacks: Mapping[Stack, Layers], dtype: str
) -> _Made:
  """At sites that are chosen by their paths, or by paths in one stack of two."""
  everywhere = {
    path: sizes
    for stack, layers in stacks.items()
    for site, sizes in layers.projections.items()
    for path in (site, *([f"{stack}.{site}"] if len(stacks) > 1 else []))
  }
  chosen = {path for path, *_ in sites_of(config.sites, everywhere)}
  made: _Made = {}
  for stack, layers in stacks.items():
    sites = tuple(
      (site, *sizes)
      for site, sizes in layers.projections.items()
      if chosen & {site, f"{stack}.{site}"}
    )
    if sites:
      made[stack] = Lora(
        layers=layers.number,
        rank=config.width,
        sites=sites,
        alpha=config.alpha or 2.0 * config.width,
        param_dtype=dtype,
      )
  return made


def _bitfit(
  config: AdapterConfig, stacks: Mapping[Stack, Layers], dtype: str
) -> _Made:
  del config
  return {
    stack: BitFit(
      layers=layers.number,
      sites=tuple(layers.biases.items()),
      param_dtype=dtype,
    )
    for stack, layers in stacks.items()
  }


def _full(backbone: BackboneConfig, mels: int | None) -> Full:
  if mels is None:
    raise ValueError("full fine-tuning needs to know `mels`")
  if backbone.weights != "float":
    raise InputError(
      "config.backbone.weights",
      expected="'float' with adapter.family 'full', which changes every weight",
      got=repr(backbone.weights),
    )
  return Full(config=backbone, mels=mels, param_dtype=_dtype(backbone))


def _dtype(backbone: BackboneConfig) -> str:
  return "float64" if backbone.dtype == "float64" else "float32"


FAMILIES = {
  "hra": _hierarchical,
  "residual": _residual,
  "lora": _lora,
  "bitfit": _bitfit,
}
"""Those that leave the weights alone: adapters of stacks, by their layers.

A stack may be left without one."""
