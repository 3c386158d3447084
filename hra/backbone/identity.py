"""What a backbone is by itself, and what a run says of how it is computed.

Enters: a folder's config.json, its parameters, a run's configuration. Leaves: the
fingerprint, and configurations in which the run's own fields are the run's.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from hra import processes
from hra.backbone.tensors import TensorFile, hash_tensors
from hra.config import BackboneConfig
from hra.files import is_remote

_COMPUTED = ("dtype", "param_dtype", "weights", "remat")
_COMPUTED_BY_DECODER = (
  "chunk",
  "label_smoothing",
  "sigma",
  "task",
  "timestamps",
)
"""What is the run's own to say, and no property of the parameters."""
_PROMPTED = ("language", "prompt")
"""No property of the parameters either; see `prompted`."""


def fingerprint_of_file(file: TensorFile, described: Mapping[str, Any]) -> str:
  """As `fingerprint`, of a file that is read once and never held.

  Of several processes each reads its own; of a bucket's file, the first for all.
  """
  text = fingerprinted(described)
  if not is_remote(file.path):
    return file.hash(text)
  return processes.first_does(lambda: file.hash(text))


def fingerprint(
  described: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> str:
  """Of what config.json says and of the parameters."""
  return hash_tensors(tensors, text=fingerprinted(described))


def fingerprinted(described: Mapping[str, Any]) -> str:
  """What config.json says, as far as it is a property of the parameters.

  It is the text of the folder, not the dataclasses: a field that a later
  version adds, with a default, leaves fingerprints alone. How it is computed
  and trained (`_COMPUTED`) does not enter.
  """
  backbone = _without(described["backbone"], _COMPUTED)
  if "decoder" in backbone:
    own = _COMPUTED_BY_DECODER + _PROMPTED
    backbone["decoder"] = _without(backbone["decoder"], own)
  return json.dumps([backbone, described["features"]], sort_keys=True)


def _without(
  values: Mapping[str, Any], fields: Collection[str]
) -> dict[str, Any]:
  return {name: value for name, value in values.items() if name not in fields}


def computed_as(
  config: BackboneConfig, computed: BackboneConfig
) -> BackboneConfig:
  """`config` with what is the run's own to say taken from `computed`."""

  def taken(own: Any, theirs: Any, fields: Collection[str]) -> Any:
    changes = {field: getattr(theirs, field) for field in fields}
    return dataclasses.replace(own, **changes)

  decoder = taken(config.decoder, computed.decoder, _COMPUTED_BY_DECODER)
  config = taken(config, computed, _COMPUTED)
  return dataclasses.replace(config, decoder=decoder)
