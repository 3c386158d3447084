"""Batches of recordings -> texts, by the same forward as training and serving.

In: waveforms of any tasks in one batch, and their rows. Out: texts. The bare
backbone is the same compiled program with the adapter switched off.
"""

import functools
from collections.abc import Callable, Iterable

import jax
import numpy as np

from hra.adapters.interface import Tree
from hra.backbone.conformer import Conformer
from hra.data.loader import EvaluationBatch
from hra.data.tokenizer import Tokenizer
from hra.decoders import ctc
from hra.model import Model


@functools.partial(jax.jit, static_argnums=0)
def best_paths(
  model: Model,
  backbone: Conformer,
  shared: Tree,
  rows_K: Tree,
  active_K: jax.Array,
  wave_KS: jax.Array,
  lengths_K: jax.Array,
) -> jax.Array:
  """The likeliest label of each frame [K, T] of K utterances.

  Args:
    rows_K: of each utterance [K, ...].
    active_K: False runs the bare backbone on that utterance.
  """
  return jax.vmap(model.best_path, in_axes=(None, None, 0, 0, 0, 0))(
    backbone,
    shared,
    rows_K,
    active_K,
    wave_KS,
    lengths_K,
  )


def hypotheses(
  model: Model,
  backbone: Conformer,
  shared: Tree,
  rows_of: Callable[[np.ndarray], Tree],
  batches: Iterable[EvaluationBatch],
  *,
  tokenizer: Tokenizer,
  adapted: bool,
) -> dict[int, str]:
  """The text of every utterance of `batches`, by its index in the split.

  Args:
    rows_of: tasks' places in the table [K] -> their rows [K, ...].
  """
  texts: dict[int, str] = {}
  pending: list[tuple[np.ndarray, jax.Array]] = []
  for batch, indices_K in batches:
    paths_KT = best_paths(
      model,
      backbone,
      shared,
      rows_of(batch.task_K),
      np.full(len(indices_K), adapted),
      batch.wave_KBS[:, 0],
      batch.lengths_KB[:, 0],
    )
    pending.append((indices_K, paths_KT))
    if len(pending) > 1:  # decode one batch while the device runs the next
      _decode(*pending.pop(0), tokenizer=tokenizer, texts=texts)
  for indices_K, paths_KT in pending:
    _decode(indices_K, paths_KT, tokenizer=tokenizer, texts=texts)
  return texts


def _decode(
  indices_K: np.ndarray,
  paths_KT: jax.Array,
  *,
  tokenizer: Tokenizer,
  texts: dict[int, str],
) -> None:
  paths = jax.device_get(paths_KT)
  for index, path_T in zip(indices_K.tolist(), paths, strict=True):
    if index >= 0:
      texts[index] = tokenizer.decode(ctc.collapse(path_T))
