"""The experiment as one typed tree of dataclasses; every default lives here.

The dataclasses are mutable so that `--config.adapter.width=64` can set a field;
`hra.config_tree.validate` is called once after parsing and the tree is read-only
by convention from then on (those that are static arguments of compiled functions
hash by value). A function gets the sub-config that it needs, never the whole tree.
"""

from hra.config.language import (
  LanguageModelConfig,
  SentencesConfig,
)
from hra.config.model import (
  AdapterConfig,
  BackboneConfig,
  ConformerConfig,
  DecoderConfig,
  FrontendConfig,
  SpaceConfig,
  SpecAugmentConfig,
  Task,
  TransformerConfig,
)
from hra.config.run import (
  ChunksConfig,
  Config,
  DataConfig,
  EvalConfig,
  MeshConfig,
  OptimizerConfig,
  PrepareConfig,
  SearchConfig,
  SyntheticConfig,
  TrainConfig,
)
from hra.config.serve import (
  EngineConfig,
  HttpConfig,
  LimitsConfig,
  ServeConfig,
  StreamConfig,
)
from hra.config.sound import (
  MultistyleConfig,
  RoomsConfig,
)

__all__ = [
  "AdapterConfig",
  "BackboneConfig",
  "ChunksConfig",
  "Config",
  "ConformerConfig",
  "DataConfig",
  "DecoderConfig",
  "EngineConfig",
  "EvalConfig",
  "FrontendConfig",
  "HttpConfig",
  "LanguageModelConfig",
  "LimitsConfig",
  "MeshConfig",
  "MultistyleConfig",
  "OptimizerConfig",
  "PrepareConfig",
  "RoomsConfig",
  "SearchConfig",
  "SentencesConfig",
  "ServeConfig",
  "SpaceConfig",
  "SpecAugmentConfig",
  "StreamConfig",
  "SyntheticConfig",
  "Task",
  "TrainConfig",
  "TransformerConfig",
]
