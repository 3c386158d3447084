"""A checkpoint's folder -> what is converted of it, checked and not yet read."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hra import config_tree
from hra.backbone import store
from hra.backbone.foreign.family import Family, Translated
from hra.backbone.foreign.lasr import LASR
from hra.backbone.foreign.parakeet import PARAKEET
from hra.backbone.foreign.parakeet_transducer import PARAKEET_RNNT, PARAKEET_TDT
from hra.backbone.foreign.rules import Plan
from hra.backbone.foreign.source import CONFIG_FILE, Source
from hra.backbone.foreign.w2v_bert import W2V_BERT
from hra.backbone.foreign.whisper import WHISPER
from hra.config import BackboneConfig, FrontendConfig
from hra.errors import InputError
from hra.features.frontend import num_frames
from hra.nn.subsampling import subsampled
from hra.sharding import named_leaves

FAMILIES: dict[str, Family] = {
  "LasrForCTC": LASR,
  "ParakeetForCTC": PARAKEET,
  "ParakeetForRNNT": PARAKEET_RNNT,
  "ParakeetForTDT": PARAKEET_TDT,
  "Wav2Vec2BertForCTC": W2V_BERT,
  "WhisperForConditionalGeneration": WHISPER,
}
"""By the name that transformers gives the architecture."""

EXTRACTOR_FILE = "preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"
"""Where newer versions of transformers put the feature extractor too."""


class Checkpoint(NamedTuple):
  """One of `FAMILIES`, of which all is known but the numbers."""

  architecture: str
  source: Source
  translated: Translated
  frontend: FrontendConfig
  plan: Plan

  @property
  def config(self) -> BackboneConfig:
    return self.translated.config

  def parts(self, path: str) -> Iterator[np.ndarray]:
    """A parameter of ours, read and made part by part along its first axis."""
    return self.plan.parts(path)


def read(folder: str, *, param_dtype: str = "float32") -> Checkpoint:
  """What a checkpoint says of itself; no tensor is read.

  Args:
    param_dtype: of what is made of it.

  Raises:
    InputError: no such folder; an architecture or an option of one that can't be
      converted; tensors or a front end that aren't those of its configuration.
  """
  source = Source(folder)
  architecture = _architecture(source)
  family = FAMILIES[architecture]
  where = str(source.folder / CONFIG_FILE)
  translated = family.translate(source.config, where)
  if family.searched is not None:
    translated = family.searched(translated, source)
  config = config_tree.replaced(translated.config, "param_dtype", param_dtype)
  translated = translated._replace(config=config)
  config_tree.validate(config, path=where)
  _check_blank(translated, where)
  frontend = _frontend(source, family)
  _check_fills(config, frontend, where)
  plan = Plan(
    source,
    family.rules(translated),
    dict(named_leaves(store.abstract(config, frontend))),
    ignorable=family.ignorable,
  )
  return Checkpoint(architecture, source, translated, frontend, plan)


def _architecture(source: Source) -> str:
  told = source.config.get("architectures") or [None]
  if told[0] not in FAMILIES:
    raise InputError(
      f"{source.folder / CONFIG_FILE}: architectures",
      expected=f"one of {', '.join(FAMILIES)}",
      got=str(told[0]),
      fix="a model without a decoder has to be fine-tuned with one first"
      if str(told[0]).endswith("Model")
      else "",
    )
  return told[0]


def _check_blank(translated: Translated, where: str) -> None:
  vocabulary = translated.config.vocabulary
  if not 0 <= translated.blank < vocabulary:
    raise InputError(
      f"{where}: {translated.blank_named}",
      expected=f"one of the vocabulary's {vocabulary} ids",
      got=str(translated.blank),
    )


def _check_fills(
  config: BackboneConfig, frontend: FrontendConfig, where: str
) -> None:
  """Whether what is always heard fills a table of positions."""
  frames = subsampled(num_frames(frontend.pad_to, frontend), config)
  if config.encoder == "transformer" and frames != config.transformer.frames:
    raise InputError(
      f"{where}: max_source_positions",
      expected=f"the {frames} frames that {EXTRACTOR_FILE} makes of its audio",
      got=str(config.transformer.frames),
    )


def _frontend(source: Source, family: Family) -> FrontendConfig:
  if source.has(EXTRACTOR_FILE) or not source.has(PROCESSOR_FILE):
    where = str(source.folder / EXTRACTOR_FILE)
    told = source.json(EXTRACTOR_FILE)
  else:
    where = f"{source.folder / PROCESSOR_FILE}: feature_extractor"
    told = source.json(PROCESSOR_FILE).get("feature_extractor", {})
  kind = told.get("feature_extractor_type")
  if kind != family.extractor:
    raise InputError(
      f"{where}: feature_extractor_type",
      expected=family.extractor,
      got=str(kind),
    )
  frontend = family.frontend(told, where)
  config_tree.validate(frontend, path=where)
  return frontend
