"""Batches of recordings -> texts, by the same forward as training and serving.

In: waveforms of any tasks in one batch, and their rows. Out: texts. The bare
backbone is the same compiled program with the adapter switched off.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hra import processes
from hra.adapters.interface import Tree
from hra.backbone.network import Backbone
from hra.data.loader import EvaluationBatch
from hra.data.tokenizer import Tokenizer
from hra.decoders.beam import LanguageModel, Weights
from hra.decoders.interface import Emissions, Labels
from hra.evaluate.search import Search
from hra.model import Model


@functools.partial(jax.jit, static_argnums=0)
def greedy(
  model: Model,
  backbone: Backbone,
  shared: Tree,
  rows_K: Tree,
  active_K: jax.Array,
  wave_KS: jax.Array,
  lengths_K: jax.Array,
) -> Labels:
  """What is heard in each of K utterances, greedily: labels [K, U].

  Args:
    rows_K: of each utterance [K, ...].
    active_K: False runs the bare backbone on that utterance.
  """
  return jax.vmap(model.greedy, in_axes=(None, None, 0, 0, 0, 0))(
    backbone,
    shared,
    rows_K,
    active_K,
    wave_KS,
    lengths_K,
  )


@functools.partial(jax.jit, static_argnums=0)
def emitted(model: Model, *given: Any) -> Emissions:
  """What greedy search says in each of K utterances, and of which frame.

  Args:
    given: what `greedy` takes after the model.
  """
  return jax.vmap(model.emissions, in_axes=(None, None, 0, 0, 0, 0))(*given)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _searched(
  model: Model,
  beam: int,
  weights: Weights,
  language_model: LanguageModel | None,
  backbone: Backbone,
  shared: Tree,
  rows_K: Tree,
  active_K: jax.Array,
  wave_KS: jax.Array,
  lengths_K: jax.Array,
) -> Labels:
  """The best hypothesis of each of K utterances; the arguments are `greedy`'s."""
  one = functools.partial(
    model.search, beam=beam, weights=weights, language_model=language_model
  )
  found = jax.vmap(one, in_axes=(None, None, 0, 0, 0, 0))(
    backbone, shared, rows_K, active_K, wave_KS, lengths_K
  )
  # Where nothing can have been said, nothing was.
  length_K = jnp.where(found.total_W[:, 0] > -jnp.inf, found.length_W[:, 0], 0)
  return Labels(found.labels_WU[:, 0], length_K)


def heard(model: Model, *given: Any, search: Search | None) -> Labels:
  """What is heard in each of K utterances, by `search` or else greedily.

  Args:
    given: what `greedy` takes after the model.
  """
  if search is None:
    return greedy(model, *given)
  return _searched(model, *search, *given)


def hypotheses(
  model: Model,
  backbone: Backbone,
  shared: Tree,
  rows_of: Callable[[np.ndarray], Tree],
  batches: Iterable[EvaluationBatch],
  *,
  tokenizer: Tokenizer,
  adapted: bool,
  search: Search | None = None,
  place: Callable[[np.ndarray], Any] = lambda leaf: leaf,
) -> dict[int, str]:
  """The text of every utterance of `batches`, by its index in the split.

  Args:
    rows_of: tasks' places in the table [K] -> their rows [K, ...].
    search: None is greedy.
    place: this process's part of K utterances -> all, on the devices.
  """
  texts: dict[int, str] = {}
  pending: list[tuple[np.ndarray, Labels]] = []
  for batch, indices_K in batches:
    found = heard(
      model,
      backbone,
      shared,
      rows_of(place(batch.task_K)),
      np.full(len(indices_K), adapted),
      place(batch.wave_KBS[:, 0]),
      place(batch.lengths_KB[:, 0]),
      search=search,
    )
    pending.append((indices_K, found))
    if len(pending) > 1:  # decode one batch while the device runs the next
      _decode(*pending.pop(0), tokenizer=tokenizer, texts=texts)
  for indices_K, found in pending:
    _decode(indices_K, found, tokenizer=tokenizer, texts=texts)
  return texts


def spelled(found: Labels, tokenizer: Tokenizer) -> list[str]:
  """The texts of labels [K, U]; waits for the device."""
  labels_KU, lengths_K = processes.fetch(found)
  return [
    tokenizer.decode(labels_U[:length].tolist())
    for labels_U, length in zip(labels_KU, lengths_K.tolist(), strict=True)
  ]


def _decode(
  indices_K: np.ndarray,
  found: Labels,
  *,
  tokenizer: Tokenizer,
  texts: dict[int, str],
) -> None:
  spoken = spelled(found, tokenizer)
  texts |= {
    index: text
    for index, text in zip(indices_K.tolist(), spoken, strict=True)
    if index >= 0
  }
