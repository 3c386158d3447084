"""Layers of Fast Conformers as Parakeet names them; LASR's bear the same names."""

from hra.backbone.foreign import rules
from hra.backbone.foreign.rules import Rule
from hra.config import BackboneConfig

_NORMS = {
  "first_norm": "norm_feed_forward1",
  "attention_norm": "norm_self_att",
  "convolution_norm": "norm_conv",
  "second_norm": "norm_feed_forward2",
  "output_norm": "norm_out",
}
_PROJECTIONS = {
  "first/up": "feed_forward1.linear1",
  "first/down": "feed_forward1.linear2",
  "attention/query": "self_attn.q_proj",
  "attention/key": "self_attn.k_proj",
  "attention/value": "self_attn.v_proj",
  "attention/output": "self_attn.o_proj",
  "second/up": "feed_forward2.linear1",
  "second/down": "feed_forward2.linear2",
}
_POINTWISE = {
  "convolution/gate": "conv.pointwise_conv1",
  "convolution/output": "conv.pointwise_conv2",
}

IGNORABLE = (".conv.norm.num_batches_tracked",)
"""How often the BatchNorm, now folded, was updated."""


def layer_rules(config: BackboneConfig) -> list[Rule]:
  """All that they have in common."""
  theirs = "encoder.layers.{l}"
  found: list[Rule] = []
  for kind, names in (
    (rules.norm, _NORMS),
    (rules.linear, _PROJECTIONS),
    (rules.pointwise, _POINTWISE),
  ):
    for ours, name in names.items():
      found += kind(f"layers/{ours}", f"{theirs}.{name}")
  found.append(
    rules.folded(
      "layers/convolution/depthwise",
      f"{theirs}.conv.depthwise_conv",
      f"{theirs}.conv.norm",
      bias=config.conformer.convolution_bias,
    )
  )
  return found
