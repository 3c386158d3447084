"""A language model as a typed tree; its defaults live here."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(unsafe_hash=True)
class LanguageModelConfig:
  """Of the recogniser's labels (`hra.decoders.language_model`)."""

  kind: Literal["lstm", "transformer"] = "lstm"
  vocabulary: int = 0
  """Labels, id 0 included; 0 takes the tokenizer's."""
  width: int = 512
  """Of the layers."""
  layers: int = 2
  embedding: int = 0
  """Width of a label's embedding; 0 is that of the layers."""
  output: Literal["own", "tied"] = "own"
  """`tied`: the embeddings are what labels are told by, too."""
  heads: int = 8
  """Of attention (transformer)."""
  feed_forward: int = 2048
  """Width inside of the feed-forward modules (transformer)."""
  context: int = 256
  """Labels that attention sees, the current one included (transformer): 2 at
  least. Layers see through one another further back."""
  dtype: Literal["float32", "bfloat16", "float64"] = "float32"
  """Of the computation; norms, softmax and losses stay at least float32."""
  param_dtype: Literal["float32", "bfloat16", "float64"] = "float32"
