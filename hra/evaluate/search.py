"""What a search stands on: a beam, weights, a language model; opened once.

Enters: a `SearchConfig` and the recogniser's tokenizer. Leaves: a `Search`, of which
the beam alone is static, so that weights can be tuned by one compiled program.
"""

from typing import NamedTuple

from etils import epath

from hra import language_store
from hra.config import SearchConfig
from hra.data.tokenizer import Tokenizer
from hra.decoders import ngram
from hra.decoders.beam import LanguageModel, Weights
from hra.decoders.families import GREEDY_ONLY
from hra.decoders.interface import no_beam


class Search(NamedTuple):
  """Greedy where there is none."""

  beam: int
  weights: Weights
  language_model: LanguageModel | None


def open_search(
  config: SearchConfig, tokenizer: Tokenizer, *, decoder: str
) -> Search | None:
  """What `config` describes; None is greedy search.

  Args:
    decoder: its kind.

  Raises:
    InputError: the language model is none, or one of other labels; a beam is asked
      of a decoder that has none.
  """
  if not config.beam:
    return None
  if decoder in GREEDY_ONLY:
    raise no_beam(decoder)
  weights = Weights(
    language_model=config.language_model_weight,
    length=config.length_bonus,
    coverage=config.coverage,
    normalization=config.length_normalization,
  )
  return Search(
    config.beam, weights, _language_model(config.language_model, tokenizer)
  )


def _language_model(path: str, tokenizer: Tokenizer) -> LanguageModel | None:
  if not path:
    return None
  if epath.Path(path).is_dir():
    return language_store.load(path, tokenizer=tokenizer).module
  return ngram.read(path, tokenizer.labels)
