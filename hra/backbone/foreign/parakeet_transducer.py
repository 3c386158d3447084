"""Parakeet with a transducer: `ParakeetForRNNT`, `ParakeetForTDT` of transformers."""

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from hra.backbone.foreign import parakeet, rules
from hra.backbone.foreign.family import Family, Translated
from hra.backbone.foreign.options import Options
from hra.backbone.foreign.parakeet import PARAKEET
from hra.backbone.foreign.rules import Rule
from hra.config import BackboneConfig, DecoderConfig

_MODEL = MappingProxyType(
  {
    "vocab_size": 8193,
    "blank_token_id": 8192,
    "decoder_hidden_size": 640,
    "num_decoder_layers": 2,
    "hidden_act": "relu",
    "max_symbols_per_step": 10,
    "durations": (0, 1, 2, 3, 4),
    "encoder_config": {},
  }
)


def _translate(
  told: Mapping[str, Any], where: str, *, kind: Literal["rnnt", "tdt"]
) -> Translated:
  model = Options(told, _MODEL, where=where)
  width, most = model["decoder_hidden_size"], model["max_symbols_per_step"]
  decoder = DecoderConfig(
    kind=kind,
    layers=model["num_decoder_layers"],
    width=width,
    embedding=width,
    joint=width,
    joint_activation=model.activation("hidden_act"),
    # With durations, their search bounds what a recording says, and no frame.
    frame_labels=most if kind == "rnnt" else 0,
    most_labels=most,
  )
  if kind == "tdt":
    decoder.durations = model["durations"]
  config = parakeet.encoder(model, where, decoder=decoder)
  return Translated(config, model["blank_token_id"], "blank_token_id")


def _rules(translated: Translated) -> list[Rule]:
  config, order = translated.config, translated.order
  durations = config.vocabulary + len(config.decoder.durations)
  if config.decoder.kind == "tdt":  # behind the labels, as theirs
    order = (*order, *range(config.vocabulary, durations))
  return [
    *parakeet.encoder_rules(config),
    *_prediction_rules(config, translated.order),
    *rules.linear("head/encoded", "encoder_projector", bias=False),
    # Both are summed before the joint's activation.
    rules.summed(
      "head/encoded/bias",
      "encoder_projector.bias",
      "decoder.decoder_projector.bias",
    ),
    *rules.linear("head/predicted", "decoder.decoder_projector", bias=False),
    *rules.labels("head/output", "joint.head", order=order, rank=2),
  ]


def _prediction_rules(
  config: BackboneConfig, order: tuple[int, ...]
) -> list[Rule]:
  ours, theirs = "head/prediction", "decoder.lstm"
  found = [
    rules.rows(
      f"{ours}/embedding/embedding", "decoder.embedding.weight", order=order
    )
  ]
  for layer in range(config.decoder.layers):
    found += rules.lstm(f"{ours}/lstm/layers/{layer}", theirs, layer=layer)
  return found


def _family(kind: Literal["rnnt", "tdt"]) -> Family:
  return PARAKEET._replace(
    translate=functools.partial(_translate, kind=kind), rules=_rules
  )


PARAKEET_RNNT, PARAKEET_TDT = _family("rnnt"), _family("tdt")
