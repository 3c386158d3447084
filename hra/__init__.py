"""hra: adapt one frozen speech model to thousands of speakers in one job.

import hra
backbone = hra.load_backbone("tiny")
store = hra.Store("runs/quickstart/submodels")
texts = backbone.transcribe([wave_S, wave_S], submodels=[store["speaker-00"], None])
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from hra.backbone.prompted import Asked
  from hra.evaluate.recognizer import Recognizer, load_backbone
  from hra.submodels import Store, Submodel

__all__ = ["Asked", "Recognizer", "Store", "Submodel", "load_backbone"]

_WHERE = {
  "Asked": "hra.backbone.prompted",
  "Recognizer": "hra.evaluate.recognizer",
  "Store": "hra.submodels",
  "Submodel": "hra.submodels",
  "load_backbone": "hra.evaluate.recognizer",
}


def __getattr__(name: str) -> Any:
  """Loads the public names when they are first used: jax is slow to import."""
  if name in _WHERE:
    return getattr(importlib.import_module(_WHERE[name]), name)
  raise AttributeError(f"module 'hra' has no attribute {name!r}")
