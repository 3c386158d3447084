"""Modules of a converted architecture by their own names.

Enters: a backbone's folder that `hra convert` made. Leaves: of each module that has
a weight, by the name that transformers gives it, what it is here: a projection of a
layer, which adapters reach by its site, or nothing that they reach.
"""

from collections.abc import Iterator
from typing import NamedTuple

from hra.backbone.encoders import ENCODERS
from hra.backbone.foreign.checkpoint import FAMILIES
from hra.backbone.foreign.family import Translated
from hra.backbone.foreign.rules import LAYER, Rule
from hra.backbone.store import StoredBackbone
from hra.decoders.families import LAYERED
from hra.errors import InputError
from hra.sharding import named_leaves

_WEIGHT, _KERNEL = ".weight", "/kernel"
_LAYERS = {"encoder": "layers/", "decoder": "head/layers/"}
"""Stacks -> where their parameters stand."""


class Module(NamedTuple):
  """What has a weight."""

  rule: Rule
  """How ours is made of its weight."""
  shape: tuple[int, ...]
  """Of ours, of one layer."""
  linear: bool
  """Whether it is a matrix that multiplies frames, and no convolution."""
  stack: str
  """`encoder` or `decoder`, of whose layers it is one; empty: of none."""
  site: str
  """Where adapters reach it; empty: it is no projection of a layer."""
  layer: int


def modules(backbone: StoredBackbone) -> dict[str, Module]:
  """Modules by name, such as `encoder.layers.3.self_attn.q_proj`.

  Raises:
    InputError: the backbone is none that `hra convert` made.
  """
  family = FAMILIES.get(architecture(backbone))
  if family is None:
    raise InputError(
      f"backbone {backbone.fingerprint}",
      expected=f"one converted from {' or '.join(FAMILIES)}",
      got="another",
      fix="modules have names there that this one doesn't know",
    )
  shapes = {path: leaf.shape for path, leaf in named_leaves(backbone.module)}
  translated = Translated(backbone.config, backbone.about["blank"])
  found: dict[str, Module] = {}
  for rule in family.rules(translated):
    if rule.ours[0] in shapes and rule.theirs[0].endswith(_WEIGHT):
      found |= dict(_of(rule, shapes[rule.ours[0]], backbone))
  return found


def architecture(backbone: StoredBackbone) -> str:
  """What transformers calls it; empty for a backbone of our own."""
  return str(backbone.about.get("converted_from", ""))


def _of(
  rule: Rule, shape: tuple[int, ...], backbone: StoredBackbone
) -> Iterator[tuple[str, Module]]:
  """The module of a rule, or that of each layer."""
  name = rule.theirs[0].removesuffix(_WEIGHT)
  own = shape[rule.layered :]
  matrix = len(rule.ours) == 1 and rule.ours[0].endswith(_KERNEL)
  linear = matrix and len(rule.shapes(own)[0]) == 2
  if not rule.layered:
    yield name, Module(rule, own, linear, "", "", 0)
    return
  stack, site = _place(rule.ours[0], backbone)
  for layer in range(shape[0]):
    module = Module(rule, own, linear, stack, site, layer)
    yield name.replace(LAYER, str(layer)), module


def _place(path: str, backbone: StoredBackbone) -> tuple[str, str]:
  """The stack of a layer's parameter, and its site where adapters have one."""
  config = backbone.config
  for stack, layers in (
    ("encoder", ENCODERS[config.encoder]),
    ("decoder", LAYERED.get(config.decoder.kind)),
  ):
    if layers is None or not path.startswith(_LAYERS[stack]):
      continue
    inside = path.removeprefix(_LAYERS[stack])
    site = inside.removesuffix(_KERNEL).replace("/", ".")
    known = path.endswith(_KERNEL) and site in layers.projections(config)
    return stack, site if known else ""
  return "", ""
