"""What `hra.backbone.foreign` has to know of an architecture to convert it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hra.backbone.foreign.rules import Rule
from hra.backbone.foreign.source import Source
from hra.config import BackboneConfig, FrontendConfig


class Translated(NamedTuple):
  """What a config.json says, in our words."""

  config: BackboneConfig
  blank: int
  """Their id of our label 0: CTC's blank, or the end of a sentence."""
  blank_named: str = "pad_token_id"
  """Their field for it."""
  token_named: str = "pad_token"
  """Their tokenizer's field for it."""

  @property
  def order(self) -> tuple[int, ...]:
    """Their ids by our labels: the blank, then all others as they stood."""
    ids = range(self.config.vocabulary)
    return (self.blank, *(id for id in ids if id != self.blank))

  def label(self, id: int) -> int:
    """Ours of theirs."""
    return 0 if id == self.blank else id + (id < self.blank)


class Family(NamedTuple):
  """One architecture of transformers."""

  translate: Callable[[Mapping[str, Any], str], Translated]
  """config.json, and where it stands -> what it says.

  Raises InputError for an option that has no form here, by its name.
  """
  rules: Callable[[Translated], list[Rule]]
  """How our tensors are made; also those that some configurations don't have."""
  ignorable: tuple[str, ...]
  """Ends of names of tensors that say nothing of what a frozen model hears."""
  tokenizer: str
  """The file of its tokenizer, one of `hra.data.tokenizer.OTHERS`."""
  extractor: str
  """The kind of feature extractor that it is trained with."""
  frontend: Callable[[Mapping[str, Any], str], FrontendConfig]
  """preprocessor_config.json, and where it stands -> the front end.

  Raises InputError as `translate` does.
  """
  searched: Callable[[Translated, Source], Translated] | None = None
  """What is translated, with what other files of the folder say of searches."""
