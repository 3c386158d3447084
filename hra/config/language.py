"""A language model and its text as typed trees; their defaults live here."""

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


@dataclasses.dataclass
class SentencesConfig:
  """What a language model reads (`hra.data.sentences`)."""

  text: str = ""
  """A file with a sentence a line, plain or `.gz`; empty takes the transcripts of
  the train split of `data.path`."""
  dev_text: str = ""
  """Likewise, of what is judged by. Empty takes those of the dev split where `text`
  is empty, and else judges nothing."""
  sentences_per_batch: int = 64
  buckets: int = 4
  """Static shapes: length buckets, cut where the text pads least."""
  max_labels: int = 256
  """Longer sentences are left out."""
